//! Errors in llama-server's form: `code` is the status, and types have its names.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::engine::EngineError;
use crate::generation::GenerationError;

/// An error on its way to a client of llama-server.
#[derive(Debug)]
pub(in crate::api) struct LlamaError(ApiError);

/// An error in llama-server's form.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LlamaErrorBody<'e> {
    error: LlamaErrorDetail<'e>,
}

#[derive(Debug, Serialize, ToSchema)]
struct LlamaErrorDetail<'e> {
    /// The status.
    code: u16,
    message: &'e str,
    #[serde(rename = "type")]
    kind: &'static str,
    /// The field of the request that is at fault; llama-server names it only in the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'e str>,
    /// With `exceed_context_size_error`. For a text that was refused by its length, without counting: the least it can have.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_prompt_tokens: Option<usize>,
    /// With `exceed_context_size_error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_ctx: Option<u32>,
}

impl LlamaError {
    /// 501: hearth, or this model, does not do it.
    pub(super) fn not_supported(message: impl Into<String>) -> Self {
        Self(ApiError::not_supported(message))
    }

    pub(super) fn body(&self) -> LlamaErrorBody<'_> {
        let status = self.0.status_code();
        let context = self.0.context();
        LlamaErrorBody {
            error: LlamaErrorDetail {
                code: status.as_u16(),
                message: self.0.message(),
                kind: match status {
                    _ if context.is_some() => "exceed_context_size_error",
                    StatusCode::NOT_FOUND => "not_found_error",
                    _ => self.0.kind(),
                },
                param: self.0.param(),
                n_prompt_tokens: context.map(|exceeded| exceeded.prompt_tokens),
                n_ctx: context.map(|exceeded| exceeded.context),
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
        if self.status_code() == StatusCode::UNAUTHORIZED {
            let how = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, how);
        }
        if self.0.closes() {
            response
                .head_mut()
                .set_connection_type(actix_web::http::ConnectionType::Close);
        }
        response
    }
}
