//! Files that are replaced as a whole, so that at any moment either the old one or the new one is there.
//!
//! A file is written under a temporary name in its folder and then moved into place. A process that is killed meanwhile leaves
//! its temporary file behind. Writers hold a lock, which the system releases when its owner dies, however it does: who has
//! the lock may remove all temporary files, since nobody alive is writing one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// One kind of files in a folder.
#[derive(Debug)]
pub struct Staging<'f> {
    folder: &'f Path,
    /// Names of temporary files begin with it.
    prefix: &'static str,
}

/// The right to write files of this kind. Other processes and threads wait until it is dropped.
#[derive(Debug)]
pub struct Locked<'s> {
    staging: &'s Staging<'s>,
    _lock: File,
}

impl<'f> Staging<'f> {
    /// The files in `folder` that are written under names with this prefix first; other kinds have other prefixes.
    #[must_use]
    pub fn new(folder: &'f Path, prefix: &'static str) -> Self {
        // A relative path of one part has an empty parent.
        let here = folder == Path::new("");
        Self {
            folder: if here { Path::new(".") } else { folder },
            prefix,
        }
    }

    /// Files that are being written, or were when their writer died. None where there is no folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn unfinished(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(self.prefix) && name != *self.lock_name() {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// Removes what killed processes left behind.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn clean(&self) -> io::Result<()> {
        if !self.unfinished()?.is_empty() {
            self.lock()?;
        }
        Ok(())
    }

    /// Waits until nobody else writes, and removes what killed processes left behind. Creates the folder.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub fn lock(&self) -> io::Result<Locked<'_>> {
        fs::create_dir_all(self.folder)?;
        let lock = File::create(self.folder.join(self.lock_name()))?;
        match lock.lock() {
            Ok(()) => {
                for file in self.unfinished()? {
                    fs::remove_file(file)?;
                }
            }
            // Some network file systems have no locks. Writing is safe all the same, only cleaning up is not.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(error) => return Err(error),
        }
        Ok(Locked {
            staging: self,
            _lock: lock,
        })
    }

    /// The right to write files of this kind beside others who have it too: as long as the file is open nobody removes
    /// temporary files. Creates the folder.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn share(&self) -> io::Result<File> {
        fs::create_dir_all(self.folder)?;
        let lock = File::create(self.folder.join(self.lock_name()))?;
        match lock.lock_shared() {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(error),
            _ => Ok(lock),
        }
    }

    fn lock_name(&self) -> String {
        format!("{}lock", self.prefix)
    }
}

impl Locked<'_> {
    /// Puts a file with these bytes in the place of whatever has this name, durably.
    ///
    /// # Errors
    /// When it cannot be written; what was there is left as it was.
    pub fn replace(&self, name: &Path, bytes: &[u8]) -> io::Result<()> {
        let Staging { folder, prefix } = self.staging;
        let mut file = tempfile::Builder::new().prefix(prefix).tempfile_in(folder)?;
        file.write_all(bytes)?;
        publish(file, folder, name)
    }
}

/// Gives a temporary file of a folder its name there, durably, in the place of whatever has it.
///
/// # Errors
/// When it cannot be done; what was there is left as it was.
pub fn publish(file: NamedTempFile, folder: &Path, name: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(folder.join(name)).map_err(|error| error.error)?;
    sync(folder)
}

/// Moves a file that is on the disk to another name in its folder, durably, in the place of whatever has it.
///
/// # Errors
/// When it cannot be done; what was there is left as it was.
pub fn rename(file: &Path, to: &Path) -> io::Result<()> {
    fs::rename(file, to)?;
    let folder = to.parent().filter(|folder| *folder != Path::new(""));
    sync(folder.unwrap_or(Path::new(".")))
}

/// A new name survives a power cut only once its folder is on the disk too; folders cannot be opened on Windows.
fn sync(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = ".part-";

    fn read(folder: &Path) -> String {
        fs::read_to_string(folder.join("file")).unwrap()
    }

    #[test]
    fn a_file_is_replaced_and_nothing_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        let staging = Staging::new(&folder, PREFIX);
        staging.clean().unwrap();
        assert!(!folder.exists(), "cleaning creates nothing");
        for text in ["one", "two"] {
            staging
                .lock()
                .unwrap()
                .replace(Path::new("file"), text.as_bytes())
                .unwrap();
            assert_eq!(read(&folder), text);
        }
        assert!(staging.unfinished().unwrap().is_empty());
    }

    #[test]
    fn what_the_dead_left_is_removed_and_what_the_living_write_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let staging = Staging::new(folder.path(), PREFIX);
        let (left, other) = (folder.path().join(".part-abc"), folder.path().join(".other-abc"));
        for file in [&left, &other] {
            fs::write(file, b"o").unwrap();
        }
        staging.clean().unwrap();
        assert!(!left.exists() && other.exists());
        // Who lives holds the lock, and keeps what it writes.
        let locked = staging.lock().unwrap();
        fs::write(&left, b"o").unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Staging::new(folder.path(), PREFIX).clean().unwrap());
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(left.exists() && !waiting.is_finished());
            drop(locked);
        });
        assert!(!left.exists());
    }

    #[test]
    fn many_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let staging = Staging::new(folder.path(), PREFIX);
                    let text = "x".repeat(100_000);
                    staging
                        .lock()
                        .unwrap()
                        .replace(Path::new("file"), text.as_bytes())
                        .unwrap();
                });
            }
        });
        assert_eq!(read(folder.path()), "x".repeat(100_000));
    }
}
