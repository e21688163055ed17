//! What can be wrong with a GGUF file.

use std::fmt::Write;
use std::path::PathBuf;

use super::Gguf;

/// Why a file was not accepted: what is wrong, in which field, at which byte.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be opened or mapped.
    #[error("cannot read {}: {reason}", path.display())]
    Io {
        path: PathBuf,
        /// Part of the message, and therefore not a `source`, which would be told again.
        reason: std::io::Error,
    },
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
    pub(super) fn new(field: impl AsRef<str>, offset: usize, problem: impl AsRef<str>) -> Self {
        Self {
            field: printable(field.as_ref()),
            offset: offset as u64,
            problem: printable(problem.as_ref()),
        }
    }
}

/// The error of a key that makes no sense.
pub(super) fn model(gguf: &Gguf, key: &str, problem: &str) -> GgufError {
    GgufError::Model {
        path: gguf.path().to_owned(),
        key: printable(key),
        problem: printable(problem),
    }
}

/// Text of a file for a terminal, in one line: characters that would steer the terminal are escaped, and what is longer
/// than any honest name is cut.
#[must_use]
pub fn printable(text: &str) -> String {
    const MAX_LENGTH: usize = 240;
    let mut out = String::with_capacity(text.len().min(MAX_LENGTH));
    for (index, character) in text.chars().enumerate() {
        if index == MAX_LENGTH {
            out.push_str("...");
            break;
        }
        // Marks of writing direction are no control characters, but can make a line read as another one.
        if character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}
