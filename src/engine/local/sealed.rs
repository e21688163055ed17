//! Files of sequences: llama.cpp's own, with a seal behind it.
//!
//! llama.cpp ends the process over some of what it does not expect in such a file. The seal says that the file is whole, and
//! which model made it: fingerprint (32 bytes), SHA-256 of all before the sum (32), version (u32, little-endian), magic (8).
//! llama.cpp reads what comes before it, and passes over the rest (`llama_context::state_seq_load_file`).

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::files::{self, Staging};
use crate::fingerprint::Fingerprint;

const MAGIC: [u8; 8] = *b"HRTHSEQS";
const VERSION: u32 = 1;
const SUM: usize = 32;
const SEAL: usize = Fingerprint::BYTES + SUM + 4 + 8;
/// llama.cpp's magic, version and number of tokens.
const HEADER: usize = 12;

/// Before the names of files that are being written.
const UNFINISHED: &str = ".sequence-";

/// Where sequences of a model are kept.
#[derive(Debug, Clone)]
pub struct SavedSequences {
    pub folder: PathBuf,
    pub model: Fingerprint,
}

/// A file that llama.cpp writes, under a name that nobody asks for yet. Gone if it is not published.
#[derive(Debug)]
pub(super) struct Draft {
    file: NamedTempFile,
    folder: PathBuf,
    /// Others may write, but nobody clean up.
    _shared: File,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("was not written by this version of hearth, or not to its end")]
    Unsealed,
    #[error("is of another model, or of other settings")]
    Foreign,
    #[error("is damaged: its checksum is wrong")]
    Damaged,
    #[error("has {tokens} tokens, and the context is {context}")]
    TooLong { tokens: u32, context: u32 },
}

impl Draft {
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let shared = Staging::new(folder, UNFINISHED).share()?;
        let file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
        Ok(Self {
            file,
            folder: folder.to_owned(),
            _shared: shared,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Seals what was written and gives it its name, durably; returns its bytes.
    pub(super) fn publish(self, name: &str, model: &Fingerprint) -> io::Result<u64> {
        // llama.cpp opened the file by its name.
        let mut file = File::options().read(true).write(true).open(self.file.path())?;
        let mut hash = Sha256::new();
        let length = hash_all(&mut file, &mut hash)?;
        hash.update(model.as_bytes());
        file.write_all(model.as_bytes())?;
        file.write_all(&hash.finalize())?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.write_all(&MAGIC)?;
        drop(file);
        files::publish(self.file, &self.folder, Path::new(name))?;
        Ok(length + SEAL as u64)
    }
}

/// Removes what killed processes left behind.
pub(super) fn clean(folder: &Path) -> io::Result<()> {
    Staging::new(folder, UNFINISHED).clean()
}

/// Whether llama.cpp may read a file; its bytes.
pub(super) fn check(path: &Path, model: &Fingerprint, context: u32) -> Result<u64, SealError> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let Some(content) = length
        .checked_sub(SEAL as u64)
        .filter(|content| *content >= HEADER as u64)
    else {
        return Err(SealError::Unsealed);
    };
    let mut seal = [0; SEAL];
    file.seek(SeekFrom::Start(content))?;
    file.read_exact(&mut seal)?;
    let (of_model, rest) = seal.split_at(Fingerprint::BYTES);
    let (sum, end) = rest.split_at(SUM);
    if end != [&VERSION.to_le_bytes()[..], &MAGIC].concat() {
        return Err(SealError::Unsealed);
    }
    if of_model != model.as_bytes() {
        return Err(SealError::Foreign);
    }
    let mut header = [0; HEADER];
    file.rewind()?;
    file.read_exact(&mut header)?;
    let [.., a, b, c, d] = header;
    let tokens = u32::from_le_bytes([a, b, c, d]);
    if tokens > context {
        return Err(SealError::TooLong { tokens, context });
    }
    let mut hash = Sha256::new_with_prefix(header);
    hash_all(&mut file.take(content - HEADER as u64), &mut hash)?;
    hash.update(of_model);
    if hash.finalize()[..] != *sum {
        return Err(SealError::Damaged);
    }
    Ok(length)
}

/// Hashes what is left to read; returns its bytes.
fn hash_all(source: &mut impl Read, hash: &mut Sha256) -> io::Result<u64> {
    let mut part = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        match source.read(&mut part)? {
            0 => return Ok(length),
            read => {
                hash.update(&part[..read]);
                length += read as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn model() -> Fingerprint {
        Fingerprint::of([b"model".as_slice()])
    }

    /// A file as llama.cpp may have written it, with this number of tokens.
    fn publish(folder: &Path, name: &str, tokens: u32) -> PathBuf {
        let draft = Draft::new(folder).unwrap();
        let content = [&[7; 8][..], &tokens.to_le_bytes(), b"state"].concat();
        fs::write(draft.path(), content).unwrap();
        draft.publish(name, &model()).unwrap();
        folder.join(name)
    }

    #[test]
    fn what_was_published_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        let path = publish(&folder, "a", 5);
        let bytes = fs::metadata(&path).unwrap().len();
        assert_eq!(check(&path, &model(), 5).unwrap(), bytes);
        assert!(matches!(
            check(&path, &model(), 4),
            Err(SealError::TooLong { tokens: 5, context: 4 })
        ));
        let other = Fingerprint::of([b"other".as_slice()]);
        assert!(matches!(check(&path, &other, 5), Err(SealError::Foreign)));
        assert!(matches!(check(&folder.join("b"), &model(), 5), Err(SealError::Read(_))));
    }

    #[test]
    fn no_changed_or_cut_byte_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = publish(folder.path(), "a", 5);
        let sound = fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut changed = sound.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(check(&path, &model(), 5).is_err(), "byte {at}");
            fs::write(&path, &sound[..at]).unwrap();
            assert!(check(&path, &model(), 5).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn a_draft_that_is_not_published_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let draft = Draft::new(folder.path()).unwrap();
        let path = draft.path().to_owned();
        assert!(path.exists());
        drop(draft);
        assert!(!path.exists());
        // As a killed process leaves it.
        fs::write(&path, b"o").unwrap();
        clean(folder.path()).unwrap();
        assert!(!path.exists());
    }
}
