//! Files that are replaced as a whole, so that at any moment either the old one or the new one is there.
//!
//! A file is written under a temporary name in its folder and then moved into place. A process that is killed meanwhile leaves
//! its temporary file behind. Writers hold a lock, which the system releases when its owner dies, however it does: who has
//! the lock may remove all temporary files, since nobody alive is writing one.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// A temporary file for something large, in a folder where nothing else of hearth shall stay: its own lock says that somebody
/// writes it, and is released when its writer dies.
///
/// # Errors
/// When it cannot be created.
pub fn claimed(folder: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    // Temporary files are for their owner alone, but whoever serves a model may be somebody else; the umask decides.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder.prefix(prefix).tempfile_in(folder)?;
    match file.as_file().try_lock() {
        // Some network file systems have no locks: there nobody can tell, and nothing is removed.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other("another process has just opened the new file")),
    }
}

/// Removes temporary files that killed processes have left, those of [`claimed`] with the same prefix. What cannot be removed
/// stays: it is in nobody's way.
pub fn remove_abandoned(folder: &Path, prefix: &str) {
    /// One that is so young may not be locked yet.
    const AGE: Duration = Duration::from_secs(10);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
        let age = entry
            .metadata()
            .and_then(|about| about.modified())
            .map(|time| time.elapsed());
        if age.is_ok_and(|age| age.is_ok_and(|age| age > AGE))
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
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
    fn only_what_nobody_writes_is_abandoned() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        let old = |name: &str| {
            let file = File::create(folder.join(name)).unwrap();
            file.set_modified(long_ago).unwrap();
        };
        old(".part-dead");
        old("part-other");
        fs::write(folder.join(".part-young"), b"").unwrap();
        let living = claimed(folder, PREFIX).unwrap();
        living.as_file().set_modified(long_ago).unwrap();
        remove_abandoned(folder, PREFIX);
        let there = |name: &str| folder.join(name).exists();
        assert!(!there(".part-dead") && there("part-other") && there(".part-young") && living.path().exists());
        remove_abandoned(Path::new("/no/such/folder"), PREFIX);
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
