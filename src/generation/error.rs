//! Why there is no answer.

use crate::engine::EngineError;

/// Why a chat template gave no prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template itself is broken.
    #[error("the model's chat template cannot be used: {0}")]
    Broken(String),
    /// The template refuses these messages, in its own words.
    #[error("the model's chat template refuses the messages: {0}")]
    Refused(String),
}

/// An error of a generation, complete enough for the client to act upon it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GenerationError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A field of the request cannot be used.
    #[error("{message}")]
    InvalidRequest {
        /// The request's field, in the words of the API.
        field: &'static str,
        message: String,
    },
    /// The answer has no end.
    #[error("the engine ended without an answer")]
    Unfinished,
    /// A fault of hearth itself.
    #[error("an error inside hearth: {0}")]
    Internal(String),
}
