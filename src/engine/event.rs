//! What an engine sends back while it answers.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;

use super::{EngineError, Token};

/// One step of an answer, in order: any number of `Progress`, any number of `Delta`, `RoutedExperts` where the request asked
/// for them, then one `Finished` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Prefill goes on; only sent when the request asked for it.
    Progress(PrefillProgress),
    /// New text, never empty and never half a character. Text that could become a stop string is held back until
    /// that is decided, so one delta may hold the text of several tokens.
    Delta {
        text: String,
        /// The tokens whose text this delta completes.
        tokens: Vec<Token>,
        /// How likely each of `tokens` was; empty unless the request asked for it.
        logprobs: Vec<TokenLogprob>,
    },
    /// Who computed the answer.
    RoutedExperts(RoutedExperts),
    /// The answer is complete.
    Finished {
        reason: FinishReason,
        usage: Usage,
        timings: Timings,
    },
    /// The answer broke off.
    Failed(EngineError),
}

/// Generated tokens of an answer that tells its experts: the ids are kept until it ends.
pub const MAX_ROUTED_TOKENS: u32 = 8192;

/// By generated token and layer: the experts that the router selected when the token's logits were computed. vLLM's
/// `routed_experts` has this shape.
pub type RoutedExperts = Vec<Vec<Vec<u16>>>;

/// How likely a generated token was: after softmax over the raw logits, before any sampling.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    pub chosen: Candidate,
    /// The likeliest tokens at its place, likeliest first, as many as were asked for.
    pub top: Vec<Candidate>,
}

/// A token that may come, and its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub token: Token,
    /// What it stands for, control tokens included; not always valid UTF-8 by itself.
    pub bytes: Vec<u8>,
    /// Natural logarithm of the probability: 0 is certain.
    pub logprob: f32,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model's own end-of-generation token, or one of the request's stop tokens.
    EndOfText,
    /// One of the request's stop strings.
    StopString(String),
    /// `max_tokens` is reached or the context is full.
    Length,
}

/// Token counts of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    /// Prompt tokens that were not computed again, as a slot or a saved state had them.
    pub cached_tokens: u32,
    /// Guesses for tokens of the answer that were computed, and those that were right.
    pub draft_tokens: u32,
    pub accepted_tokens: u32,
}

/// Where the time of one answer went, measured at engine steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// From `submit` to a slot.
    pub queue: Duration,
    /// From the slot to the first sampled token.
    pub prefill: Duration,
    /// From the first sampled token to the last.
    pub decode: Duration,
}

/// How far the prefill of a prompt is, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefillProgress {
    /// The slot that computes, counted from 0.
    pub slot: u32,
    pub total: u32,
    pub cached: u32,
    /// Tokens present in the slot by now, cached ones included.
    pub processed: u32,
    pub elapsed: Duration,
}

/// The receiving end of one answer. Dropping it cancels the request.
#[derive(Debug)]
pub struct EventStream {
    receiver: UnboundedReceiver<Event>,
}

impl EventStream {
    /// Wraps the channel that an engine sends its events into.
    ///
    /// The channel is unbounded so that an engine never waits for a client; what it can hold is bounded by the
    /// request's `max_tokens`.
    pub fn new(receiver: UnboundedReceiver<Event>) -> Self {
        Self { receiver }
    }

    /// The next event; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        self.receiver.recv().await
    }
}

impl futures_util::Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.receiver.poll_recv(cx)
    }
}
