//! Measurements of a second or two.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// What is read, all threads together: larger than any cache. Less where memory is short.
const BUFFER: u64 = 1 << 30;
/// Elements between looks at the clock.
const BLOCK: usize = 1 << 16;
/// Bytes of one read from a disk.
const READ: usize = 4 << 20;
/// Bytes of the file of its own.
const FILE: usize = 64 << 20;
/// Direct reads need memory at such addresses.
const ALIGNMENT: usize = 4096;

/// Bytes per second that `threads` threads read from main memory, in the best of several passes within `limit`. `None`
/// where there is too little memory to tell.
pub(super) fn memory(threads: u32, available: u64, limit: Duration) -> Option<f64> {
    let bytes = BUFFER.min(available / 4);
    let each = usize::try_from(bytes / u64::from(threads.max(1)) / 8).ok()?;
    if each < BLOCK * 16 {
        return None;
    }
    let rates = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads.max(1))
            .map(|number| scope.spawn(move || read_memory(each, u64::from(number), limit)))
            .collect();
        readers
            .into_iter()
            .map(|reader| reader.join().ok().flatten())
            .collect::<Option<Vec<f64>>>()
    })?;
    Some(rates.iter().sum())
}

/// Bytes per second of one thread, over the time in which the others read, too.
fn read_memory(elements: usize, seed: u64, limit: Duration) -> Option<f64> {
    // Written by the thread that reads it, so that it lies near its core.
    let buffer: Vec<u64> = (0..elements as u64).map(|number| number ^ seed).collect();
    let start = Instant::now();
    let mut read = 0_u64;
    let mut sum = 0_u64;
    'passes: loop {
        for block in buffer.chunks(BLOCK) {
            sum = sum.wrapping_add(block.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)));
            read += block.len() as u64 * 8;
            if start.elapsed() >= limit {
                break 'passes;
            }
        }
    }
    std::hint::black_box(sum);
    rate(read, start.elapsed())
}

/// Bytes per second from the start of a file, past the system's cache, within `limit`.
pub(super) fn file(path: &Path, limit: Duration) -> io::Result<Option<f64>> {
    let mut file = open_past_cache(path)?;
    let mut memory = vec![0_u8; READ + ALIGNMENT];
    let skip = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    let start = Instant::now();
    let mut read = 0;
    while start.elapsed() < limit {
        match file.read(&mut memory[skip..skip + READ])? {
            0 => break,
            count => read += count as u64,
        }
    }
    // Less says more about the clock than about the disk.
    Ok(if read < (1 << 20) {
        None
    } else {
        rate(read, start.elapsed())
    })
}

/// The same with a file of its own, which is removed again.
pub(super) fn disk(folder: &Path, limit: Duration) -> io::Result<Option<f64>> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    // Some disks compress.
    let mut block = vec![0_u8; 1 << 20];
    let mut random = fastrand::Rng::new();
    let start = Instant::now();
    for _ in 0..FILE / block.len() {
        random.fill(&mut block);
        file.write_all(&block)?;
        if start.elapsed() > limit {
            break;
        }
    }
    file.as_file().sync_all()?;
    self::file(file.path(), limit)
}

/// Opens a file so that reads come from the disk: directly, or else after what the system keeps of it was dropped.
#[cfg(target_os = "linux")]
fn open_past_cache(path: &Path) -> io::Result<File> {
    use rustix::fs::{Advice, Mode, OFlags, fadvise, open};

    let direct = open(path, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty());
    if let Ok(file) = direct {
        return Ok(File::from(file));
    }
    // Not every file system reads directly.
    let file = File::open(path)?;
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn open_past_cache(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn rate(bytes: u64, time: Duration) -> Option<f64> {
    let seconds = time.as_secs_f64();
    (seconds > 0.0 && bytes > 0).then(|| bytes as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn memory_and_disks_have_a_speed_and_measuring_ends() {
        let start = Instant::now();
        let rate = memory(2, 256 << 20, SHORT).unwrap();
        assert!(rate > 10e6, "{rate}");
        assert_eq!(memory(2, 1 << 20, SHORT), None);
        let folder = tempfile::tempdir().unwrap();
        let rate = disk(folder.path(), SHORT).unwrap().unwrap();
        assert!(rate > 1e6, "{rate}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays");
        assert!(disk(&folder.path().join("nowhere"), SHORT).is_err());
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn tiny_files_say_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(super::file(file.path(), SHORT).unwrap(), None);
    }
}
