//! Why an engine does not answer. The HTTP layer maps each case to a status in one exhaustive match.

use std::time::Duration;

use crate::sampling::OutOfRange;

/// An error of an engine, complete enough for the client to act upon it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The weights are still being read.
    #[error("model `{model}` is still loading ({:.0} %)", progress * 100.0)]
    Loading { model: String, progress: f32 },
    /// The model is not in memory, and the request does not have it loaded.
    #[error("model `{model}` is not loaded; `POST /models/load` loads it, if other models leave memory for it")]
    NotLoaded { model: String },
    /// Somebody works on the model.
    #[error("model `{model}` is in maintenance and takes no requests")]
    Maintenance { model: String },
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
    /// The server that computes the model takes no requests for now.
    #[error("model `{model}` is overloaded: {reason}")]
    Overloaded {
        model: String,
        reason: String,
        /// When it is likely to take some.
        retry_after: Duration,
    },
    /// The server that computes the model cannot be reached, fails, or sends what is no answer.
    #[error("the server of model `{model}` does not answer: {reason}")]
    Upstream {
        model: String,
        reason: String,
        /// When it may be asked again, if that is known.
        retry_after: Option<Duration>,
    },
    /// The server that computes the model takes too long.
    #[error("the server of model `{model}` takes too long: {reason}")]
    Timeout { model: String, reason: String },
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
    /// The kind of error, for labels of metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Loading { .. } => "loading",
            Self::NotLoaded { .. } => "not_loaded",
            Self::Maintenance { .. } => "maintenance",
            Self::Unavailable { .. } => "unavailable",
            Self::QueueFull { .. } => "queue_full",
            Self::ContextExceeded { .. } | Self::PromptTooLong { .. } => "context_exceeded",
            Self::InvalidRequest { .. } => "invalid_request",
            Self::NotSupported { .. } => "not_supported",
            Self::Overloaded { .. } => "upstream_overloaded",
            Self::Upstream { .. } => "upstream_error",
            Self::Timeout { .. } => "upstream_timeout",
            Self::Compute { .. } => "compute",
            Self::ShuttingDown => "shutting_down",
        }
    }

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
