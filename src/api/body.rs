//! Request bodies: bounded, and with errors that name the place.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Bytes, BytesMut, Payload, block};
use actix_web::{FromRequest, HttpRequest};
use futures_util::future::{FutureExt, LocalBoxFuture};
use futures_util::stream::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::keys::Caller;
use crate::config::ServerConfig;

/// What bodies may be, as application data.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Bytes of a body.
    pub(super) body: usize,
    /// Longest silence, and time for a small body.
    patience: Duration,
    /// Bytes of large bodies that are being received.
    receiving: Arc<Receiving>,
}

impl Limits {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            body: config.body_limit,
            patience: config.request_timeout,
            receiving: Arc::new(Receiving {
                bytes: AtomicUsize::new(0),
                limit: (RECEIVING * config.body_limit).max(MIN_RECEIVING),
            }),
        }
    }

    /// The limits that the server of a request has.
    pub(super) fn of(request: &HttpRequest) -> Self {
        let limits = request.app_data::<Self>().cloned();
        limits.unwrap_or_else(|| Self::new(&ServerConfig::default()))
    }
}

/// Memory for bodies that are on their way: thousands of clients could each send one of the largest, and never end it.
#[derive(Debug)]
struct Receiving {
    bytes: AtomicUsize,
    limit: usize,
}

/// So many bodies of the largest size may be on their way at once, and so many bytes in any case.
const RECEIVING: usize = 32;
const MIN_RECEIVING: usize = 64 << 20;

/// A part of that memory, until it is dropped.
struct Share<'r> {
    receiving: &'r Receiving,
    bytes: usize,
}

impl Share<'_> {
    /// Grows to so many bytes.
    fn grow(&mut self, to: usize) -> Result<(), ApiError> {
        let more = to.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let limit = self.receiving.limit;
        let add = |bytes: usize| bytes.checked_add(more).filter(|sum| *sum <= limit);
        let grown = self
            .receiving
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        grown.map_err(|_| ApiError::busy_server("the server receives too much at once; try again in a moment"))?;
        self.bytes = to;
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.receiving.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bodies beyond this size are parsed and rendered away from the async workers, which serve other streams meanwhile.
pub(super) const LARGE: usize = 64 * 1024;

/// How fast a body must arrive: a client that keeps a connection busy with a byte now and then holds what others need.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Longest silence, and time for a small body.
    patience: Duration,
    /// Bytes per second beyond that.
    rate: u32,
}

/// A slow line, not an attack.
const RATE: u32 = 64 * 1024;

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
    /// Whether a model that is not in memory is loaded for this request.
    pub(super) autoload: bool,
    /// Who sent it.
    caller: Caller,
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

    /// The same, sent by somebody.
    pub(super) fn with_caller(self, caller: Caller) -> Self {
        Self { caller, ..self }
    }

    /// Who sent it.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
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

    /// Takes a field out; null if it is not there.
    pub(super) fn take(&mut self, name: &str) -> Value {
        let fields = self.value.as_object_mut();
        fields.and_then(|fields| fields.shift_remove(name)).unwrap_or_default()
    }

    /// All fields with their values.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.value.as_object().into_iter().flatten()
    }

    /// Takes fields out, into a body of their own; they are read apart from the others.
    pub(super) fn take_all(&mut self, names: &[&str]) -> Self {
        let mut taken = Map::new();
        if let Some(fields) = self.value.as_object_mut() {
            for name in names {
                taken.extend(fields.shift_remove_entry(*name));
            }
        }
        Self {
            value: taken.into(),
            bytes: self.bytes,
            autoload: self.autoload,
            caller: self.caller.clone(),
        }
    }

    /// Changes a field, if it is there.
    pub(super) fn change(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        if let Some(value) = self.value.get_mut(name) {
            change(value);
        }
    }

    /// The beginning of its JSON, of so many characters at most.
    pub(super) fn excerpt(&self, characters: usize) -> String {
        let mut start = Start {
            bytes: Vec::new(),
            // Of UTF-8.
            room: characters.saturating_mul(4),
        };
        // It ends early where there is no more room.
        let _ = serde_json::to_writer(&mut start, &self.value);
        String::from_utf8_lossy(&start.bytes).chars().take(characters).collect()
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

/// Takes the beginning of what is written, and refuses the rest.
struct Start {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Start {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Does the work on a body, away from the async workers if it is large together with `more` bytes that belong to it.
pub(super) async fn work<T: Send + 'static>(
    body: Body,
    more: usize,
    work: impl FnOnce(Body) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if body.bytes + more <= LARGE {
        return work(body);
    }
    block(move || work(body))
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?
}

#[cfg(test)]
impl Body {
    pub(super) fn of_value(value: Value) -> Self {
        Self {
            value,
            bytes: 0,
            autoload: true,
            caller: Caller::default(),
        }
    }
}

impl FromRequest for Body {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut actix_web::dev::Payload) -> Self::Future {
        let limits = Limits::of(request);
        let (limit, caller) = (limits.body, Caller::of(request));
        let announced = request
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let autoload = autoload(request.query_string());
        let payload = Payload::from_request(request, payload).into_inner();
        async move {
            if announced.is_some_and(|announced| announced > limit as u64) {
                return Err(ApiError::too_large(limit));
            }
            let payload = payload.map_err(|error| ApiError::bad_body(error.to_string()))?;
            let pace = Pace {
                patience: limits.patience,
                rate: RATE,
            };
            let bytes = receive(payload, limit, pace, &limits.receiving).await?.freeze();
            let body = Self::parse(bytes).await?;
            Ok(Self {
                autoload,
                caller,
                ..body
            })
        }
        .boxed_local()
    }
}

/// What the query of a request says of loading its model; llama-server's router has the same field.
fn autoload(query: &str) -> bool {
    let mut fields = query.split('&').filter_map(|field| field.split_once('='));
    !fields.any(|(name, value)| name == "autoload" && matches!(value, "false" | "0"))
}

/// Collects a body that is neither too large nor too slow.
async fn receive<E: Display>(
    mut payload: impl Stream<Item = Result<Bytes, E>> + Unpin,
    limit: usize,
    pace: Pace,
    receiving: &Receiving,
) -> Result<BytesMut, ApiError> {
    let started = Instant::now();
    let mut share = Share { receiving, bytes: 0 };
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
        // Small bodies are too many to be worth counting, and too small to matter.
        if body.len() + chunk.len() > LARGE {
            share.grow(body.len() + chunk.len())?;
        }
        body.extend_from_slice(&chunk);
    }
}

/// Reads JSON text, which must be an object.
pub(super) fn parse(body: &[u8]) -> Result<Body, ApiError> {
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
        autoload: true,
        caller: Caller::default(),
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
        let receiving = Receiving {
            bytes: AtomicUsize::new(0),
            limit: MIN_RECEIVING,
        };
        let body = runtime.block_on(receive(Box::pin(parts), 1 << 20, pace, &receiving));
        (body.map(|body| body.len()), started.elapsed())
    }

    #[test]
    fn an_excerpt_has_whole_characters() {
        let body = Body::of_value(serde_json::json!({"a": "ü".repeat(100_000)}));
        assert_eq!(body.excerpt(10), format!("{{\"a\":\"{}", "ü".repeat(4)));
        assert_eq!(Body::of_value(serde_json::json!({"a": 1})).excerpt(10), "{\"a\":1}");
    }

    #[test]
    fn bodies_on_their_way_share_memory() {
        let receiving = Receiving {
            bytes: AtomicUsize::new(0),
            limit: 100,
        };
        let share = |bytes| Share {
            receiving: &receiving,
            bytes,
        };
        let (mut first, mut second) = (share(0), share(0));
        assert!(first.grow(60).is_ok() && second.grow(40).is_ok());
        let error = second.grow(41).unwrap_err();
        assert_eq!((error.status_code().as_u16(), error.retry_after()), (429, Some(1)));
        drop(first);
        assert!(second.grow(100).is_ok());
        drop(second);
        assert_eq!(receiving.bytes.load(Ordering::Relaxed), 0);
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
