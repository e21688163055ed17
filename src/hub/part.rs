//! A file that is being fetched: `.NAME.part` beside its place, and `.NAME.part.json` with what its bytes are of.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::PullError;
use crate::files;

/// What the bytes are of: an attempt goes on with them only if it fetches the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// Address, and checksum if it is known: neither may change.
    pub(super) of: String,
    /// The server's name for this version of the file (`ETag`), for `If-Range`.
    pub(super) etag: Option<String>,
}

/// An unfinished file, locked: nobody else writes it.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    notes: PathBuf,
    origin: Origin,
    hash: Sha256,
    length: u64,
}

impl Part {
    /// Opens the unfinished file for `to`. What is there of an earlier attempt at the same `of` is kept; `progress` is called
    /// with the bytes of it that were read again.
    pub(super) fn open(to: &Path, of: String, progress: &mut dyn FnMut(u64)) -> Result<Self, PullError> {
        let beside = |ending: &str| {
            let name = to.file_name().unwrap_or_default().to_string_lossy();
            to.with_file_name(format!(".{name}{ending}"))
        };
        let (path, notes) = (beside(".part"), beside(".part.json"));
        let failed = |error: io::Error| PullError::file(&path, "write", &error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(PullError::new(format!(
                    "another hearth fetches {} at the moment",
                    to.display()
                )));
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        if !is_at(&file, &path) {
            return Err(PullError::new(format!(
                "another hearth has just fetched {}",
                to.display()
            )));
        }
        let known = fs::read(&notes)
            .ok()
            .and_then(|text| serde_json::from_slice::<Origin>(&text).ok());
        let mut part = Self {
            file,
            path,
            notes,
            origin: Origin { of, etag: None },
            hash: Sha256::new(),
            length: 0,
        };
        match known {
            Some(known) if known.of == part.origin.of => {
                part.origin.etag = known.etag;
                part.read_again(progress)
                    .map_err(|error| PullError::file(&part.path, "read", &error))?;
            }
            _ => part.restart(None)?,
        }
        Ok(part)
    }

    fn read_again(&mut self, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        self.file.seek(SeekFrom::Start(0))?;
        loop {
            let count = self.file.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.hash.update(&buffer[..count]);
            self.length += count as u64;
            progress(self.length);
        }
    }

    /// Bytes that are there.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The server's name for the version that the bytes are of. A weak one says nothing about bytes.
    pub(super) fn strong_etag(&self) -> Option<&str> {
        self.origin.etag.as_deref().filter(|etag| !etag.starts_with("W/"))
    }

    /// Throws away what is there; what comes is of the version with this name.
    pub(super) fn restart(&mut self, etag: Option<String>) -> Result<(), PullError> {
        self.origin.etag = etag;
        let notes = serde_json::to_vec(&self.origin).unwrap_or_default();
        let empty = |file: &mut File| {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))
        };
        empty(&mut self.file).map_err(|error| PullError::file(&self.path, "write", &error))?;
        fs::write(&self.notes, notes).map_err(|error| PullError::file(&self.notes, "write", &error))?;
        self.hash = Sha256::new();
        self.length = 0;
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| PullError::file(&self.path, "write", &error))?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// SHA-256 of what is there, in hexadecimal digits.
    pub(super) fn sha256(&self) -> String {
        let sum = self.hash.clone().finalize();
        sum.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Gives the file its name, durably.
    pub(super) fn finish(self, to: &Path) -> Result<(), PullError> {
        let finish = || {
            self.file.sync_all()?;
            files::rename(&self.path, to)
        };
        finish().map_err(|error| PullError::file(to, "write", &error))?;
        // Only a leftover would stay.
        let _ = fs::remove_file(&self.notes);
        Ok(())
    }

    /// Removes what is there.
    pub(super) fn discard(self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.notes);
    }
}

/// What failed before the first byte leaves nothing.
impl Drop for Part {
    fn drop(&mut self) {
        if self.length == 0 && is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_file(&self.notes);
        }
    }
}

/// Whether an open file is still the one with this name: who had the lock before may have moved it into place.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let (Ok(ours), Ok(named)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (named.dev(), named.ino())
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_kept_for_the_same_and_not_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("model.gguf");
        let open = |of: &str| Part::open(&to, of.to_owned(), &mut |_| ());
        let mut part = open("a").unwrap();
        part.restart(Some("v1".into())).unwrap();
        part.write(b"abc").unwrap();
        assert!(open("a").unwrap_err().what.contains("another hearth"));
        drop(part);
        let part = open("a").unwrap();
        assert_eq!((part.length(), part.strong_etag()), (3, Some("v1")));
        assert!(part.sha256().starts_with("ba7816bf"));
        drop(part);
        let mut part = open("b").unwrap();
        assert_eq!((part.length(), part.strong_etag()), (0, None));
        part.write(b"x").unwrap();
        part.finish(&to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"x");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
