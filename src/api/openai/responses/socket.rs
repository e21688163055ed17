//! `GET /v1/responses` as a WebSocket: requests come as messages, and their events go back as messages.
//!
//! A socket answers one request after the other; those that come meanwhile wait. It remembers its latest response, so that
//! the next request may continue it even if it is not stored.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use actix_web::web::{Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Closed, Session};
use futures_util::future::{FutureExt, LocalBoxFuture};
use serde::Serialize;
use serde_json::Value;
use tracing::Instrument;

use super::answer::Answer;
use super::create::{Opened, open};
use super::store::{Store, Stored};
use crate::api::body::{Body, Limits, parse};
use crate::api::error::{ApiError, ErrorBody};
use crate::api::events::{Sink, Translator, advance};
use crate::api::keys::Caller;
use crate::api::routing::get;
use crate::api::socket::{self, PATIENCE, PING};
use crate::api::state::State;
use crate::generation::{FinishReason, GenerationError, Output, OutputStream, Piece, Totals};

/// Requests that may wait on one socket.
const MAX_WAITING: usize = 16;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/responses", get().to(connect));
}

/// A WebSocket: messages are requests with `"type": "response.create"`, and their events come back.
#[utoipa::path(
    get,
    path = "/v1/responses",
    responses(
        (status = 101, description = "The connection is a WebSocket now."),
        (status = 426, description = "The request does not ask for a WebSocket.", body = ErrorBody<'static>)
    )
)]
pub(super) async fn connect(
    state: Data<State>,
    store: Data<Store>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    let (response, session, messages) = socket::accept(&request, payload)?;
    let socket = Socket {
        state,
        store: store.into_inner(),
        session,
        caller: Caller::of(&request),
        work: Work::Idle,
        lane: None,
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        limit: Limits::of(&request).body,
        last: None,
        heard: Instant::now(),
    };
    actix_web::rt::spawn(socket.serve(messages).in_current_span());
    Ok(response)
}

struct Socket {
    state: Data<State>,
    store: Arc<Store>,
    session: Session,
    caller: Caller,
    work: Work,
    /// `stream_id` of the request that is answered: its events carry it.
    lane: Option<String>,
    /// Messages behind it.
    waiting: VecDeque<String>,
    waiting_bytes: usize,
    /// Bytes that may wait.
    limit: usize,
    /// The latest response, by its id.
    last: Option<(String, Arc<Stored>)>,
    /// When the client last said anything.
    heard: Instant,
}

/// What a socket is doing.
enum Work {
    Idle,
    Opening(LocalBoxFuture<'static, Result<Box<Opened>, ApiError>>),
    Answering { outputs: OutputStream, answer: Box<Answer> },
}

/// How work went on.
enum Step {
    Opened(Result<Box<Opened>, ApiError>),
    Output(Option<Result<Output, GenerationError>>),
}

impl Work {
    /// The next step; never without work.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    async fn step(&mut self) -> Step {
        match self {
            Self::Idle => std::future::pending().await,
            Self::Opening(opening) => Step::Opened(opening.await),
            Self::Answering { outputs, .. } => Step::Output(outputs.next().await),
        }
    }
}

/// Why a socket ends.
enum End {
    /// The client left, or does not listen any more.
    Left,
    /// The socket is to be closed, for this reason.
    Close(CloseCode, &'static str),
}

impl From<Closed> for End {
    fn from(_: Closed) -> Self {
        Self::Left
    }
}

impl Socket {
    async fn serve(mut self, mut messages: AggregatedMessageStream) {
        let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
        let mut shutdown = pin!(socket::shutdown(&self.state));
        let mut ends = false;
        let end = loop {
            if ends && matches!(self.work, Work::Idle) {
                break End::Close(CloseCode::Away, "the server is shutting down");
            }
            let outcome = tokio::select! {
                message = messages.recv() => self.hear(message).await,
                step = self.work.step() => self.go_on(step).await,
                _ = pings.tick() => self.ping().await,
                () = &mut shutdown, if !ends => {
                    ends = true;
                    Ok(())
                }
            };
            if let Err(end) = outcome {
                break end;
            }
            self.begin_next();
        };
        // What is left of an answer ends here.
        if let End::Close(code, reason) = end {
            let reason = CloseReason {
                code,
                description: Some(reason.to_owned()),
            };
            socket::close(self.session, messages, Some(reason)).await;
        }
    }

    async fn ping(&mut self) -> Result<(), End> {
        if self.heard.elapsed() > PATIENCE {
            return Err(End::Left);
        }
        Ok(self.session.ping(b"").await?)
    }

    async fn hear(&mut self, message: Option<Result<AggregatedMessage, actix_ws::ProtocolError>>) -> Result<(), End> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(actix_ws::ProtocolError::Overflow)) => {
                return Err(End::Close(
                    CloseCode::Size,
                    "the message is too large ([server] body_limit)",
                ));
            }
            Some(Err(_)) => {
                return Err(End::Close(
                    CloseCode::Protocol,
                    "this is not the protocol of WebSockets",
                ));
            }
            None => return Err(End::Left),
        };
        self.heard = Instant::now();
        match message {
            AggregatedMessage::Ping(bytes) => Ok(self.session.pong(&bytes).await?),
            AggregatedMessage::Pong(_) => Ok(()),
            AggregatedMessage::Close(_) => Err(End::Close(CloseCode::Normal, "")),
            AggregatedMessage::Binary(_) => self.refuse(&ApiError::bad_body("messages must be text"), None).await,
            AggregatedMessage::Text(text) => {
                let full = self.waiting.len() >= MAX_WAITING || self.waiting_bytes + text.len() > self.limit;
                if full {
                    let error =
                        ApiError::bad_body("too many requests wait on this connection for the one that is answered");
                    return self.refuse(&error, None).await;
                }
                self.waiting_bytes += text.len();
                self.waiting.push_back(text.to_string());
                Ok(())
            }
        }
    }

    /// Begins with the next request, if there is one and the last is answered.
    fn begin_next(&mut self) {
        if !matches!(self.work, Work::Idle) {
            return;
        }
        let Some(text) = self.waiting.pop_front() else { return };
        self.waiting_bytes -= text.len();
        self.lane = None;
        let opening = match self.read(&text) {
            Ok((body, generates)) => {
                let (state, store, last) = (self.state.clone(), self.store.clone(), self.last.clone());
                async move {
                    let mut opened = open(&state, store, last.as_ref(), body).await?;
                    if !generates {
                        opened.outputs = nothing();
                    }
                    Ok(Box::new(opened))
                }
                .boxed_local()
            }
            Err(error) => std::future::ready(Err(error)).boxed_local(),
        };
        self.work = Work::Opening(opening);
    }

    /// The body of a request, and whether there is to be an answer at all.
    fn read(&mut self, text: &str) -> Result<(Body, bool), ApiError> {
        self.caller.count()?;
        let mut body = parse(text.as_bytes())?.with_caller(self.caller.clone());
        match body.take("stream_id") {
            Value::Null => {}
            Value::String(lane) => self.lane = Some(lane),
            _ => return Err(ApiError::field("stream_id", "`stream_id` must be a string")),
        }
        let kind = body.take("type");
        if kind != "response.create" {
            return Err(ApiError::field("type", "`type` must be \"response.create\""));
        }
        body.take("stream");
        let generates = body.take("generate") != false;
        Ok((body, generates))
    }

    async fn go_on(&mut self, step: Step) -> Result<(), End> {
        let mut frames = Frames {
            lane: self.lane.as_deref(),
            texts: Vec::new(),
        };
        let work = std::mem::replace(&mut self.work, Work::Idle);
        match (step, work) {
            (Step::Opened(Ok(opened)), _) => {
                let Opened { outputs, answer, .. } = *opened;
                let mut answer = Box::new(answer);
                answer.begin(&mut frames);
                self.work = Work::Answering { outputs, answer };
            }
            (Step::Opened(Err(error)), _) => {
                let lane = self.lane.take();
                return self.refuse(&error, lane.as_deref()).await;
            }
            (Step::Output(output), Work::Answering { outputs, mut answer }) => {
                if advance(&mut *answer, output, &mut frames) {
                    self.work = Work::Answering { outputs, answer };
                } else {
                    self.last = Some((answer.response.id.clone(), Arc::new(answer.stored())));
                }
            }
            (Step::Output(_), _) => {}
        }
        let texts = frames.texts;
        for text in texts {
            self.send(text).await?;
        }
        Ok(())
    }

    async fn refuse(&mut self, error: &ApiError, lane: Option<&str>) -> Result<(), End> {
        let event = Refusal {
            kind: "error",
            status: error.status_code().as_u16(),
            body: error.body(),
            stream_id: lane,
        };
        // Writing JSON values to memory cannot fail.
        self.send(serde_json::to_string(&event).unwrap_or_default()).await
    }

    async fn send(&mut self, text: String) -> Result<(), End> {
        Ok(socket::send(&mut self.session, text).await?)
    }
}

/// An answer without anything in it.
fn nothing() -> OutputStream {
    let finished = Piece::Finished {
        reason: FinishReason::EndOfText,
        totals: Some(Totals::default()),
    };
    let output = Output {
        choice: 0,
        piece: finished,
        tokens: 0,
    };
    OutputStream::new(futures_util::stream::iter([Ok(output)]))
}

/// An error before there is a response.
#[derive(Serialize)]
struct Refusal<'e> {
    #[serde(rename = "type")]
    kind: &'static str,
    status: u16,
    #[serde(flatten)]
    body: ErrorBody<'e>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_id: Option<&'e str>,
}

/// Events as messages.
struct Frames<'l> {
    lane: Option<&'l str>,
    texts: Vec<String>,
}

#[derive(Serialize)]
struct InLane<'l, T> {
    #[serde(flatten)]
    event: T,
    stream_id: &'l str,
}

impl Sink for Frames<'_> {
    fn put(&mut self, _: &'static str, data: &impl Serialize) {
        let text = match self.lane {
            None => serde_json::to_string(data),
            Some(stream_id) => serde_json::to_string(&InLane { event: data, stream_id }),
        };
        // Writing JSON values to memory cannot fail.
        self.texts.push(text.unwrap_or_default());
    }
}
