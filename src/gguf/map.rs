//! The memory map of a file.

use std::fs::File;

use memmap2::Mmap;

/// Maps a file for reading.
#[expect(unsafe_code, reason = "a memory map is unsafe by nature")]
pub(super) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private and read-only. Another process that truncates the file while it is mapped makes reads
    // fault; model files are not written while they are served, and llama.cpp maps them under the same assumption.
    unsafe { Mmap::map(file) }
}
