//! Server-sent events.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, HeaderName};
use actix_web::web::{Bytes, BytesMut};
use bytes::{Buf, BufMut};
use futures_util::FutureExt;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;

use super::error::ApiError;
use super::meter::Meter;
use super::shape::Shape;
use super::wire::Timings;
use crate::generation::{GenerationError, Output, OutputStream, Piece};

/// Silence after which a comment is sent, so that proxies and clients keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const PING: Bytes = Bytes::from_static(b": ping\n\n");
/// Tells nginx not to buffer the stream.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Events that are ready at the same time leave in one write, up to this many bytes.
const WRITE: usize = 16 * 1024;

/// How the outputs of a generation become events.
pub(super) trait Events: 'static {
    /// What a silent stream sends.
    const SILENCE: Bytes;

    /// Writes the events of an output, `None` if the generation broke off; returns whether there is more to come.
    fn write(&mut self, output: Option<Result<Output, GenerationError>>, out: &mut BytesMut) -> bool;
}

/// A stream of events in the endpoint's shape. Dropping the response (the client left) ends the generation.
pub(super) fn sse(outputs: OutputStream, shape: impl Shape, live: Option<Live>) -> HttpResponse {
    let chunks = Chunks {
        shape,
        live,
        frames: Vec::new(),
    };
    drive(outputs, chunks, BytesMut::new())
}

/// Sends events while the outputs come, after those that are in `out` already.
pub(super) fn drive(outputs: OutputStream, events: impl Events, out: BytesMut) -> HttpResponse {
    let source = Source {
        outputs: Some(outputs),
        events,
        out,
    };
    response(stream::unfold(source, |mut source| async move {
        let bytes = source.next().await?;
        Some((bytes, source))
    }))
}

/// A stream of events that are written already. Dropping the response drops the stream.
pub(super) fn event_stream(events: impl Stream<Item = Bytes> + 'static) -> HttpResponse {
    let events = Box::pin(events);
    response(stream::unfold(events, |mut events| async move {
        let event = match tokio::time::timeout(KEEP_ALIVE, events.next()).await {
            Ok(event) => event?,
            Err(_) => PING,
        };
        Some((event, events))
    }))
}

fn response(bytes: impl Stream<Item = Bytes> + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((ACCEL_BUFFERING, "no"))
        .streaming(bytes.map(Ok::<Bytes, Infallible>))
}

struct Source<E> {
    /// `None` when the stream has ended.
    outputs: Option<OutputStream>,
    events: E,
    /// What waits to be sent. Its memory is used again once the parts that left are written.
    out: BytesMut,
}

impl<E: Events> Source<E> {
    /// The next bytes: all outputs that are ready, in one piece.
    async fn next(&mut self) -> Option<Bytes> {
        while self.out.is_empty() {
            let outputs = self.outputs.as_mut()?;
            let output = match outputs.next().now_or_never() {
                Some(output) => output,
                None => match tokio::time::timeout(KEEP_ALIVE, outputs.next()).await {
                    Ok(output) => output,
                    Err(_) => return Some(E::SILENCE),
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
        if !self.events.write(output, &mut self.out) {
            self.outputs = None;
        }
    }
}

/// Chunks in the shape of an endpoint.
struct Chunks<S> {
    shape: S,
    live: Option<Live>,
    /// By choice; a choice that has an entry is open.
    frames: Vec<Frames>,
}

impl<S: Shape> Events for Chunks<S> {
    const SILENCE: Bytes = PING;

    fn write(&mut self, output: Option<Result<Output, GenerationError>>, out: &mut BytesMut) -> bool {
        let output = match output.unwrap_or(Err(GenerationError::Unfinished)) {
            Ok(output) => output,
            Err(error) => {
                put(out, &ApiError::from(error).body());
                return false;
            }
        };
        self.open(output.choice, out);
        if let Some(live) = &mut self.live {
            live.count(&output);
        }
        let Output { choice, piece, .. } = output;
        match piece {
            Piece::Content { text, logprobs, .. } if !logprobs.is_empty() => {
                self.put(out, Some(self.shape.content_with_logprobs(choice, &text, &logprobs)));
            }
            Piece::Content { text, .. } => match &self.frames[choice].content {
                Some(frame) => frame.put(out, &text),
                None => self.put(out, Some(self.shape.content(choice, &text))),
            },
            Piece::Reasoning { text } => match &self.frames[choice].reasoning {
                Some(frame) => frame.put(out, &text),
                None => self.put(out, self.shape.reasoning(choice, &text)),
            },
            Piece::ToolCallStart { index, id, name } => {
                self.put(out, self.shape.tool_call_start(choice, index, id, name));
            }
            Piece::ToolCallArguments { index, text } => {
                self.put(out, self.shape.tool_call_arguments(choice, index, text));
            }
            Piece::RoutedExperts(routed) => put_some(out, self.shape.routed_experts(choice, routed)),
            Piece::Progress(progress) => {
                if self.live.as_ref().is_none_or(|live| live.progress) {
                    put(out, &self.shape.progress(&progress));
                }
            }
            Piece::Finished { reason, totals } => {
                for chunk in self.shape.finished(choice, &reason, totals) {
                    put(out, &chunk);
                }
                if totals.is_some() {
                    out.put_slice(b"data: [DONE]\n\n");
                    return false;
                }
            }
        }
        true
    }
}

/// Tells with each piece what the answer has taken so far, as llama-server's `timings_per_token` asks for it.
pub(super) struct Live {
    meter: Meter,
    progress: bool,
}

/// A chunk with what the answer has taken so far.
#[derive(Serialize)]
struct Timed<C> {
    #[serde(flatten)]
    chunk: C,
    timings: Timings,
}

impl Live {
    /// `progress`: the client asked for that of the prefill.
    pub(super) fn new(progress: bool) -> Self {
        Self {
            meter: Meter::start(Instant::now()),
            progress,
        }
    }

    fn count(&mut self, output: &Output) {
        if let Piece::Progress(progress) = &output.piece {
            self.meter.prefilled(progress);
        }
        if output.tokens > 0 {
            self.meter.generated(output.tokens as usize, Instant::now());
        }
    }
}

impl<S: Shape> Chunks<S> {
    fn put(&self, out: &mut BytesMut, chunk: Option<S::Chunk>) {
        match (chunk, &self.live) {
            (Some(chunk), Some(live)) => {
                let timings = Timings::from(&live.meter.totals());
                put(out, &Timed { chunk, timings });
            }
            (chunk, _) => put_some(out, chunk),
        }
    }

    /// Opens the choices up to this one: the first output is about any of them.
    fn open(&mut self, choice: usize, out: &mut BytesMut) {
        while self.frames.len() <= choice {
            let next = self.frames.len();
            put_some(out, self.shape.opening(next));
            self.frames.push(match self.live {
                // Each chunk differs from the others.
                Some(_) => Frames::default(),
                None => Frames {
                    content: Frame::of(&self.shape.content(next, Frame::HOLE)),
                    reasoning: self.shape.reasoning(next, Frame::HOLE).as_ref().and_then(Frame::of),
                },
            });
        }
    }
}

/// The chunks of one choice that come most often.
#[derive(Default)]
struct Frames {
    content: Option<Frame>,
    reasoning: Option<Frame>,
}

/// A chunk that is serialised once, with holes for the text: all texts of a choice differ only there.
struct Frame {
    /// What is before each hole.
    before: Vec<Bytes>,
    after: Bytes,
}

impl Frame {
    /// A text that no name or id contains.
    const HOLE: &str = "\0";

    /// `None` if the chunk has no hole.
    fn of(chunk: &impl Serialize) -> Option<Self> {
        let mut out = BytesMut::new();
        put(&mut out, chunk);
        let mut after = out.freeze();
        let hole: &[u8] = br#""\u0000""#;
        let mut before = Vec::new();
        while let Some(start) = after.windows(hole.len()).position(|window| window == hole) {
            before.push(after.split_to(start));
            after.advance(hole.len());
        }
        (!before.is_empty()).then_some(Self { before, after })
    }

    fn put(&self, out: &mut BytesMut, text: &str) {
        for before in &self.before {
            out.reserve(before.len() + self.after.len() + text.len() + 16);
            out.put_slice(before);
            write_json(out, text);
        }
        out.put_slice(&self.after);
    }
}

/// One server-sent event: `data: {...}` and an empty line.
fn put(out: &mut BytesMut, value: &impl Serialize) {
    out.put_slice(b"data: ");
    write_json(out, value);
    out.put_slice(b"\n\n");
}

fn put_some(out: &mut BytesMut, value: Option<impl Serialize>) {
    if let Some(value) = value {
        put(out, &value);
    }
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
            let frame = Frame::of(&delta(Frame::HOLE)).expect("a hole");
            let mut out = BytesMut::new();
            frame.put(&mut out, &text);
            prop_assert_eq!(&out[..], &chunk(&delta(&text))[..]);
            let both = |text: &str| json!({"reasoning": text, "x": {"reasoning_content": text}});
            let mut twice = BytesMut::new();
            Frame::of(&both(Frame::HOLE)).expect("two holes").put(&mut twice, &text);
            prop_assert_eq!(&twice[..], &chunk(&both(&text))[..]);
            let line = out.strip_prefix(b"data: ").and_then(|rest| rest.strip_suffix(b"\n\n")).unwrap();
            prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
            prop_assert_eq!(serde_json::from_slice::<Value>(line).unwrap(), delta(&text));
        }
    }

    #[test]
    fn a_frame_needs_a_hole() {
        assert!(Frame::of(&json!({"a": "b"})).is_none());
    }
}
