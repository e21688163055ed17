//! Types that the answers of several endpoints share.

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::PrefillProgress;
use crate::generation::{self, Totals};

/// Why an answer ended, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinishReason {
    /// The model ended it, or a stop string did.
    Stop,
    /// `max_tokens` is reached or the context is full.
    Length,
    /// The model calls tools and waits for their results.
    ToolCalls,
}

impl From<&generation::FinishReason> for FinishReason {
    fn from(reason: &generation::FinishReason) -> Self {
        match reason {
            generation::FinishReason::EndOfText | generation::FinishReason::StopString(_) => Self::Stop,
            generation::FinishReason::Length => Self::Length,
            generation::FinishReason::ToolCalls => Self::ToolCalls,
        }
    }
}

/// Token counts, all choices together.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptTokensDetails,
    completion_tokens_details: CompletionTokensDetails,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct PromptTokensDetails {
    /// Tokens that were held of an earlier prompt and not computed again.
    cached_tokens: u32,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct CompletionTokensDetails {
    reasoning_tokens: u32,
}

impl From<&Totals> for Usage {
    fn from(totals: &Totals) -> Self {
        let usage = totals.usage;
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: usage.cached_tokens,
            },
            completion_tokens_details: CompletionTokensDetails {
                reasoning_tokens: totals.reasoning_tokens,
            },
        }
    }
}

/// llama-server's `timings`; other programs read them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Timings {
    /// Prompt tokens that were held of an earlier prompt.
    cache_n: u32,
    /// Prompt tokens that were computed.
    prompt_n: u32,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    /// Generated tokens.
    predicted_n: u32,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
    /// Guesses for tokens that were computed, and those that were right; left out where none were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    draft_n: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    draft_n_accepted: Option<u32>,
}

impl From<&Totals> for Timings {
    fn from(Totals { usage, timings, .. }: &Totals) -> Self {
        let computed = usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens);
        let per_second = |count: u32, seconds: f64| if seconds > 0.0 { f64::from(count) / seconds } else { 0.0 };
        let per_token = |seconds: f64, count: u32| seconds * 1e3 / f64::from(count.max(1));
        let (prompt, predicted) = (timings.prefill.as_secs_f64(), timings.decode.as_secs_f64());
        // The first token belongs to the prefill: the decode rate counts the steps after it.
        let steps = usage.completion_tokens.saturating_sub(1);
        let drafted = usage.draft_tokens > 0;
        Self {
            cache_n: usage.cached_tokens,
            prompt_n: computed,
            prompt_ms: prompt * 1e3,
            prompt_per_token_ms: per_token(prompt, computed),
            prompt_per_second: per_second(computed, prompt),
            predicted_n: usage.completion_tokens,
            predicted_ms: predicted * 1e3,
            predicted_per_token_ms: per_token(predicted, steps),
            predicted_per_second: per_second(steps, predicted),
            draft_n: drafted.then_some(usage.draft_tokens),
            draft_n_accepted: drafted.then_some(usage.accepted_tokens),
        }
    }
}

/// How far the prefill is, in tokens.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct PromptProgress {
    total: u32,
    cache: u32,
    processed: u32,
    time_ms: f64,
}

impl From<&PrefillProgress> for PromptProgress {
    fn from(progress: &PrefillProgress) -> Self {
        Self {
            total: progress.total,
            cache: progress.cached,
            processed: progress.processed,
            time_ms: progress.elapsed.as_secs_f64() * 1e3,
        }
    }
}

/// What every answer and chunk in OpenAI's form begins with.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Envelope {
    id: String,
    object: &'static str,
    /// Seconds since the epoch.
    created: u64,
    model: String,
    /// The version that answered.
    system_fingerprint: &'static str,
}

impl Envelope {
    /// With a new id that begins with `prefix`.
    pub(super) fn new(prefix: &str, object: &'static str, model: &str) -> Self {
        Self {
            id: format!("{prefix}-{}", uuid::Uuid::new_v4().simple()),
            object,
            created: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            model: model.to_owned(),
            system_fingerprint: concat!("hearth-", env!("CARGO_PKG_VERSION")),
        }
    }

    /// Another model answers.
    pub(super) fn served_by(&mut self, model: &str) {
        model.clone_into(&mut self.model);
    }

    /// The same answer as another kind of object.
    pub(super) fn as_object(&self, object: &'static str) -> Self {
        Self { object, ..self.clone() }
    }
}
