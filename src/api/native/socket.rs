//! `GET /api/v1/stream`: generation over a WebSocket, one at a time.
//!
//! A client sends what `/v1/chat/completions` (with `messages`) or `/api/v1/generate` (with `prompt`) take, and gets an
//! [`Event`] for each piece of the answer. `{"type": "cancel"}` ends an answer; a client that leaves does so, too.

use std::pin::pin;
use std::time::Instant;

use actix_web::web::{Bytes, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Session};
use futures_util::StreamExt;
use futures_util::future::{FutureExt, LocalBoxFuture};
use serde::Serialize;
use tokio::time::interval_at;
use tracing::Instrument;
use utoipa::ToSchema;

use super::generate;
use crate::api::body::Body;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::keys::Caller;
use crate::api::openai::conversation;
use crate::api::parameters::Parameters;
use crate::api::presets;
use crate::api::routing::get;
use crate::api::socket::{self, PATIENCE, PING};
use crate::api::state::State;
use crate::api::wire::{FinishReason, PromptProgress, Timings, Usage};
use crate::engine::RoutedExperts;
use crate::generation::{ChatRequest, GenerationError, Output, OutputStream, Piece};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/api/v1/stream", get().to(open));
}

/// What is sent to the client.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = SocketEvent)]
pub(super) enum Event {
    /// A piece of the answer.
    Delta {
        delta: Delta,
        /// The choice that it is of.
        index: usize,
    },
    /// With `return_progress`, how far the prefill is.
    Progress { prompt_progress: PromptProgress },
    /// The answer is complete; the socket waits for the next request.
    Done { done: Done },
}

/// What an event adds to a choice.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SocketDelta)]
pub(super) enum Delta {
    Content(String),
    /// What the model thinks before it answers.
    Reasoning(String),
    /// A call begins, or with only `arguments` goes on.
    ToolCall(CallDelta),
    /// By generated token and layer, the experts that computed it; with `return_routed_experts`.
    RoutedExperts(RoutedExperts),
    /// The choice is complete, but others are not.
    FinishReason(FinishReason),
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallDelta {
    /// Which call of the choice.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The next piece of the call's JSON text.
    arguments: String,
}

/// The end of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    /// The model or preset that answered.
    model: String,
    /// Null after a cancel, as the next two.
    finish_reason: Option<FinishReason>,
    usage: Option<Usage>,
    timings: Option<Timings>,
}

/// Generates over a WebSocket.
///
/// Send a body of `/v1/chat/completions` or `/api/v1/generate`; what comes back are `SocketEvent`s, or an `ErrorBody`. One answer
/// at a time; `{"type": "cancel"}` ends it.
#[utoipa::path(
    get,
    path = "/api/v1/stream",
    responses(
        (status = 101, description = "The connection is a WebSocket now."),
        (status = 426, description = "The request does not ask for a WebSocket.", body = ErrorBody<'static>)
    )
)]
pub(super) async fn open(request: HttpRequest, payload: Payload, state: Data<State>) -> Result<HttpResponse, ApiError> {
    let (response, session, messages) = socket::accept(&request, payload)?;
    let socket = Socket {
        state,
        session,
        caller: Caller::of(&request),
        running: None,
        heard: Instant::now(),
    };
    actix_web::rt::spawn(socket.serve(messages).in_current_span());
    Ok(response)
}

/// What a socket is busy with.
struct Running {
    model: String,
    stage: Stage,
}

enum Stage {
    /// The request is being read, rendered and submitted.
    Starting(LocalBoxFuture<'static, Result<OutputStream, ApiError>>),
    Answering(OutputStream),
}

struct Socket {
    state: Data<State>,
    session: Session,
    caller: Caller,
    running: Option<Running>,
    /// When the client was last heard of.
    heard: Instant,
}

/// Why a socket ends.
struct End(Option<CloseReason>);

/// The client is gone.
const GONE: End = End(None);

impl Socket {
    async fn serve(mut self, mut messages: AggregatedMessageStream) {
        let mut pings = interval_at(tokio::time::Instant::now() + PING, PING);
        let mut shutdown = pin!(socket::shutdown(&self.state));
        let mut stopping = false;
        let end = loop {
            // An answer may still end by itself.
            if stopping && self.running.is_none() {
                break End(Some(CloseCode::Away.into()));
            }
            let step = tokio::select! {
                message = messages.next() => match message {
                    Some(Ok(message)) => self.hear(message).await,
                    Some(Err(error)) => Err(End(Some(CloseReason {
                        code: CloseCode::Protocol,
                        description: Some(error.to_string()),
                    }))),
                    None => Err(GONE),
                },
                output = next(&mut self.running) => self.tell(output).await,
                _ = pings.tick() => self.ping().await,
                () = &mut shutdown, if !stopping => {
                    stopping = true;
                    Ok(())
                }
            };
            if let Err(end) = step {
                break end;
            }
        };
        // What runs ends here, and its slot is free.
        drop(self.running);
        socket::close(self.session, messages, end.0).await;
    }

    async fn ping(&mut self) -> Result<(), End> {
        if self.heard.elapsed() > PATIENCE {
            return Err(GONE);
        }
        self.session.ping(b"").await.map_err(|_| GONE)
    }

    async fn hear(&mut self, message: AggregatedMessage) -> Result<(), End> {
        self.heard = Instant::now();
        match message {
            AggregatedMessage::Text(text) => self.take(text.into_bytes()).await,
            AggregatedMessage::Ping(data) => self.session.pong(&data).await.map_err(|_| GONE),
            AggregatedMessage::Pong(_) => Ok(()),
            AggregatedMessage::Binary(_) => Err(End(Some(CloseReason {
                code: CloseCode::Unsupported,
                description: Some("messages are JSON texts".to_owned()),
            }))),
            AggregatedMessage::Close(reason) => Err(End(reason)),
        }
    }

    /// Takes a request, or a cancel.
    async fn take(&mut self, text: Bytes) -> Result<(), End> {
        let body = match Body::parse(text).await {
            Ok(body) => body.with_caller(self.caller.clone()),
            Err(error) => return self.fail(&error).await,
        };
        match body.field("type").as_str() {
            // After an answer that has just ended there is nothing to cancel.
            Some("cancel") => match self.running.take() {
                Some(running) => {
                    let done = Done::of(running.model, None);
                    self.send(&Event::Done { done }).await
                }
                None => Ok(()),
            },
            Some("generate") | None if self.running.is_none() => match self.start(body) {
                Ok(running) => {
                    self.running = Some(running);
                    Ok(())
                }
                Err(error) => self.fail(&error).await,
            },
            Some("generate") | None => self.fail(&ApiError::busy()).await,
            Some(_) => {
                let error = ApiError::field("type", "`type` must be \"generate\" (or left out) or \"cancel\"");
                self.fail(&error).await
            }
        }
    }

    fn start(&self, mut body: Body) -> Result<Running, ApiError> {
        self.caller.count()?;
        body.take("type");
        body.set("stream", true.into());
        let model = self.state.resolve(&body)?.name().to_owned();
        let state = self.state.clone();
        let starting = async move {
            let target = state.open(&mut body).await?;
            if body.field("messages").is_null() {
                return generate::submit(target, body).await;
            }
            if !body.field("prompt").is_null() {
                return Err(ApiError::field("prompt", "`prompt` and `messages` exclude each other"));
            }
            let options = Parameters::of(&body)?.options()?;
            let conversation = presets::begin(&target, conversation::read(body).await?);
            Ok(target.chat().chat(ChatRequest { conversation, options }).await?)
        };
        Ok(Running {
            model,
            stage: Stage::Starting(starting.boxed_local()),
        })
    }

    /// Passes on what came of the answer.
    async fn tell(&mut self, output: Next) -> Result<(), End> {
        match output {
            Next::Started(Ok(outputs)) => {
                if let Some(running) = &mut self.running {
                    if let Some(model) = outputs.substitute() {
                        running.model = model.to_string();
                    }
                    running.stage = Stage::Answering(outputs);
                }
                Ok(())
            }
            Next::Started(Err(error)) => {
                self.running = None;
                self.fail(&error).await
            }
            Next::Output(Some(Ok(output))) => {
                let event = self.event(output);
                self.send(&event).await
            }
            Next::Output(failed) => {
                self.running = None;
                let error = failed.and_then(Result::err).unwrap_or(GenerationError::Unfinished);
                self.fail(&error.into()).await
            }
        }
    }

    /// The event of an output; after the last one nothing runs.
    fn event(&mut self, output: Output) -> Event {
        let Output {
            choice: index, piece, ..
        } = output;
        let call = |index, id, name, arguments| {
            Delta::ToolCall(CallDelta {
                index,
                id,
                name,
                arguments,
            })
        };
        let delta = match piece {
            Piece::Progress(progress) => {
                return Event::Progress {
                    prompt_progress: (&progress).into(),
                };
            }
            Piece::Content { text, .. } => Delta::Content(text),
            Piece::Reasoning { text } => Delta::Reasoning(text),
            Piece::ToolCallStart { index, id, name } => call(index, Some(id), Some(name), String::new()),
            Piece::ToolCallArguments { index, text } => call(index, None, None, text),
            Piece::RoutedExperts(routed) => Delta::RoutedExperts(routed),
            Piece::Finished { reason, totals: None } => Delta::FinishReason((&reason).into()),
            Piece::Finished {
                reason,
                totals: Some(totals),
            } => {
                let model = self.running.take().map(|running| running.model).unwrap_or_default();
                let done = Done {
                    usage: Some((&totals).into()),
                    timings: Some((&totals).into()),
                    ..Done::of(model, Some((&reason).into()))
                };
                return Event::Done { done };
            }
        };
        Event::Delta { delta, index }
    }

    async fn fail(&mut self, error: &ApiError) -> Result<(), End> {
        self.send(&error.body()).await
    }

    async fn send(&mut self, message: &impl Serialize) -> Result<(), End> {
        let text = serde_json::to_string(message).map_err(|_| GONE)?;
        socket::send(&mut self.session, text).await.map_err(|_| GONE)
    }
}

impl Done {
    fn of(model: String, finish_reason: Option<FinishReason>) -> Self {
        Self {
            model,
            finish_reason,
            usage: None,
            timings: None,
        }
    }
}

enum Next {
    Started(Result<OutputStream, ApiError>),
    Output(Option<Result<Output, GenerationError>>),
}

/// What comes next of what runs; never, if nothing does.
///
/// # Cancel safety
/// Dropping the future loses nothing.
async fn next(running: &mut Option<Running>) -> Next {
    match running.as_mut().map(|running| &mut running.stage) {
        Some(Stage::Starting(starting)) => Next::Started(starting.await),
        Some(Stage::Answering(outputs)) => Next::Output(outputs.next().await),
        None => std::future::pending().await,
    }
}
