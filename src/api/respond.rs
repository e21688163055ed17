//! From an engine's events to the shapes of the different endpoints.

use actix_web::HttpResponse;
use serde_json::{Value, json};

use super::error::ApiError;
use super::stream::sse;
use crate::engine::{Event, EventStream, FinishReason, PrefillProgress, Timings, Usage};

/// How one endpoint words an answer. One value serves one response.
pub(super) trait Shape: 'static {
    /// The complete answer.
    fn whole(&self, answer: &Answer) -> Value;

    /// What opens a stream, if anything does.
    fn opening(&mut self) -> Option<Value> {
        None
    }

    /// New text in a stream.
    fn delta(&mut self, text: &str) -> Value;

    /// Progress of the prefill, in a stream that asked for it.
    fn progress(&mut self, progress: &PrefillProgress) -> Option<Value>;

    /// The end of a stream, in one chunk or more.
    fn closing(&mut self, reason: &FinishReason, usage: Usage, timings: Timings) -> Vec<Value>;
}

/// A finished answer.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) reason: FinishReason,
    pub(super) usage: Usage,
    pub(super) timings: Timings,
}

/// Answers as a stream or as a whole. The request was taken: from here on the status is 200, or 500 if the engine fails
/// before a whole answer is complete.
pub(super) async fn respond(events: EventStream, streams: bool, shape: impl Shape) -> Result<HttpResponse, ApiError> {
    if streams {
        return Ok(sse(events, shape));
    }
    let body = shape.whole(&collect(events).await?).to_string();
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}

/// Waits for the whole answer.
///
/// # Cancel safety
/// Dropping the future (the client left) drops the events and so cancels the request.
async fn collect(mut events: EventStream) -> Result<Answer, ApiError> {
    let mut text = String::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Delta { text: delta, .. } => text.push_str(&delta),
            Event::Progress(_) => {}
            Event::Finished { reason, usage, timings } => {
                return Ok(Answer {
                    text,
                    reason,
                    usage,
                    timings,
                });
            }
            Event::Failed(error) => return Err(error.into()),
        }
    }
    Err(ApiError::internal("the engine ended without an answer"))
}

/// `finish_reason` in OpenAI's words.
pub(super) fn finish_reason(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::EndOfText | FinishReason::StopString(_) => "stop",
        FinishReason::Length => "length",
    }
}

pub(super) fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    })
}

/// llama-server's `timings`; other programs read them.
pub(super) fn timings_json(usage: Usage, timings: Timings) -> Value {
    let computed = usage.prompt_tokens - usage.cached_tokens.min(usage.prompt_tokens);
    let per_second = |count: u32, seconds: f64| if seconds > 0.0 { f64::from(count) / seconds } else { 0.0 };
    let (prompt, predicted) = (timings.prefill.as_secs_f64(), timings.decode.as_secs_f64());
    // The first token belongs to the prefill: the decode rate counts the steps after it.
    let steps = usage.completion_tokens.saturating_sub(1);
    json!({
        "cache_n": usage.cached_tokens,
        "prompt_n": computed,
        "prompt_ms": prompt * 1e3,
        "prompt_per_second": per_second(computed, prompt),
        "predicted_n": usage.completion_tokens,
        "predicted_ms": predicted * 1e3,
        "predicted_per_second": per_second(steps, predicted),
    })
}

pub(super) fn progress_json(progress: &PrefillProgress) -> Value {
    json!({
        "total": progress.total, "cache": progress.cached, "processed": progress.processed,
        "time_ms": progress.elapsed.as_secs_f64() * 1e3,
    })
}

/// Seconds since the epoch.
pub(super) fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// An id such as `chatcmpl-…`.
pub(super) fn new_id(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::new_v4().simple())
}

/// What OpenAI calls the system's fingerprint: the version that answered.
pub(super) const FINGERPRINT: &str = concat!("hearth-", env!("CARGO_PKG_VERSION"));
