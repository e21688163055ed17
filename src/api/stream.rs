//! Server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, HeaderName};
use actix_web::web::{Bytes, BytesMut};
use bytes::BufMut;
use futures_util::stream;
use serde_json::Value;

use super::answer::Shape;
use super::error::ApiError;
use crate::engine::{Event, EventStream};

/// Silence after which a comment is sent, so that proxies and clients keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Tells nginx not to buffer the stream.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A stream of events in the endpoint's shape. Dropping the response (the client left) cancels the request.
pub(super) fn sse(events: EventStream, shape: impl Shape) -> HttpResponse {
    let source = Source {
        events: Some(events),
        shape,
        ready: VecDeque::new(),
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
    /// Chunks that wait to be sent.
    ready: VecDeque<Bytes>,
    opened: bool,
}

impl<S: Shape> Source<S> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            let events = self.events.as_mut()?;
            let Ok(event) = tokio::time::timeout(KEEP_ALIVE, events.next()).await else {
                return Some(Bytes::from_static(b": ping\n\n"));
            };
            self.take(event);
        }
    }

    fn take(&mut self, event: Option<Event>) {
        if !self.opened {
            self.opened = true;
            let opening = self.shape.opening();
            self.ready.extend(opening.as_ref().map(chunk));
        }
        match event {
            Some(Event::Delta { text, .. }) => {
                let delta = self.shape.delta(&text);
                self.ready.push_back(chunk(&delta));
            }
            Some(Event::Progress(progress)) => {
                let progress = self.shape.progress(&progress);
                self.ready.extend(progress.as_ref().map(chunk));
            }
            Some(Event::Finished { reason, usage, timings }) => {
                let closing = self.shape.closing(&reason, usage, timings);
                self.ready.extend(closing.iter().map(chunk));
                self.ready.push_back(Bytes::from_static(b"data: [DONE]\n\n"));
                self.events = None;
            }
            Some(Event::Failed(error)) => self.fail(&error.into()),
            None => self.fail(&ApiError::internal("the engine ended without an answer")),
        }
    }

    fn fail(&mut self, error: &ApiError) {
        self.ready.push_back(chunk(&error.body()));
        self.events = None;
    }
}

/// One server-sent event: `data: {...}` and an empty line.
pub fn chunk(value: &Value) -> Bytes {
    let mut out = BytesMut::with_capacity(256).writer();
    out.get_mut().put_slice(b"data: ");
    // Writing JSON values to memory cannot fail.
    let _ = serde_json::to_writer(&mut out, value);
    let mut out = out.into_inner();
    out.put_slice(b"\n\n");
    out.freeze()
}
