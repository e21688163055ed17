//! Errors as OpenAI's clients expect them: status, type, code, and a message that says what to do.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

use crate::chat::TemplateError;
use crate::engine::EngineError;

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    status: StatusCode,
    /// `error.type`.
    kind: &'static str,
    /// `error.code`.
    code: Option<&'static str>,
    /// The field of the request that is at fault.
    param: Option<String>,
    message: String,
    /// Seconds.
    retry_after: Option<u64>,
    /// Further facts, such as the size of the context.
    details: Option<Box<serde_json::Map<String, serde_json::Value>>>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: None,
            param: None,
            message: message.into(),
            retry_after: None,
            details: None,
        }
    }

    /// 400: a field cannot be used.
    pub(super) fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        error.param = Some(field.into());
        error
    }

    /// 400: a field asks for something that hearth does not do.
    pub(super) fn unsupported(field: &str, what: &str) -> Self {
        Self::field(field, format!("`{field}`: {what} is not supported yet"))
    }

    /// The same error, about another field: endpoints name the prompt differently.
    #[must_use]
    pub(super) fn about(mut self, field: &str) -> Self {
        if self.code == Some("context_length_exceeded") {
            self.param = Some(field.into());
        }
        self
    }

    /// 408: the body does not arrive.
    pub(super) fn slow_body(seconds: u64) -> Self {
        let message = format!("no part of the body arrived for {seconds} s");
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message)
    }

    /// 400: the body as a whole cannot be read.
    pub(super) fn bad_body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 413.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the body is larger than the limit of {limit} bytes ([server] body_limit)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// 404 for a model.
    pub(super) fn no_model(name: &str, known: &[&str]) -> Self {
        let message = format!("there is no model `{name}` here; there are: {}", known.join(", "));
        let mut error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        error.code = Some("model_not_found");
        error.param = Some("model".into());
        error
    }

    /// 404 for a path.
    pub(super) fn no_route(method: &str, path: &str) -> Self {
        let message = format!("there is nothing at {method} {path}; the API is at /v1, see /v1/models");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// 405.
    pub(super) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("{path} does not answer to {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    /// 500.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    pub(super) fn body(&self) -> serde_json::Value {
        let mut error = json!({
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        });
        if let (Some(error), Some(details)) = (error.as_object_mut(), &self.details) {
            error.extend((**details).clone());
        }
        json!({ "error": error })
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Loading { .. } => {
                let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message);
                error.retry_after = Some(2);
                error
            }
            EngineError::Unavailable { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message),
            EngineError::QueueFull { retry_after, .. } => {
                let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
                error.code = Some("queue_full");
                // Rounded up: a client that comes too early is refused again.
                error.retry_after = Some(retry_after.as_millis().div_ceil(1000).clamp(1, 3600) as u64);
                error
            }
            EngineError::ContextExceeded {
                prompt_tokens, context, ..
            } => {
                let mut error = Self::field("messages", format!("{message}; shorten it, or raise `context`"));
                error.code = Some("context_length_exceeded");
                let mut details = serde_json::Map::new();
                details.insert("n_prompt_tokens".into(), prompt_tokens.into());
                details.insert("n_ctx".into(), context.into());
                error.details = Some(Box::new(details));
                error
            }
            EngineError::InvalidRequest { field, message } => Self::field(field, message),
            EngineError::Compute { .. } => Self::internal(message),
            EngineError::ShuttingDown => {
                let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message);
                error.retry_after = Some(10);
                error
            }
        }
    }
}

impl From<TemplateError> for ApiError {
    fn from(error: TemplateError) -> Self {
        let message = error.to_string();
        match error {
            TemplateError::Refused(_) => Self::field("messages", message),
            TemplateError::Broken(_) => Self::internal(message),
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status).json(self.body());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
