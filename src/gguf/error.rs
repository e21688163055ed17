//! What can be wrong with a GGUF file.

use std::path::PathBuf;

/// Why a file was not accepted: what is wrong, in which field, at which byte.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be opened or mapped.
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A field of the file is damaged, or not supported.
    #[error("{}: {field} at byte {offset}: {problem}", path.display())]
    Damaged {
        path: PathBuf,
        field: String,
        /// Counted from the beginning of the file.
        offset: u64,
        problem: String,
    },
    /// The parts of a split model do not fit together.
    #[error("{}: {problem}", path.display())]
    Split { path: PathBuf, problem: String },
    /// The header is sound, but the model it describes is not.
    #[error("{}: {key}: {problem}", path.display())]
    Model {
        path: PathBuf,
        key: String,
        problem: String,
    },
}

/// [`GgufError::Damaged`] before the file's name is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} at byte {offset}: {problem}")]
pub struct Damage {
    pub field: String,
    pub offset: u64,
    pub problem: String,
}

impl Damage {
    pub(super) fn new(field: impl Into<String>, offset: usize, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            offset: offset as u64,
            problem: problem.into(),
        }
    }
}
