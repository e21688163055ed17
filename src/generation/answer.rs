//! The events of an engine as typed pieces: the parser runs beside them, on what is newest.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt, unfold};
use futures_util::{FutureExt, Stream};
use tokio::time::{Instant, sleep_until};

use super::error::GenerationError;
use super::output::{FinishReason, Piece};
use super::reader::{Form, Job, Reader};
use crate::engine::{self, Event, EventStream, Timings, Token, Usage};
use crate::llama::chat::{ChatError, Message, Parser, RunError, run};

/// A parse is followed by a pause of so many times its own time: parsing takes no more than this share of a core.
const PAUSE: u32 = 60;
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// A step of one choice.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// With the tokens that were generated since the piece before.
    Piece(Piece, u32),
    /// The choice is complete.
    End(End),
}

/// How a choice ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct End {
    pub(super) reason: FinishReason,
    pub(super) usage: Usage,
    pub(super) reasoning_tokens: u32,
    pub(super) timings: Timings,
}

/// The steps of one choice; the last is its end, or an error.
pub(super) type Steps = BoxStream<'static, Result<Step, GenerationError>>;

/// Texts as they are.
pub(super) fn plain(events: EventStream) -> Steps {
    events
        .map(move |event| match event {
            Event::Progress(progress) => Ok(Step::Piece(Piece::Progress(progress), 0)),
            Event::Delta { text, tokens, logprobs } => {
                let count = count(&tokens);
                Ok(Step::Piece(Piece::Content { text, tokens, logprobs }, count))
            }
            Event::RoutedExperts(routed) => Ok(Step::Piece(Piece::RoutedExperts(routed), 0)),
            Event::Finished { reason, usage, timings } => Ok(Step::End(End {
                reason: reason.into(),
                usage,
                reasoning_tokens: 0,
                timings,
            })),
            Event::Failed(error) => Err(error.into()),
        })
        .boxed()
}

/// An answer that `parser` reads. `stops` are the texts that end every answer of this template.
pub(super) fn parsed(events: EventStream, parser: Arc<Parser>, form: Form, stops: Vec<String>) -> Steps {
    let answer = Answer {
        events,
        parser,
        reader: Reader::new(form),
        stops,
        tokens: 0,
        parse: None,
        not_before: Instant::now(),
        phase: Phase::Grows,
    };
    steps(answer).boxed()
}

fn count(tokens: &[Token]) -> u32 {
    u32::try_from(tokens.len()).unwrap_or(u32::MAX)
}

fn steps(answer: Answer) -> impl Stream<Item = Result<Step, GenerationError>> {
    unfold(answer, |mut answer| async move {
        let step = answer.next().await?;
        Some((step, answer))
    })
}

struct Answer {
    events: EventStream,
    parser: Arc<Parser>,
    reader: Reader,
    stops: Vec<String>,
    /// Tokens since the last piece.
    tokens: u32,
    /// The parse that runs.
    parse: Option<Parse>,
    not_before: Instant,
    phase: Phase,
}

struct Parse {
    job: Job,
    started: Instant,
    result: BoxFuture<'static, Result<Result<Message, ChatError>, RunError>>,
}

/// How the engine ended.
type Finished = Result<(engine::FinishReason, Usage, Timings), GenerationError>;

enum Phase {
    Grows,
    /// The engine is done, the last parse is not.
    Parses(Finished),
    /// The same, for an answer that is not in the form that it should have.
    ParsesAgain(Finished),
    Ends(Finished),
    Over,
}

impl Answer {
    async fn next(&mut self) -> Option<Result<Step, GenerationError>> {
        loop {
            if let Some(piece) = self.reader.take() {
                return Some(Ok(Step::Piece(piece, std::mem::take(&mut self.tokens))));
            }
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return None,
                Phase::Ends(finished) => return Some(finished.map(|finished| Step::End(self.end(finished)))),
                phase => self.phase = phase,
            }
            if let Some(step) = self.go_on().await {
                return Some(Ok(step));
            }
        }
    }

    /// Waits for an event or a parse, whichever comes first, and starts a parse when it is time. Some events are steps.
    async fn go_on(&mut self) -> Option<Step> {
        // The newest text, whatever has come meanwhile.
        while matches!(self.phase, Phase::Grows)
            && let Some(event) = self.events.next().now_or_never()
        {
            let step = self.take(event);
            if step.is_some() {
                return step;
            }
        }
        if self.parse.is_none() && matches!(self.phase, Phase::Grows) && Instant::now() >= self.not_before {
            let job = self.reader.job();
            self.start(job);
        }
        if !self.reader.is_quiet() || matches!(self.phase, Phase::Ends(_)) {
            return None;
        }
        let waits = self.parse.is_none() && self.reader.wants_parser();
        let grows = matches!(self.phase, Phase::Grows);
        let parse = async {
            match &mut self.parse {
                Some(parse) => (&mut parse.result).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = parse => {
                self.parsed(result);
                None
            }
            event = self.events.next(), if grows => self.take(event),
            () = sleep_until(self.not_before), if grows && waits => None,
        }
    }

    fn take(&mut self, event: Option<Event>) -> Option<Step> {
        let finished = match event {
            Some(Event::Delta { text, tokens, logprobs }) => {
                self.tokens += count(&tokens);
                self.reader.push(&text, tokens.len(), logprobs);
                return None;
            }
            Some(Event::Progress(progress)) => return Some(Step::Piece(Piece::Progress(progress), 0)),
            Some(Event::RoutedExperts(routed)) => return Some(Step::Piece(Piece::RoutedExperts(routed), 0)),
            Some(Event::Finished { reason, usage, timings }) => Ok((reason, usage, timings)),
            Some(Event::Failed(error)) => Err(error.into()),
            None => Err(GenerationError::Unfinished),
        };
        self.phase = Phase::Parses(finished);
        // A parse that runs is waited for: what it finds may decide how the rest is read.
        if self.parse.is_none() {
            self.start_last();
        }
        None
    }

    fn start(&mut self, job: Option<Job>) {
        let Some(job) = job else { return };
        let (parser, text, partial) = (self.parser.clone(), job.text.clone(), job.partial);
        self.parse = Some(Parse {
            job,
            started: Instant::now(),
            result: run(move || parser.parse(&text, partial)).boxed(),
        });
    }

    fn start_last(&mut self) {
        let Phase::Parses(finished) = &self.phase else { return };
        let complete = matches!(finished, Ok((reason, ..)) if *reason != engine::FinishReason::Length);
        let job = self.reader.last_job(!complete);
        match job {
            Some(job) => self.start(Some(job)),
            None => self.finish(),
        }
    }

    fn finish(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Parses(finished) | Phase::ParsesAgain(finished) => Phase::Ends(finished),
            phase => phase,
        };
    }

    /// Takes the result of the parse that ran.
    fn parsed(&mut self, result: Result<Result<Message, ChatError>, RunError>) {
        let Some(Parse { job, started, .. }) = self.parse.take() else {
            return;
        };
        let now = Instant::now();
        self.not_before = now + (now - started).saturating_mul(PAUSE).min(MAX_PAUSE);
        let result = match result {
            Ok(result) => result,
            Err(error) => {
                tracing::warn!(%error, "an answer cannot be parsed; the rest of it is content");
                self.reader.give_up();
                self.finish();
                return;
            }
        };
        match &self.phase {
            Phase::ParsesAgain(_) => {
                self.reader.parsed_malformed(&job, result);
                self.finish();
            }
            Phase::Parses(_) if job.is_last() => match self.reader.parsed_last(job, result) {
                Some(again) => {
                    self.start(Some(again));
                    self.phase = match std::mem::replace(&mut self.phase, Phase::Over) {
                        Phase::Parses(finished) => Phase::ParsesAgain(finished),
                        phase => phase,
                    };
                }
                None => self.finish(),
            },
            _ => {
                self.reader.parsed(&job, result);
                self.start_last();
            }
        }
    }

    fn end(&self, (reason, usage, timings): (engine::FinishReason, Usage, Timings)) -> End {
        let reason = match reason {
            engine::FinishReason::StopString(stop) if self.stops.contains(&stop) => FinishReason::EndOfText,
            reason => reason.into(),
        };
        End {
            reason: match reason {
                FinishReason::EndOfText if self.reader.has_calls() => FinishReason::ToolCalls,
                reason => reason,
            },
            usage,
            reasoning_tokens: self.reader.reasoning_tokens().min(usage.completion_tokens),
            timings,
        }
    }
}
