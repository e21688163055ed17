//! Errors as OpenAI's clients expect them: status, type, code, and a message that says what to do.

use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::EngineError;
use crate::generation::{GenerationError, TemplateError};
use crate::models::{LifecycleError, UnknownModel};

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
    /// The connection ends.
    closes: bool,
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
            closes: matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE),
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

    fn unauthorized(message: &str) -> Self {
        let mut error = Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message);
        error.code = Some("invalid_api_key");
        error
    }

    /// 401: there is no key.
    pub(super) fn no_key() -> Self {
        Self::unauthorized(
            "this server needs an API key: send it as `Authorization: Bearer KEY`, or as `X-Api-Key: KEY`",
        )
    }

    /// 401: nobody has the key.
    pub(super) fn unknown_key() -> Self {
        Self::unauthorized("the API key is not one of this server's")
    }

    /// 403: the key is good, but not for this.
    pub(super) fn wrong_key(metrics: bool) -> Self {
        let message = if metrics {
            "/metrics needs `metrics_key` of [server], or a key for administration"
        } else {
            "this needs a key for administration: `admin_key` in [server], or one with `admin = true`"
        };
        let mut error = Self::new(StatusCode::FORBIDDEN, "permission_error", message);
        error.code = Some("key_not_allowed");
        error
    }

    /// 403: the key is not for this model.
    pub(super) fn not_for_key(model: &str, models: &[String]) -> Self {
        let message = format!(
            "this key is not for `{}`; it is for: {}",
            excerpt(model),
            models.join(", ")
        );
        let mut error = Self::new(StatusCode::FORBIDDEN, "permission_error", message);
        error.code = Some("model_not_allowed");
        error.param = Some("model".into());
        error
    }

    /// 429: the key has asked enough.
    pub(super) fn key_limit(code: &'static str, message: String, wait: Duration) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        error.code = Some(code);
        error.retry_after = Some(whole_seconds(wait));
        error
    }

    /// 429: all clients together want too much.
    pub(super) fn busy_server(message: &str) -> Self {
        let mut error = Self::key_limit("server_busy", message.to_owned(), Duration::from_secs(1));
        error.closes = true;
        error
    }

    /// 404: it is on another listener.
    pub(super) fn elsewhere(path: &str, admin: bool) -> Self {
        let message = if admin {
            format!("{path} is not on the listener for administration")
        } else {
            format!("{path} is only on the listener for administration (`admin_port` in [server])")
        };
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
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

    /// `error.code`.
    #[cfg(test)]
    pub(super) fn code(&self) -> Option<&'static str> {
        self.code
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
        self.closes
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

/// Rounded up: a client that comes too early is refused again.
fn whole_seconds(wait: Duration) -> u32 {
    wait.as_millis().div_ceil(1000).clamp(1, 3600) as u32
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

impl From<LifecycleError> for ApiError {
    fn from(error: LifecycleError) -> Self {
        match error {
            LifecycleError::Unknown(unknown) => unknown.into(),
            LifecycleError::ShuttingDown => EngineError::ShuttingDown.into(),
            LifecycleError::AlreadyLoaded
            | LifecycleError::NotLoaded
            | LifecycleError::Maintenance(_)
            | LifecycleError::NotHere(_) => Self::field("model", error.to_string()),
        }
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
            EngineError::Maintenance { .. } => {
                let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message);
                error.retry_after = Some(30);
                error
            }
            EngineError::NotLoaded { .. } | EngineError::Unavailable { .. } => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", message)
            }
            EngineError::QueueFull { retry_after, .. } => {
                let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
                error.code = Some("queue_full");
                error.retry_after = Some(whole_seconds(retry_after));
                error
            }
            EngineError::Overloaded { retry_after, .. } => {
                let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
                error.code = Some("upstream_overloaded");
                error.retry_after = Some(whole_seconds(retry_after));
                error
            }
            EngineError::Upstream { retry_after, .. } => {
                let (status, kind) = match retry_after {
                    Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable_error"),
                    None => (StatusCode::BAD_GATEWAY, "server_error"),
                };
                let mut error = Self::new(status, kind, message);
                error.code = Some("upstream_error");
                error.retry_after = retry_after.map(whole_seconds);
                error
            }
            EngineError::Timeout { .. } => {
                let mut error = Self::new(StatusCode::GATEWAY_TIMEOUT, "server_error", message);
                error.code = Some("upstream_timeout");
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
        if self.status == StatusCode::UNAUTHORIZED {
            let how = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, how);
        }
        response
    }
}
