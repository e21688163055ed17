//! The built-in pair: two tiny models that ship inside the binary.
//!
//! They are unpacked once into the cache directory, so that llama.cpp can map them like any other file.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::files::Staging;
use crate::folders;

/// Why a built-in model is no file.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("this hearth was built without the built-in models (feature `demo`)")]
    NotBuiltIn,
    #[error("cannot unpack the built-in model into {}; HEARTH_CACHE names another folder", folder.display())]
    Write { folder: PathBuf, source: io::Error },
}

/// A built-in model, written `demo:reasoner` or `demo:narrator` in `models.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DemoModel {
    /// Architecture `qwen3next`: reasons and calls tools.
    Reasoner,
    /// Architecture `llama` in Mistral-Nemo's shape: narrates.
    Narrator,
}

impl DemoModel {
    /// Both models.
    pub const ALL: [Self; 2] = [Self::Reasoner, Self::Narrator];

    /// The name after `demo:`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reasoner => "reasoner",
            Self::Narrator => "narrator",
        }
    }

    /// The GGUF file; `None` when hearth was built without the feature `demo`.
    fn bytes(self) -> Option<&'static [u8]> {
        #[cfg(feature = "demo")]
        return Some(match self {
            Self::Reasoner => include_bytes!("../../assets/demo/reasoner.gguf"),
            Self::Narrator => include_bytes!("../../assets/demo/narrator.gguf"),
        });
        #[cfg(not(feature = "demo"))]
        None
    }

    /// Whether the models are part of this binary.
    #[must_use]
    pub fn embedded() -> bool {
        cfg!(feature = "demo")
    }

    /// The model as a file in the cache directory, unpacked there if it is not yet or was damaged.
    ///
    /// Several processes may do so at once: each writes a file of its own and moves it into place.
    ///
    /// # Errors
    /// When the binary does not hold the models, or the cache directory cannot be written.
    pub fn unpack(self) -> Result<PathBuf, UnpackError> {
        let bytes = self.bytes().ok_or(UnpackError::NotBuiltIn)?;
        let folder = folders::cache();
        unpack_into(&folder, self.name(), bytes).map_err(|source| UnpackError::Write { folder, source })
    }
}

/// Before the names of files that are being written.
const UNFINISHED: &str = ".demo-unpacking-";

/// Writes `bytes` to a file that is named after their checksum; an intact one is left alone. What killed processes left
/// half written is removed.
fn unpack_into(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let checksum = Sha256::digest(bytes);
    let short: String = checksum.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("demo-{name}-{short}.gguf");
    let path = folder.join(&name);
    let intact = || file_is(&path, bytes.len(), checksum.as_slice());
    let staging = Staging::new(folder, UNFINISHED);
    if intact()? && staging.unfinished()?.is_empty() {
        return Ok(path);
    }
    let locked = staging.lock()?;
    // Another process may have been faster.
    if !intact()? {
        locked.replace(Path::new(&name), bytes)?;
    }
    Ok(path)
}

fn file_is(path: &Path, length: usize, checksum: &[u8]) -> io::Result<bool> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != length as u64 {
        return Ok(false);
    }
    let mut content = Vec::with_capacity(length);
    file.read_to_end(&mut content)?;
    Ok(Sha256::digest(&content).as_slice() == checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = unpack_into(folder.path(), "m", b"weights").unwrap();
        fs::write(&path, b"weighty").unwrap();
        assert_eq!(unpack_into(folder.path(), "m", b"weights").unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), b"weights");
    }

    #[test]
    fn what_a_killed_process_left_is_removed_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(format!("{UNFINISHED}abc"));
        let path = unpack_into(folder.path(), "m", b"weights").unwrap();
        // Also where the model itself is intact.
        fs::write(&left, b"wei").unwrap();
        assert_eq!(unpack_into(folder.path(), "m", b"weights").unwrap(), path);
        assert!(!left.exists());
    }

    #[test]
    fn many_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| unpack_into(folder.path(), "m", &[7; 100_000]).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(paths.iter().all(|path| path == &paths[0]));
        assert_eq!(fs::read(&paths[0]).unwrap(), [7; 100_000]);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(unpack_into(&file, "m", b"weights").is_err());
    }
}
