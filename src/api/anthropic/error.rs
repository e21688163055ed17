//! Errors in Anthropic's envelope.

use actix_web::ResponseError;
use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName};
use actix_web::middleware::Next;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::{ApiError, ContextExceeded};

/// Where Anthropic's SDKs look for the request id.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Where every response has it.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MESSAGES: &str = "/v1/messages";

/// An error as Anthropic's SDKs read it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicError)]
pub(super) struct ErrorBody {
    /// `error`.
    #[serde(rename = "type")]
    kind: &'static str,
    error: ErrorDetail,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicErrorDetail)]
struct ErrorDetail {
    #[serde(rename = "type")]
    kind: &'static str,
    message: String,
}

impl ErrorBody {
    pub(super) fn new(error: &ApiError, request_id: Option<String>) -> Self {
        let message = match error.context() {
            // Programs look for these words to make a conversation shorter.
            Some(ContextExceeded { prompt_tokens, context }) => {
                format!("prompt is too long: {prompt_tokens} tokens > {context} maximum")
            }
            None => error.to_string(),
        };
        Self {
            kind: "error",
            error: ErrorDetail {
                kind: kind(error.status_code()),
                message,
            },
            request_id,
        }
    }
}

fn kind(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::REQUEST_TIMEOUT => "timeout_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

/// Whether a path is one of Anthropic's API.
fn is_ours(path: &str) -> bool {
    let rest = path.strip_prefix(MESSAGES);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Puts errors of Anthropic's paths into its envelope, also those that come from outside of the handlers, and gives the
/// request id the name that its SDKs look for.
pub(in crate::api) async fn reword(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if !is_ours(request.path()) {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let mut response = match next.call(request).await {
        Ok(response) => response,
        Err(error) => {
            // A panic: the response is ready but for its body.
            let response = error.error_response();
            let body = envelope(&ApiError::internal(error.to_string()), response.headers());
            return Err(InternalError::from_response(error, response.set_body(BoxBody::new(body))).into());
        }
    };
    if let Some(id) = response.headers().get(&X_REQUEST_ID).cloned() {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let error = response.response().error();
    let Some(error) = error.and_then(|error| error.as_error::<ApiError>()) else {
        return Ok(response.map_into_left_body());
    };
    let body = envelope(error, response.headers());
    Ok(response.map_body(|_, _| EitherBody::right(BoxBody::new(body))))
}

/// The body of an error in a response with these headers.
fn envelope(error: &ApiError, headers: &HeaderMap) -> Vec<u8> {
    let id = headers.get(&X_REQUEST_ID).and_then(|id| id.to_str().ok());
    // Writing JSON values to memory cannot fail.
    serde_json::to_vec(&ErrorBody::new(error, id.map(str::to_owned))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_anthropics_paths_are_its() {
        for path in ["/v1/messages", "/v1/messages/count_tokens", "/v1/messages/x"] {
            assert!(is_ours(path), "{path}");
        }
        for path in ["/v1/messagesx", "/v1/models", "/"] {
            assert!(!is_ours(path), "{path}");
        }
    }

    #[test]
    fn statuses_have_types() {
        for (status, expect) in [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (405, "invalid_request_error"),
            (413, "request_too_large"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (503, "overloaded_error"),
        ] {
            assert_eq!(kind(StatusCode::from_u16(status).unwrap()), expect);
        }
    }
}
