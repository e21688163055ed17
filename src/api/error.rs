//! Errors as OpenAI's clients expect them: status, type, code, and a message that says what to do.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::EngineError;
use crate::generation::{GenerationError, TemplateError};
use crate::models::UnknownModel;

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
    retry_after: Option<u32>,
    context: Option<ContextExceeded>,
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
            context: None,
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

    /// 403: the request comes from a web page of somebody else.
    pub(super) fn foreign_origin(origin: &str) -> Self {
        let message = format!(
            "pages of `{}` may not use this server; `cors` in [server] names those that may",
            excerpt(origin)
        );
        let mut error = Self::new(StatusCode::FORBIDDEN, "permission_error", message);
        error.code = Some("origin_not_allowed");
        error
    }

    /// 403: the request is for a name that is not known to be this server's.
    pub(super) fn foreign_host(host: &str) -> Self {
        let message = format!(
            "this server does not answer to the name `{}`, by which a web page could reach it in secret; \
             if the name is right, add it to `allowed_hosts` in [server]",
            excerpt(host)
        );
        let mut error = Self::new(StatusCode::FORBIDDEN, "permission_error", message);
        error.code = Some("host_not_allowed");
        error
    }

    /// 408: the body does not arrive.
    pub(super) fn slow_body(received: usize, seconds: u64) -> Self {
        let message = format!("the body arrives too slowly: {received} bytes in {seconds} s");
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
    pub(super) fn no_model(unknown: &UnknownModel) -> Self {
        let message = format!(
            "there is no model `{}` here; there are: {}",
            excerpt(&unknown.name),
            unknown.known.join(", ")
        );
        let mut error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        error.code = Some("model_not_found");
        error.param = Some("model".into());
        error
    }

    /// 404 for a response.
    pub(super) fn no_response(id: &str) -> Self {
        let message = format!(
            "there is no response `{}`; the latest ones are kept, in memory",
            excerpt(id)
        );
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// 400: the response that a request continues is not there.
    pub(super) fn no_previous_response(id: &str) -> Self {
        let message = format!(
            "there is no response `{}` to continue; the latest ones are kept, in memory, unless `store` is false",
            excerpt(id)
        );
        let mut error = Self::field("previous_response_id", message);
        error.code = Some("previous_response_not_found");
        error
    }

    /// 404 for a path.
    pub(super) fn no_route(method: &str, path: &str) -> Self {
        let message = format!("there is nothing at {method} {path}; the API is at /v1, see /v1/models");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// 409: the socket is busy with another answer.
    pub(super) fn busy() -> Self {
        let message =
            "an answer is still being generated; `{\"type\": \"cancel\"}` ends it, another socket gives another";
        let mut error = Self::new(StatusCode::CONFLICT, "invalid_request_error", message);
        error.code = Some("busy");
        error
    }

    /// 426.
    pub(super) fn no_socket(why: &str) -> Self {
        let message = format!("this path is that of a WebSocket, but the request is none: {why}");
        Self::new(StatusCode::UPGRADE_REQUIRED, "invalid_request_error", message)
    }

    /// 405.
    pub(super) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("{path} does not answer to {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    /// 501: hearth, or the model, does not do it at all.
    pub(super) fn not_supported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_supported_error", message)
    }

    /// 503: all slots of a model are busy.
    pub(super) fn no_slot() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable_error",
            "no slot is available",
        )
    }

    /// 500.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// `error.type`.
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The field of the request that is at fault.
    pub(super) fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// Seconds.
    pub(super) fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// The sizes of a prompt that is too long.
    pub(super) fn context(&self) -> Option<ContextExceeded> {
        self.context
    }

    /// Whether the connection ends: what is left of the body is not wanted.
    pub(super) fn closes(&self) -> bool {
        matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE)
    }

    pub(super) fn body(&self) -> ErrorBody<'_> {
        ErrorBody {
            error: ErrorDetail {
                message: &self.message,
                kind: self.kind,
                param: self.param.as_deref(),
                code: self.code,
                n_prompt_tokens: self.context.map(|exceeded| exceeded.prompt_tokens),
                n_ctx: self.context.map(|exceeded| exceeded.context),
            },
        }
    }
}

/// An error as OpenAI's SDKs read it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody<'e> {
    error: ErrorDetail<'e>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail<'e> {
    message: &'e str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field of the request that is at fault.
    param: Option<&'e str>,
    code: Option<&'static str>,
    /// With `context_length_exceeded`. For a text that was refused by its length, without counting: the least it can have.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_prompt_tokens: Option<usize>,
    /// With `context_length_exceeded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_ctx: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct ContextExceeded {
    pub(super) prompt_tokens: usize,
    pub(super) context: u32,
}

/// What a client sent, short enough for a message.
fn excerpt(text: &str) -> String {
    text.chars().take(128).collect()
}

impl From<UnknownModel> for ApiError {
    fn from(unknown: UnknownModel) -> Self {
        Self::no_model(&unknown)
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
                error.retry_after = Some(retry_after.as_millis().div_ceil(1000).clamp(1, 3600) as u32);
                error
            }
            EngineError::ContextExceeded {
                prompt_tokens, context, ..
            }
            | EngineError::PromptTooLong {
                least_tokens: prompt_tokens,
                context,
                ..
            } => {
                // By these words, which are llama-server's, clients such as litellm tell this error from others.
                let message =
                    format!("{message}: it exceeds the available context size; shorten it, or raise `context`");
                let mut error = Self::field("messages", message);
                error.code = Some("context_length_exceeded");
                error.context = Some(ContextExceeded { prompt_tokens, context });
                error
            }
            EngineError::InvalidRequest { field, message } => Self::field(field, message),
            EngineError::NotSupported { message } => Self::not_supported(message),
            EngineError::Compute { .. } => Self::internal(message),
            EngineError::ShuttingDown => {
                let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message);
                error.retry_after = Some(10);
                error
            }
        }
    }
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        match error {
            GenerationError::Engine(error) => error.into(),
            GenerationError::Template(error) => error.into(),
            GenerationError::InvalidRequest { field, message } => Self::field(field, message),
            GenerationError::Unfinished | GenerationError::Internal(_) => Self::internal(error.to_string()),
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
        let mut response = HttpResponse::build(self.status);
        if self.closes() {
            response.force_close();
        }
        let mut response = response.json(self.body());
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
