//! The events of a streamed answer, with bounds for what a server may send.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use sse_stream::{Error as SseError, SseByteStream};

use super::wire::Chunk;

/// Bytes between two events: of a line and of an event, and of comments that nothing comes after.
pub(super) const EVENT: usize = 4 << 20;
/// Bytes of a whole answer.
const ANSWER: usize = 256 << 20;

/// Why there is no next event.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("an event of its answer has more than {EVENT} bytes")]
    LongEvent,
    #[error("its answer has more than {ANSWER} bytes")]
    LongAnswer,
    #[error("an event of its answer is not text: {0}")]
    NotText(String),
    #[error("an event of its answer is not valid JSON of this API: {0}")]
    NotJson(String),
    #[error("the connection broke: {0}")]
    Connection(String),
    #[error("nothing came for {} s (`idle_timeout`)", .0.as_secs_f64())]
    Silent(Duration),
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("too long an event")]
    LongEvent,
    #[error("too long an answer")]
    LongAnswer,
    #[error("{0}")]
    Connection(String),
    #[error("silence")]
    Silent(Duration),
}

/// Events as they come.
pub(super) struct Events {
    stream: SseByteStream<BoxStream<'static, Result<bytes::Bytes, Failed>>>,
    /// Bytes since the last event.
    unread: Arc<AtomicUsize>,
}

/// One event.
#[derive(Debug)]
pub(super) enum Event {
    Chunk(Box<Chunk>),
    /// `[DONE]`.
    Done,
}

impl Events {
    /// The events of a response. `idle` is the longest pause; comments end one, too.
    pub(super) fn new(response: reqwest::Response, idle: Duration) -> Self {
        let body = stream::unfold(response.bytes_stream(), move |mut body| async move {
            let bytes = match tokio::time::timeout(idle, body.next()).await {
                Ok(bytes) => bytes?.map_err(|error| Failed::Connection(in_words(&error))),
                Err(_) => Err(Failed::Silent(idle)),
            };
            Some((bytes, body))
        });
        Self::of(body.boxed())
    }

    fn of(body: BoxStream<'static, Result<bytes::Bytes, Failed>>) -> Self {
        let unread = Arc::new(AtomicUsize::new(0));
        let counter = unread.clone();
        let mut total = 0_usize;
        let bounded = body.map(move |bytes| {
            let bytes = bytes?;
            total = total.saturating_add(bytes.len());
            if total > ANSWER {
                return Err(Failed::LongAnswer);
            }
            if counter.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len() > EVENT {
                return Err(Failed::LongEvent);
            }
            Ok(bytes)
        });
        Self {
            stream: SseByteStream::new(bounded.boxed()),
            unread,
        }
    }

    /// The next event; `None` when the connection has ended as it should.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Broken> {
        loop {
            let event = match self.stream.next().await {
                None => return Ok(None),
                Some(Ok(event)) => event,
                Some(Err(error)) => return Err(broken(&error)),
            };
            self.unread.store(0, Ordering::Relaxed);
            let Some(data) = event.data else { continue };
            match data.trim() {
                "" => {}
                "[DONE]" => return Ok(Some(Event::Done)),
                text => {
                    return match serde_json::from_str(text) {
                        Ok(chunk) => Ok(Some(Event::Chunk(Box::new(chunk)))),
                        Err(error) => Err(Broken::NotJson(error.to_string())),
                    };
                }
            }
        }
    }
}

fn broken(error: &SseError) -> Broken {
    match error {
        SseError::Body(cause) => match cause.downcast_ref::<Failed>() {
            Some(Failed::LongEvent) => Broken::LongEvent,
            Some(Failed::LongAnswer) => Broken::LongAnswer,
            Some(Failed::Silent(idle)) => Broken::Silent(*idle),
            _ => Broken::Connection(cause.to_string()),
        },
        other => Broken::NotText(other.to_string()),
    }
}

/// An error of the HTTP client with its causes, without the URL.
pub(super) fn in_words(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    match causes.pop() {
        // The last one is what the system or the protocol says.
        Some(last) => last,
        None if error.is_timeout() => "it takes too long".to_owned(),
        None => "the request failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn events(pieces: Vec<Vec<u8>>) -> Events {
        Events::of(stream::iter(pieces.into_iter().map(|piece| Ok(piece.into()))).boxed())
    }

    fn next(events: &mut Events) -> Result<Option<Event>, Broken> {
        events.next().now_or_never().unwrap()
    }

    #[test]
    fn events_come_in_order() {
        let text =
            ": ping\n\ndata: {\"choices\": []}\r\n\r\nevent: x\ndata: {\"usage\":\ndata: null}\n\n\ndata: [DONE]\n\n";
        let mut events = events(text.bytes().map(|byte| vec![byte]).collect());
        assert!(matches!(next(&mut events), Ok(Some(Event::Chunk(_)))));
        assert!(matches!(next(&mut events), Ok(Some(Event::Chunk(_)))));
        assert!(matches!(next(&mut events), Ok(Some(Event::Done))));
        assert!(matches!(next(&mut events), Ok(None)));
    }

    #[test]
    fn nothing_grows_without_end() {
        let endless = || (0..EVENT / 65_536 + 1).map(|_| vec![b'x'; 65_536]);
        assert!(matches!(next(&mut events(endless().collect())), Err(Broken::LongEvent)));
        // Lines that end, in an event that does not.
        let lines = (0..EVENT / 65_536 + 1).map(|_| b"data: x\n".repeat(8192)).collect();
        assert!(matches!(next(&mut events(lines)), Err(Broken::LongEvent)));
        // Comments that nothing comes after.
        let comments = (0..EVENT / 65_536 + 1).map(|_| b": ping\n\n".repeat(8192)).collect();
        assert!(matches!(next(&mut events(comments)), Err(Broken::LongEvent)));
        let deep = format!("data: {}\n\n", "[".repeat(100_000));
        assert!(matches!(
            next(&mut events(vec![deep.into_bytes()])),
            Err(Broken::NotJson(_))
        ));
    }

    proptest! {
        /// No bytes make it panic or run on for ever.
        #[test]
        fn bytes_are_events_or_errors(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let mut events = events(pieces);
            for _ in 0..1000 {
                match next(&mut events) {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Ok(()),
                }
            }
            prop_assert!(false, "endless");
        }
    }
}
