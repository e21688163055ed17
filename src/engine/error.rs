//! Why an engine does not answer. The HTTP layer maps each case to a status in one exhaustive match.

use std::time::Duration;

use crate::sampling::OutOfRange;

/// An error of an engine, complete enough for the client to act upon it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The weights are still being read.
    #[error("model `{model}` is still loading ({:.0} %)", progress * 100.0)]
    Loading { model: String, progress: f32 },
    /// The model could not be loaded, or its engine died.
    #[error("model `{model}` is not available: {reason}")]
    Unavailable { model: String, reason: String },
    /// The bounded queue is full.
    #[error("the queue of model `{model}` is full ({limit} requests are waiting)")]
    QueueFull {
        model: String,
        limit: usize,
        /// When a place is likely to be free.
        retry_after: Duration,
    },
    /// The prompt leaves no token of the context for an answer.
    #[error("the prompt has {prompt_tokens} tokens, but model `{model}` is running with a context of {context} tokens")]
    ContextExceeded {
        model: String,
        prompt_tokens: usize,
        context: u32,
    },
    /// The prompt is so long that it was not even counted.
    #[error(
        "the prompt has {bytes} bytes, at least {least_tokens} tokens, but model `{model}` is running with a context of \
         {context} tokens"
    )]
    PromptTooLong {
        model: String,
        bytes: usize,
        least_tokens: usize,
        context: u32,
    },
    /// A field of the request cannot be used.
    #[error("{message}")]
    InvalidRequest {
        /// The request's field, in the words of the API.
        field: &'static str,
        message: String,
    },
    /// What is asked for is not done here.
    #[error("{message}")]
    NotSupported { message: String },
    /// llama.cpp failed to compute a batch; the other requests go on.
    #[error("model `{model}` failed while computing: {reason}")]
    Compute { model: String, reason: String },
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl EngineError {
    /// The same, in an API that calls the prompt something else.
    #[must_use]
    pub fn about(self, name: &'static str) -> Self {
        match self {
            Self::InvalidRequest {
                field: "prompt",
                message,
            } => Self::InvalidRequest { field: name, message },
            other => other,
        }
    }
}

impl From<OutOfRange> for EngineError {
    fn from(OutOfRange { field, message }: OutOfRange) -> Self {
        Self::InvalidRequest { field, message }
    }
}
