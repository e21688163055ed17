//! The memory map of a file, and what is said when one breaks.

use std::fs::File;

use memmap2::Mmap;

/// Maps a file for reading.
#[expect(unsafe_code, reason = "a memory map is unsafe by nature")]
pub(super) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private and read-only. Another process that truncates the file while it is mapped makes reads
    // fault; model files are not written while they are served, and llama.cpp maps them under the same assumption.
    unsafe { Mmap::map(file) }
}

/// From now on a mapped file that cannot be read any more, because it was cut short or its disk failed, is named on standard error
/// before the process ends (SIGBUS).
pub fn name_broken_maps() {
    #[cfg(target_os = "linux")]
    broken::listen();
}

#[cfg(target_os = "linux")]
mod broken {
    use std::ffi::{c_int, c_void};

    const BEGIN: &[u8] = b"hearth: a mapped file cannot be read any more; it was cut short, or its disk fails: ";
    const HINT: &[u8] =
        b"\nhint: put the file back and start hearth again; write new models beside old ones, not over them\n";

    /// The handler of SIGBUS. Only calls that signals allow: open, read, write, close.
    #[expect(unsafe_code, reason = "a signal handler gets raw pointers")]
    extern "C" fn tell(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
        // SAFETY: with SA_SIGINFO the system hands over a valid structure, which has an address for this signal.
        let address = unsafe { (*info).si_addr() } as usize;
        let mut line = [0_u8; 1024];
        let length = find(address, &mut line);
        for part in [BEGIN, &line[..length], HINT] {
            // SAFETY: the slice is readable for its length; nothing depends on how much of it is written.
            let _ = unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
        }
        // The handler is gone by now (SA_RESETHAND): the access is repeated, and ends the process.
    }

    /// Copies the line of `/proc/self/maps` for an address; says how long it is.
    #[expect(unsafe_code, reason = "signals allow no other way to read a file")]
    fn find(address: usize, line: &mut [u8; 1024]) -> usize {
        // SAFETY: the path ends with a zero.
        let file = unsafe { libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        let mut part = [0_u8; 512];
        let mut length = 0;
        let mut found = false;
        while !found {
            // SAFETY: the buffer is writable for its length. A file that was not opened gives an error.
            let read = unsafe { libc::read(file, part.as_mut_ptr().cast(), part.len()) };
            let Some(read) = usize::try_from(read).ok().filter(|read| *read > 0) else {
                break;
            };
            for byte in part.iter().take(read) {
                if *byte != b'\n' {
                    // A longer line is cut.
                    if length < line.len() {
                        line[length] = *byte;
                        length += 1;
                    }
                    continue;
                }
                found = contains(&line[..length], address);
                if found {
                    break;
                }
                length = 0;
            }
        }
        // SAFETY: nobody else has the number.
        unsafe { libc::close(file) };
        if found { length } else { 0 }
    }

    /// Whether a line `begin-end ...` of hexadecimal numbers is that of an address.
    fn contains(line: &[u8], address: usize) -> bool {
        let mut numbers = [0_usize; 2];
        let mut which = 0;
        for byte in line {
            match byte {
                b'-' if which == 0 => which = 1,
                b' ' => break,
                digit => {
                    let digit = (*digit as char).to_digit(16).unwrap_or(0);
                    numbers[which] = (numbers[which] << 4) | digit as usize;
                }
            }
        }
        (numbers[0]..numbers[1]).contains(&address)
    }

    #[expect(unsafe_code, reason = "a handler is set through C")]
    pub(super) fn listen() {
        // SAFETY: the handler has the signature that SA_SIGINFO asks for, and calls only what signals allow.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = tell as extern "C" fn(_, _, _) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_map_is_found_by_an_address() {
            let line = b"7f00a000-7f00c000 r--p 00000000 08:01 17  /models/a.gguf";
            assert!(contains(line, 0x7f00_a000) && contains(line, 0x7f00_bfff));
            assert!(!contains(line, 0x7f00_9fff) && !contains(line, 0x7f00_c000));
            assert!(!contains(b"", 0) && !contains(b"nonsense", 0));
            let mut line = [0; 1024];
            let length = find(BEGIN.as_ptr() as usize, &mut line);
            // This very program is mapped, too.
            let text = String::from_utf8_lossy(&line[..length]);
            assert!(text.contains("hearth"), "{text}");
            assert_eq!(find(0, &mut line), 0);
        }
    }
}
