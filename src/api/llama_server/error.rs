//! Errors in llama-server's form: `code` is the status, and types have its names.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;

use crate::api::error::{ApiError, ContextExceeded};
use crate::engine::EngineError;
use crate::generation::GenerationError;

/// An error on its way to a client of llama-server.
#[derive(Debug)]
pub(super) struct LlamaError(ApiError);

#[derive(Debug, Serialize)]
pub(super) struct ErrorBody<'e> {
    error: ErrorDetail<'e>,
}

#[derive(Debug, Serialize)]
struct ErrorDetail<'e> {
    /// The status.
    code: u16,
    message: &'e str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field of the request that is at fault; llama-server names it only in the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'e str>,
    #[serde(flatten)]
    context: Option<ContextExceeded>,
}

impl LlamaError {
    /// 501: hearth, or this model, does not do it.
    pub(super) fn not_supported(message: impl Into<String>) -> Self {
        Self(ApiError::not_supported(message))
    }

    pub(super) fn body(&self) -> ErrorBody<'_> {
        let status = self.0.status_code();
        let context = self.0.context();
        ErrorBody {
            error: ErrorDetail {
                code: status.as_u16(),
                message: self.0.message(),
                kind: match status {
                    _ if context.is_some() => "exceed_context_size_error",
                    StatusCode::NOT_FOUND => "not_found_error",
                    _ => self.0.kind(),
                },
                param: self.0.param(),
                context,
            },
        }
    }
}

impl From<ApiError> for LlamaError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<EngineError> for LlamaError {
    fn from(error: EngineError) -> Self {
        Self(error.into())
    }
}

impl From<GenerationError> for LlamaError {
    fn from(error: GenerationError) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for LlamaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for LlamaError {
    fn status_code(&self) -> StatusCode {
        self.0.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code()).json(self.body());
        if let Some(seconds) = self.0.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.closes() {
            response
                .head_mut()
                .set_connection_type(actix_web::http::ConnectionType::Close);
        }
        response
    }
}
