//! Server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, HeaderName};
use actix_web::web::{Bytes, BytesMut};
use bytes::BufMut;
use futures_util::{FutureExt, stream};
use serde::Serialize;
use serde_json::Value;

use super::answer::Shape;
use super::error::ApiError;
use crate::engine::{Event, EventStream};

/// Silence after which a comment is sent, so that proxies and clients keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Tells nginx not to buffer the stream.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Events that are ready at the same time leave in one write, up to this many bytes.
const WRITE: usize = 16 * 1024;

/// A stream of events in the endpoint's shape. Dropping the response (the client left) cancels the request.
pub(super) fn sse(events: EventStream, mut shape: impl Shape) -> HttpResponse {
    let source = Source {
        events: Some(events),
        frame: Frame::of(&shape.delta(Frame::HOLE)),
        shape,
        out: BytesMut::new(),
        opened: false,
    };
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((ACCEL_BUFFERING, "no"))
        .streaming(stream::unfold(source, |mut source| async move {
            let bytes = source.next().await?;
            Some((Ok::<Bytes, Infallible>(bytes), source))
        }))
}

struct Source<S> {
    /// `None` when the stream has ended.
    events: Option<EventStream>,
    shape: S,
    /// The chunk of a delta, around its text.
    frame: Option<Frame>,
    /// What waits to be sent. Its memory is used again once the parts that left are written.
    out: BytesMut,
    opened: bool,
}

impl<S: Shape> Source<S> {
    /// The next bytes: all events that are ready, in one piece.
    async fn next(&mut self) -> Option<Bytes> {
        while self.out.is_empty() {
            let events = self.events.as_mut()?;
            let event = match events.next().now_or_never() {
                Some(event) => event,
                None => match tokio::time::timeout(KEEP_ALIVE, events.next()).await {
                    Ok(event) => event,
                    Err(_) => return Some(Bytes::from_static(b": ping\n\n")),
                },
            };
            self.take(event);
        }
        while self.out.len() < WRITE
            && let Some(event) = self.events.as_mut().and_then(|events| events.next().now_or_never())
        {
            self.take(event);
        }
        Some(self.out.split().freeze())
    }

    fn take(&mut self, event: Option<Event>) {
        if !self.opened {
            self.opened = true;
            if let Some(opening) = self.shape.opening() {
                put(&mut self.out, &opening);
            }
        }
        match event {
            Some(Event::Delta { text, .. }) => match &self.frame {
                Some(frame) => frame.put(&mut self.out, &text),
                None => put(&mut self.out, &self.shape.delta(&text)),
            },
            Some(Event::Progress(progress)) => {
                if let Some(progress) = self.shape.progress(&progress) {
                    put(&mut self.out, &progress);
                }
            }
            Some(Event::Finished { reason, usage, timings }) => {
                for chunk in self.shape.closing(&reason, usage, timings) {
                    put(&mut self.out, &chunk);
                }
                self.out.put_slice(b"data: [DONE]\n\n");
                self.events = None;
            }
            Some(Event::Failed(error)) => self.fail(&error.into()),
            None => self.fail(&ApiError::internal("the engine ended without an answer")),
        }
    }

    fn fail(&mut self, error: &ApiError) {
        put(&mut self.out, &error.body());
        self.events = None;
    }
}

/// A chunk that is serialised once, with a hole for the text: all deltas of an answer differ only there.
struct Frame {
    before: Bytes,
    after: Bytes,
}

impl Frame {
    /// A text that no name or id contains.
    const HOLE: &str = "\0";

    /// `None` if the hole is not in the chunk exactly once.
    fn of(chunk: &Value) -> Option<Self> {
        let mut out = BytesMut::new();
        put(&mut out, chunk);
        let whole = out.freeze();
        let hole: &[u8] = br#""\u0000""#;
        let mut places = (0..whole.len()).filter(|start| whole[*start..].starts_with(hole));
        let (start, None) = (places.next()?, places.next()) else {
            return None;
        };
        Some(Self {
            before: whole.slice(..start),
            after: whole.slice(start + hole.len()..),
        })
    }

    fn put(&self, out: &mut BytesMut, text: &str) {
        out.reserve(self.before.len() + self.after.len() + text.len() + 16);
        out.put_slice(&self.before);
        write_json(out, text);
        out.put_slice(&self.after);
    }
}

/// One server-sent event: `data: {...}` and an empty line.
fn put(out: &mut BytesMut, value: &Value) {
    out.put_slice(b"data: ");
    write_json(out, value);
    out.put_slice(b"\n\n");
}

fn write_json<T: Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    // Writing JSON values to memory cannot fail.
    let _ = serde_json::to_writer(out.writer(), value);
}

/// One server-sent event by itself.
pub fn chunk(value: &Value) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    put(&mut out, value);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn delta(text: &str) -> Value {
        json!({"id": "chatcmpl-1", "model": "m \"q\"", "choices": [{"index": 0, "delta": {"content": text}}]})
    }

    proptest! {
        /// Whatever the text is, the frame writes what serialising the whole chunk writes, as one event on one line.
        #[test]
        fn a_frame_writes_what_serialising_writes(text in any::<String>()) {
            let frame = Frame::of(&delta(Frame::HOLE)).expect("one hole");
            let mut out = BytesMut::new();
            frame.put(&mut out, &text);
            prop_assert_eq!(&out[..], &chunk(&delta(&text))[..]);
            let line = out.strip_prefix(b"data: ").and_then(|rest| rest.strip_suffix(b"\n\n")).unwrap();
            prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
            prop_assert_eq!(serde_json::from_slice::<Value>(line).unwrap(), delta(&text));
        }
    }

    #[test]
    fn a_frame_needs_exactly_one_hole() {
        assert!(Frame::of(&json!({"a": "b"})).is_none());
        assert!(Frame::of(&json!({"a": "\0", "b": "\0"})).is_none());
    }
}
