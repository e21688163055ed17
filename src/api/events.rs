//! Answers as events that have names, as Anthropic's endpoints and OpenAI's Responses send them.
//!
//! A [`Translator`] turns the output of a generation into events and writes them into a [`Sink`]: a stream of server-sent
//! events, the messages of a WebSocket, or nothing where only the whole answer is asked for.

use actix_web::HttpResponse;
use actix_web::web::{Bytes, BytesMut};
use bytes::BufMut;
use serde::Serialize;

use super::error::ApiError;
use super::stream::{Events, drive};
use crate::generation::{GenerationError, Output, OutputStream, Piece};

/// Where events go.
pub(super) trait Sink {
    /// Takes an event, whose name is also in `data`.
    fn put(&mut self, name: &'static str, data: &impl Serialize);
}

/// Nobody listens.
pub(super) struct Nowhere;

impl Sink for Nowhere {
    fn put(&mut self, _: &'static str, _: &impl Serialize) {}
}

/// Server-sent events: `event: name`, `data: {...}` and an empty line.
impl Sink for BytesMut {
    fn put(&mut self, name: &'static str, data: &impl Serialize) {
        self.put_slice(b"event: ");
        self.put_slice(name.as_bytes());
        self.put_slice(b"\ndata: ");
        // Writing JSON values to memory cannot fail.
        let _ = serde_json::to_writer((&mut *self).writer(), data);
        self.put_slice(b"\n\n");
    }
}

/// How one endpoint words an answer; one value serves one answer of one choice.
pub(super) trait Translator: 'static {
    /// What a silent stream sends.
    const SILENCE: &'static [u8];

    /// Before any piece.
    fn begin(&mut self, sink: &mut impl Sink);

    /// The next piece; the last one is [`Piece::Finished`].
    fn take(&mut self, piece: Piece, sink: &mut impl Sink);

    /// The answer broke off.
    fn fail(&mut self, error: &ApiError, sink: &mut impl Sink);
}

/// Hands an output to a translator; whether there is more to come.
pub(super) fn advance(
    translator: &mut impl Translator,
    output: Option<Result<Output, GenerationError>>,
    sink: &mut impl Sink,
) -> bool {
    match output {
        Some(Ok(Output { piece, .. })) => {
            let more = !matches!(piece, Piece::Finished { .. });
            translator.take(piece, sink);
            more
        }
        Some(Err(error)) => {
            translator.fail(&error.into(), sink);
            false
        }
        None => {
            translator.fail(&GenerationError::Unfinished.into(), sink);
            false
        }
    }
}

/// Waits for the whole answer; the translator has it then.
///
/// # Cancel safety
/// Dropping the future ends the generation.
pub(super) async fn collect(mut outputs: OutputStream, translator: &mut impl Translator) -> Result<(), ApiError> {
    translator.begin(&mut Nowhere);
    loop {
        let output = outputs.next().await.unwrap_or(Err(GenerationError::Unfinished))?;
        if !advance(translator, Some(Ok(output)), &mut Nowhere) {
            return Ok(());
        }
    }
}

/// A stream of events. Dropping the response (the client left) ends the generation.
pub(super) fn sse(outputs: OutputStream, mut translator: impl Translator) -> HttpResponse {
    let mut out = BytesMut::new();
    translator.begin(&mut out);
    drive(outputs, Named(translator), out)
}

struct Named<T>(T);

impl<T: Translator> Events for Named<T> {
    const SILENCE: Bytes = Bytes::from_static(T::SILENCE);

    fn write(&mut self, output: Option<Result<Output, GenerationError>>, out: &mut BytesMut) -> bool {
        advance(&mut self.0, output, out)
    }
}

/// Events as tests read them.
#[cfg(test)]
impl Sink for Vec<serde_json::Value> {
    fn put(&mut self, name: &'static str, data: &impl Serialize) {
        let data = serde_json::to_value(data).expect("JSON");
        assert_eq!(data["type"], name);
        self.push(data);
    }
}
