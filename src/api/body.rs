//! Request bodies: bounded, and with errors that name the place.

use std::fmt::Display;
use std::time::{Duration, Instant};

use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Bytes, BytesMut, Payload, block};
use actix_web::{FromRequest, HttpRequest};
use futures_util::future::{FutureExt, LocalBoxFuture};
use futures_util::stream::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ApiError;

/// The largest body of this server, as application data.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimit(pub(super) usize);

impl BodyLimit {
    /// The limit that the server of a request has.
    pub(super) fn of(request: &HttpRequest) -> usize {
        request.app_data::<Self>().map_or(8 << 20, |limit| limit.0)
    }
}

/// Bodies beyond this size are parsed and rendered away from the async workers, which serve other streams meanwhile.
pub(super) const LARGE: usize = 64 * 1024;

/// How fast a body must arrive: a client that keeps a connection busy with a byte now and then holds what others need.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Longest silence, and time for a small body.
    patience: Duration,
    /// Bytes per second beyond that: a slow line, not an attack.
    rate: u32,
}

const PACE: Pace = Pace {
    patience: Duration::from_secs(30),
    rate: 64 * 1024,
};

impl Pace {
    /// When so much must have been followed by more, from the start of the body.
    fn deadline(self, received: usize) -> Duration {
        let received = u32::try_from(received).unwrap_or(u32::MAX);
        self.patience + Duration::from_secs(1) * received / self.rate.max(1)
    }
}

/// A JSON object, whatever content type the client claims.
#[derive(Debug)]
pub(super) struct Body {
    value: Value,
    bytes: usize,
}

impl Body {
    /// Reads an object; a large one away from the async workers.
    pub(super) async fn parse(bytes: Bytes) -> Result<Self, ApiError> {
        if bytes.len() <= LARGE {
            return parse(&bytes);
        }
        block(move || parse(&bytes))
            .await
            .map_err(|error| ApiError::internal(error.to_string()))?
    }

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

    /// Sets a field.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.value[name] = value;
    }

    /// Takes a field away.
    pub(super) fn remove(&mut self, name: &str) {
        if let Some(fields) = self.value.as_object_mut() {
            fields.shift_remove(name);
        }
    }

    /// All fields with their values.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.value.as_object().into_iter().flatten()
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

#[cfg(test)]
impl Body {
    pub(super) fn of_value(value: Value) -> Self {
        Self { value, bytes: 0 }
    }
}

impl FromRequest for Body {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut actix_web::dev::Payload) -> Self::Future {
        let limit = BodyLimit::of(request);
        let announced = request
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let payload = Payload::from_request(request, payload).into_inner();
        async move {
            if announced.is_some_and(|announced| announced > limit as u64) {
                return Err(ApiError::too_large(limit));
            }
            let payload = payload.map_err(|error| ApiError::bad_body(error.to_string()))?;
            Self::parse(receive(payload, limit, PACE).await?.freeze()).await
        }
        .boxed_local()
    }
}

/// Collects a body that is neither too large nor too slow.
async fn receive<E: Display>(
    mut payload: impl Stream<Item = Result<Bytes, E>> + Unpin,
    limit: usize,
    pace: Pace,
) -> Result<BytesMut, ApiError> {
    let started = Instant::now();
    let mut body = BytesMut::new();
    loop {
        let left = pace.deadline(body.len()).saturating_sub(started.elapsed());
        let Ok(chunk) = tokio::time::timeout(left.min(pace.patience), payload.next()).await else {
            return Err(ApiError::slow_body(body.len(), started.elapsed().as_secs()));
        };
        let Some(chunk) = chunk else { return Ok(body) };
        let chunk = chunk.map_err(|error| ApiError::bad_body(format!("the body broke off: {error}")))?;
        if body.len() + chunk.len() > limit {
            return Err(ApiError::too_large(limit));
        }
        body.extend_from_slice(&chunk);
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use actix_web::ResponseError;
    use futures_util::stream;

    use super::*;

    /// Receives `count` parts of `size` bytes, one each `gap`.
    fn receive_slowly(count: usize, size: usize, gap: Duration) -> (Result<usize, ApiError>, Duration) {
        let pace = Pace {
            patience: Duration::from_millis(300),
            rate: 1000,
        };
        let parts = stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(gap).await;
            Ok::<_, Infallible>(Bytes::from(vec![b' '; size]))
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let started = Instant::now();
        let body = runtime.block_on(receive(Box::pin(parts), 1 << 20, pace));
        (body.map(|body| body.len()), started.elapsed())
    }

    #[test]
    fn a_body_has_a_deadline_as_a_whole() {
        // A byte now and then is never silent for long, but does not come to an end either.
        let (result, took) = receive_slowly(10_000, 1, Duration::from_millis(20));
        assert_eq!(result.unwrap_err().status_code(), 408);
        assert!(took < Duration::from_secs(5), "{took:?}");
        // A large body at a sane rate takes longer than a small one may.
        let (result, took) = receive_slowly(10, 200, Duration::from_millis(50));
        assert_eq!(result.unwrap(), 2000);
        assert!(took > Duration::from_millis(400), "{took:?}");
        // Silence.
        let (result, _) = receive_slowly(1, 1, Duration::from_secs(60));
        assert_eq!(result.unwrap_err().status_code(), 408);
    }
}
