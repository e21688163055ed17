//! Asks the servers of a model, and passes on what they answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::Stream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::Answer;
use super::client::Client;
use super::events::{Broken, Event, Events};
use super::fault::{About, Again, Fault};
use super::replicas::{Lease, NoReplica, Replica, Replicas};
use super::request::Request;
use super::wire::Chunk;
use crate::engine::{EngineError, Health};
use crate::generation::{
    ChatBackend, ChatRequest, Conversation, FinishReason, GenerationError, Output, OutputStream, Piece,
    ReasoningFormat, TextRequest, Totals,
};
use crate::sampling::SamplingOverrides;
use crate::telemetry::ModelMetrics;

/// Pieces between the server and a client; a client that is slower makes the server wait.
const PIECES: usize = 256;
/// Pause before the first retry; twice as long before each further one.
const PAUSE: Duration = Duration::from_millis(100);
/// A server that asks for a longer pause is not waited for.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Time for the token counts after the last text.
const TAIL: Duration = Duration::from_secs(5);

/// What the requests to a model share.
pub(super) struct Shared {
    /// As clients call it.
    pub(super) name: String,
    pub(super) replicas: Replicas,
    pub(super) sampling: SamplingOverrides,
    pub(super) metrics: ModelMetrics,
    pub(super) health: watch::Sender<Health>,
    /// True: answers end now.
    pub(super) stop: watch::Sender<bool>,
    /// Requests that have not ended.
    pub(super) running: AtomicU32,
}

impl Shared {
    /// Never, unless answers are to end.
    pub(super) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        if stop.wait_for(|stop| *stop).await.is_err() {
            std::future::pending().await
        }
    }

    fn nobody(&self, why: NoReplica) -> GenerationError {
        let model = self.name.clone();
        let left = |at: std::time::Instant| at.saturating_duration_since(std::time::Instant::now());
        GenerationError::Engine(match why {
            NoReplica::Full | NoReplica::AllTried => EngineError::Overloaded {
                model,
                reason: "its servers compute as many requests as they may (`max_requests`)".into(),
                retry_after: Duration::from_secs(1),
            },
            NoReplica::Resting(at) => EngineError::Overloaded {
                model,
                reason: "its servers asked to be left alone for a while".into(),
                retry_after: left(at),
            },
            NoReplica::Failing(at) => EngineError::Upstream {
                model,
                reason: "its servers failed lately, and are left alone for a while".into(),
                retry_after: Some(left(at)),
            },
        })
    }
}

/// A model that other servers compute.
pub(super) struct Backend {
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: Handle,
}

impl Backend {
    async fn ask(&self, request: Request) -> Result<OutputStream, GenerationError> {
        request.check(&self.shared.name)?;
        if *self.shared.health.borrow() == Health::ShuttingDown {
            return Err(EngineError::ShuttingDown.into());
        }
        let (begun, wait) = oneshot::channel();
        let (outputs, receiver) = mpsc::channel(PIECES);
        let work = answer(self.shared.clone(), request, begun, outputs);
        let task = Task(self.runtime.spawn(work));
        wait.await.map_err(|_| GenerationError::Unfinished)??;
        Ok(OutputStream::new(Receiving { receiver, _task: task }))
    }
}

impl ChatBackend for Backend {
    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
        self.ask(Request::Chat(request)).boxed()
    }

    fn continue_text(&self, request: TextRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
        self.ask(Request::Text(request)).boxed()
    }

    fn render(&self, _: Conversation) -> BoxFuture<'_, Result<String, GenerationError>> {
        let message = format!(
            "model `{}` is computed by another server: its chat template is not known here",
            self.shared.name
        );
        async { Err(EngineError::NotSupported { message }.into()) }.boxed()
    }
}

/// Ends with whoever waits for it, and closes the connection.
pub(super) struct Task<T = ()>(pub(super) JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Receiving {
    receiver: mpsc::Receiver<Result<Output, GenerationError>>,
    _task: Task,
}

impl Stream for Receiving {
    type Item = Result<Output, GenerationError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx)
    }
}

/// Counts a request, however it ends.
pub(super) struct Running<'s> {
    shared: &'s Shared,
    pub(super) how: &'static str,
}

impl<'s> Running<'s> {
    pub(super) fn new(shared: &'s Shared) -> Self {
        shared.running.fetch_add(1, Ordering::Relaxed);
        Self {
            shared,
            how: "cancelled",
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, Ordering::Relaxed);
        self.shared.metrics.count_request(self.how);
    }
}

type Outputs = mpsc::Sender<Result<Output, GenerationError>>;

/// Asks until a server begins to answer, and passes the answer on.
async fn answer(
    shared: Arc<Shared>,
    request: Request,
    begun: oneshot::Sender<Result<(), GenerationError>>,
    outputs: Outputs,
) {
    let mut running = Running::new(&shared);
    let started = Instant::now();
    let asks = |replica| open(&shared, replica, &request, started).boxed();
    let opened = tokio::select! {
        opened = begin(&shared, asks) => opened,
        () = shared.stopped() => Err(EngineError::ShuttingDown.into()),
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            running.how = "error";
            let _ = begun.send(Err(error));
            return;
        }
    };
    if begun.send(Ok(())).is_err() {
        return;
    }
    let (mut lease, (mut events, first)) = opened;
    lease.began();
    let reasoning = match &request {
        Request::Chat(request) if request.conversation.reasoning_format == ReasoningFormat::Apart => {
            Some(lease.replica.client.config.reasoning)
        }
        _ => None,
    };
    let mut answer = Answer::new(request.choices(), reasoning, started.into_std());
    let end = tokio::select! {
        end = pass_on(&lease.replica.client, &mut events, first, &mut answer, &outputs, started) => end,
        () = shared.stopped() => {
            running.how = "error";
            let _ = outputs.send(Err(EngineError::ShuttingDown.into())).await;
            return;
        }
    };
    // The connection is not used again where the answer did not end.
    drop(events);
    let last = match end {
        Ok(Some(())) => answer.end(),
        // The client left.
        Ok(None) => return,
        Err(fault) => {
            running.how = "error";
            tracing::warn!(model = shared.name, "an answer broke off: {}", fault.error);
            lease.failed(&fault);
            let _ = outputs.send(Err(fault.error)).await;
            return;
        }
    };
    lease.succeeded();
    let Some(last) = last else { return };
    if let Piece::Finished { reason, .. } = &last.piece {
        running.how = match reason {
            FinishReason::Length => "length",
            _ => "stop",
        };
    }
    count(
        &shared.metrics,
        &answer.totals(),
        answer.time_to_first_token(),
        started.elapsed(),
    );
    let _ = outputs.send(Ok(last)).await;
}

fn count(metrics: &ModelMetrics, totals: &Totals, first: Option<Duration>, all: Duration) {
    metrics.prompt_tokens.inc_by(totals.usage.prompt_tokens.into());
    metrics.cached_tokens.inc_by(totals.usage.cached_tokens.into());
    metrics.generation_tokens.inc_by(totals.usage.completion_tokens.into());
    if let Some(first) = first {
        metrics.time_to_first_token.observe(first.as_secs_f64());
    }
    metrics.e2e.observe(all.as_secs_f64());
    metrics.decode_time.observe(totals.timings.decode.as_secs_f64());
}

/// Asks one server after the other, again after a pause, until one begins to answer; `ask` asks one of them.
pub(super) async fn begin<'a, T>(
    shared: &Shared,
    ask: impl Fn(Arc<Replica>) -> BoxFuture<'a, Result<T, Fault>>,
) -> Result<(Lease, T), GenerationError> {
    let retries = shared
        .replicas
        .all()
        .iter()
        .map(|replica| replica.client.config.retries)
        .max();
    let mut tried = Vec::new();
    let mut rounds = 0;
    let mut last: Option<Fault> = None;
    loop {
        match shared.replicas.acquire(&tried, std::time::Instant::now()) {
            Ok((index, lease)) => {
                tried.push(index);
                match ask(lease.replica.clone()).await {
                    Ok(begun) => return Ok((lease, begun)),
                    Err(fault) => {
                        tracing::debug!(model = shared.name, again = ?fault.again, "{}", fault.error);
                        lease.failed(&fault);
                        if fault.again == Again::No {
                            return Err(fault.error);
                        }
                        last = Some(fault);
                    }
                }
            }
            // Nobody is left for this round.
            Err(why) => {
                let Some(fault) = last.take() else {
                    return Err(shared.nobody(why));
                };
                let pause = PAUSE * 2_u32.pow(rounds.min(8));
                // Many who were refused at the same time must not come back at the same time.
                let pause = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
                let pause = match fault.again {
                    Again::Soon => pause,
                    Again::After(wait) if wait <= MAX_PAUSE => wait.max(pause),
                    _ => return Err(fault.error),
                };
                if rounds >= retries.unwrap_or(0) {
                    return Err(fault.error);
                }
                rounds += 1;
                sleep(pause).await;
                tried.clear();
                last = Some(fault);
            }
        }
    }
}

/// Asks one server, and waits for the first event of its answer.
async fn open(
    shared: &Shared,
    replica: Arc<Replica>,
    request: &Request,
    started: Instant,
) -> Result<(Events, Box<Chunk>), Fault> {
    let client = &replica.client;
    let about = client.about();
    // Each try has its time; all of them together have that of an answer.
    let deadline = (Instant::now() + client.config.first_byte_timeout).min(started + client.config.total_timeout);
    let body = request.body(&shared.name, &client.config, &shared.sampling);
    let mut events = client.stream(request.path(), body, deadline).await?;
    match timeout_at(deadline, events.next()).await {
        Err(_) => Err(client.no_beginning()),
        Ok(Err(broken)) => Err(fault(about, &broken)),
        Ok(Ok(Some(Event::Chunk(chunk)))) => match &chunk.error {
            Some(error) if !error.is_null() => Err(about.told(error)),
            _ => Ok((events, chunk)),
        },
        Ok(Ok(Some(Event::Done) | None)) => Err(about.cut("the connection ended before the answer began")),
    }
}

/// Passes on an answer to its end; `None` if nobody listens any more.
async fn pass_on(
    client: &Client,
    events: &mut Events,
    first: Box<Chunk>,
    answer: &mut Answer,
    outputs: &Outputs,
    started: Instant,
) -> Result<Option<()>, Fault> {
    let about = client.about();
    let deadline = started + client.config.total_timeout;
    let mut next = Some(first);
    let mut out = Vec::new();
    loop {
        if let Some(chunk) = next.take() {
            if let Some(error) = chunk.error.as_ref().filter(|error| !error.is_null()) {
                return Err(about.told(error));
            }
            let taken = answer.take(*chunk, std::time::Instant::now(), &mut out);
            for output in out.drain(..) {
                if outputs.send(Ok(output)).await.is_err() {
                    return Ok(None);
                }
            }
            taken.map_err(|broken| fault(about, &broken))?;
        }
        let limit = match answer.is_complete() {
            true => Instant::now() + TAIL,
            false => deadline,
        };
        match timeout_at(limit, events.next()).await {
            Ok(Ok(Some(Event::Chunk(chunk)))) => next = Some(chunk),
            _ if answer.is_complete() => return Ok(Some(())),
            Ok(Ok(Some(Event::Done) | None)) => {
                return Err(about.cut("the connection ended in the middle of the answer"));
            }
            Ok(Err(broken)) => return Err(fault(about, &broken)),
            Err(_) => {
                let limit = client.config.total_timeout.as_secs_f64();
                return Err(about.too_slow(&format!("the answer has no end after {limit} s (`total_timeout`)")));
            }
        }
    }
}

fn fault(about: About<'_>, broken: &Broken) -> Fault {
    match broken {
        Broken::Connection(_) => about.cut(broken.to_string()),
        Broken::Silent(_) => about.too_slow(&broken.to_string()),
        _ => about.nonsense(broken.to_string()),
    }
}
