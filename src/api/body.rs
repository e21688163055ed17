//! Request bodies: bounded, and with errors that name the place.

use std::time::Duration;

use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{BytesMut, Payload, block};
use actix_web::{FromRequest, HttpRequest};
use futures_util::StreamExt;
use futures_util::future::{FutureExt, LocalBoxFuture};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;

/// The largest body of this server, as application data.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimit(pub(super) usize);

/// Bodies beyond this size are parsed and rendered away from the async workers, which serve other streams meanwhile.
pub(super) const LARGE: usize = 64 * 1024;
/// Longest silence of a client that is sending a body.
const SILENCE: Duration = Duration::from_secs(30);

/// A JSON object, whatever content type the client claims.
#[derive(Debug)]
pub(super) struct Body {
    value: Value,
    bytes: usize,
}

impl Body {
    /// Reads the fields of one type from the object; types that share a body take what is theirs.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let path = error.path().to_string();
            if path == "." {
                return ApiError::bad_body(error.into_inner().to_string());
            }
            ApiError::field(path.clone(), format!("`{path}`: {}", error.inner()))
        })
    }

    /// A field as it is; null if it is not there.
    pub(super) fn field(&self, name: &str) -> &Value {
        &self.value[name]
    }

    /// The model that the request names.
    pub(super) fn model(&self) -> Result<Option<&str>, ApiError> {
        match self.field("model") {
            Value::Null => Ok(None),
            Value::String(name) => Ok(Some(name)),
            _ => Err(ApiError::field("model", "`model` must be a string")),
        }
    }

    /// Whether work on this body belongs away from the async workers.
    pub(super) fn is_large(&self) -> bool {
        self.bytes > LARGE
    }
}

impl FromRequest for Body {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut actix_web::dev::Payload) -> Self::Future {
        let limit = request.app_data::<BodyLimit>().map_or(8 << 20, |limit| limit.0);
        let announced = request
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let payload = Payload::from_request(request, payload).into_inner();
        async move {
            if announced.is_some_and(|announced| announced > limit as u64) {
                return Err(ApiError::too_large(limit));
            }
            let mut payload = payload.map_err(|error| ApiError::bad_body(error.to_string()))?;
            let mut body = BytesMut::new();
            loop {
                let Ok(chunk) = tokio::time::timeout(SILENCE, payload.next()).await else {
                    return Err(ApiError::slow_body(SILENCE.as_secs()));
                };
                let Some(chunk) = chunk else { break };
                let chunk = chunk.map_err(|error| ApiError::bad_body(format!("the body broke off: {error}")))?;
                if body.len() + chunk.len() > limit {
                    return Err(ApiError::too_large(limit));
                }
                body.extend_from_slice(&chunk);
            }
            if body.len() <= LARGE {
                return parse(&body);
            }
            block(move || parse(&body))
                .await
                .map_err(|error| ApiError::internal(error.to_string()))?
        }
        .boxed_local()
    }
}

fn parse(body: &[u8]) -> Result<Body, ApiError> {
    if let Err(error) = std::str::from_utf8(body) {
        let message = format!("the body is not valid UTF-8 at byte {}", error.valid_up_to());
        return Err(ApiError::bad_body(message));
    }
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_body(format!("the body is not valid JSON: {error}")))?;
    if !value.is_object() {
        return Err(ApiError::bad_body("the body must be a JSON object"));
    }
    Ok(Body {
        value,
        bytes: body.len(),
    })
}
