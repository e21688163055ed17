//! Server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, HeaderName};
use actix_web::web::{Bytes, BytesMut};
use bytes::BufMut;
use futures_util::{FutureExt, stream};
use serde::Serialize;

use super::error::ApiError;
use super::shape::Shape;
use crate::generation::{GenerationError, Output, OutputStream};

/// Silence after which a comment is sent, so that proxies and clients keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Tells nginx not to buffer the stream.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Events that are ready at the same time leave in one write, up to this many bytes.
const WRITE: usize = 16 * 1024;

/// A stream of events in the endpoint's shape. Dropping the response (the client left) ends the generation.
pub(super) fn sse(outputs: OutputStream, shape: impl Shape) -> HttpResponse {
    let source = Source {
        outputs: Some(outputs),
        shape,
        frames: Vec::new(),
        out: BytesMut::new(),
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
    outputs: Option<OutputStream>,
    shape: S,
    /// By choice, the chunk of its text; a choice that has one is open.
    frames: Vec<Option<Frame>>,
    /// What waits to be sent. Its memory is used again once the parts that left are written.
    out: BytesMut,
}

impl<S: Shape> Source<S> {
    /// The next bytes: all outputs that are ready, in one piece.
    async fn next(&mut self) -> Option<Bytes> {
        while self.out.is_empty() {
            let outputs = self.outputs.as_mut()?;
            let output = match outputs.next().now_or_never() {
                Some(output) => output,
                None => match tokio::time::timeout(KEEP_ALIVE, outputs.next()).await {
                    Ok(output) => output,
                    Err(_) => return Some(Bytes::from_static(b": ping\n\n")),
                },
            };
            self.take(output);
        }
        while self.out.len() < WRITE
            && let Some(output) = self.outputs.as_mut().and_then(|outputs| outputs.next().now_or_never())
        {
            self.take(output);
        }
        Some(self.out.split().freeze())
    }

    fn take(&mut self, output: Option<Result<Output, GenerationError>>) {
        match output {
            Some(Ok(Output::Content { choice, text })) => {
                self.open(choice);
                match &self.frames[choice] {
                    Some(frame) => frame.put(&mut self.out, &text),
                    None => put(&mut self.out, &self.shape.content(choice, &text)),
                }
            }
            Some(Ok(Output::Progress { choice, progress })) => {
                self.open(choice);
                put(&mut self.out, &self.shape.progress(&progress));
            }
            Some(Ok(Output::Finished { choice, reason, totals })) => {
                self.open(choice);
                for chunk in self.shape.finished(choice, &reason, totals) {
                    put(&mut self.out, &chunk);
                }
                if totals.is_some() {
                    self.out.put_slice(b"data: [DONE]\n\n");
                    self.outputs = None;
                }
            }
            Some(Err(error)) => self.fail(error),
            None => self.fail(GenerationError::Unfinished),
        }
    }

    /// Opens the choices up to this one: the first output is about any of them.
    fn open(&mut self, choice: usize) {
        while self.frames.len() <= choice {
            let next = self.frames.len();
            if let Some(opening) = self.shape.opening(next) {
                put(&mut self.out, &opening);
            }
            self.frames.push(Frame::of(&self.shape.content(next, Frame::HOLE)));
        }
    }

    fn fail(&mut self, error: GenerationError) {
        put(&mut self.out, &ApiError::from(error).body());
        self.outputs = None;
    }
}

/// A chunk that is serialised once, with a hole for the text: all texts of a choice differ only there.
struct Frame {
    before: Bytes,
    after: Bytes,
}

impl Frame {
    /// A text that no name or id contains.
    const HOLE: &str = "\0";

    /// `None` if the hole is not in the chunk exactly once.
    fn of(chunk: &impl Serialize) -> Option<Self> {
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
fn put(out: &mut BytesMut, value: &impl Serialize) {
    out.put_slice(b"data: ");
    write_json(out, value);
    out.put_slice(b"\n\n");
}

fn write_json<T: Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    // Writing JSON values to memory cannot fail.
    let _ = serde_json::to_writer(out.writer(), value);
}

/// One server-sent event by itself.
pub fn chunk(value: &impl Serialize) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    put(&mut out, value);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

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
