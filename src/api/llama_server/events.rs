//! What `/completion` answers: events of a stream, or one object.

use serde::Serialize;
use serde_json::{Map, Value};

use super::running::End;
use super::settings::Settings;
use crate::api::wire::{PromptProgress, Timings};
use crate::engine::{Candidate, PrefillProgress, Token, TokenLogprob};
use crate::generation::{FinishReason, Totals};

/// Text, or progress, of a stream.
#[derive(Debug, Serialize)]
pub(super) struct Partial<'e> {
    /// Of the answer.
    index: usize,
    content: &'e str,
    tokens: &'e [Token],
    stop: bool,
    /// Told at the end.
    id_slot: i32,
    /// So far.
    tokens_predicted: u32,
    /// Tokens of the prompt.
    tokens_evaluated: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_progress: Option<PromptProgress>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    completion_probabilities: Vec<Probability>,
}

impl<'e> Partial<'e> {
    pub(super) fn new(index: usize, totals: &Totals, timings: bool) -> Self {
        Self {
            index,
            content: "",
            tokens: &[],
            stop: false,
            id_slot: -1,
            tokens_predicted: totals.usage.completion_tokens,
            tokens_evaluated: totals.usage.prompt_tokens,
            timings: timings.then(|| totals.into()),
            prompt_progress: None,
            completion_probabilities: Vec::new(),
        }
    }

    pub(super) fn progress(self, progress: &PrefillProgress) -> Self {
        Self {
            prompt_progress: Some(progress.into()),
            ..self
        }
    }

    pub(super) fn text(self, content: &'e str, tokens: &'e [Token], logprobs: &[TokenLogprob]) -> Self {
        Self {
            content,
            tokens,
            completion_probabilities: logprobs.iter().map(Probability::of).collect(),
            ..self
        }
    }
}

/// The last event of a stream, or a whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Last<'e> {
    index: usize,
    /// Empty in streams, as `tokens`: both were sent.
    content: String,
    /// Empty unless the request has `return_tokens`.
    tokens: Vec<Token>,
    /// -1 if it is not known.
    id_slot: i64,
    stop: bool,
    model: &'e str,
    tokens_predicted: u32,
    tokens_evaluated: u32,
    generation_settings: &'e Settings,
    prompt: &'e str,
    has_new_line: bool,
    /// The context is full.
    truncated: bool,
    stop_type: &'static str,
    stopping_word: String,
    /// Tokens that the slot holds now.
    tokens_cached: u32,
    timings: Timings,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    completion_probabilities: Vec<Probability>,
}

/// What is the same for all answers to a prompt.
pub(super) struct About<'e> {
    pub(super) model: &'e str,
    pub(super) context: u32,
    pub(super) settings: &'e Settings,
    pub(super) prompt: &'e str,
}

/// What was generated.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) content: String,
    pub(super) tokens: Vec<Token>,
    pub(super) logprobs: Vec<TokenLogprob>,
}

impl<'e> Last<'e> {
    pub(super) fn new(index: usize, about: &About<'e>, text: Text, end: End) -> Self {
        let usage = end.totals.usage;
        let length = usage.prompt_tokens + usage.completion_tokens;
        let (stop_type, stopping_word) = match end.reason {
            FinishReason::EndOfText | FinishReason::ToolCalls => ("eos", String::new()),
            FinishReason::StopString(word) => ("word", word),
            FinishReason::Length => ("limit", String::new()),
        };
        Self {
            index,
            content: text.content,
            tokens: text.tokens,
            id_slot: end.slot.map_or(-1, i64::from),
            stop: true,
            model: about.model,
            tokens_predicted: usage.completion_tokens,
            tokens_evaluated: usage.prompt_tokens,
            generation_settings: about.settings,
            prompt: about.prompt,
            has_new_line: end.has_new_line,
            truncated: stop_type == "limit" && length >= about.context,
            stop_type,
            stopping_word,
            // The last token was not computed any more.
            tokens_cached: length.saturating_sub(1),
            timings: (&end.totals).into(),
            completion_probabilities: text.logprobs.iter().map(Probability::of).collect(),
        }
    }
}

/// How likely a generated token was.
#[derive(Debug, Serialize)]
struct Probability {
    #[serde(flatten)]
    chosen: Likely,
    top_logprobs: Vec<Likely>,
}

#[derive(Debug, Serialize)]
struct Likely {
    id: Token,
    /// Up to the first byte that is not UTF-8.
    token: String,
    bytes: Vec<u8>,
    logprob: f32,
}

impl Probability {
    fn of(logprob: &TokenLogprob) -> Self {
        Self {
            chosen: Likely::of(&logprob.chosen),
            top_logprobs: logprob.top.iter().map(Likely::of).collect(),
        }
    }
}

impl Likely {
    fn of(candidate: &Candidate) -> Self {
        let valid = candidate.bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        Self {
            id: candidate.token,
            token: valid.to_owned(),
            bytes: candidate.bytes.clone(),
            // JSON has no infinity.
            logprob: candidate.logprob.max(f32::MIN),
        }
    }
}

/// The parts of an answer that `response_fields` names, each under its path; what is not there is left out.
pub(super) fn select(answer: Value, paths: &[String]) -> Value {
    if paths.is_empty() {
        return answer;
    }
    let found = paths.iter().filter_map(|path| {
        let value = path
            .split('/')
            .try_fold(&answer, |value, key| value.as_object()?.get(key))?;
        Some((path.clone(), value.clone()))
    });
    found.collect::<Map<String, Value>>().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_selected_by_their_paths() {
        let answer = json!({"content": "x", "a": {"b": {"c": 1}}});
        let select = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            super::select(answer.clone(), &paths)
        };
        assert_eq!(select(&[]), answer);
        assert_eq!(
            select(&["content", "a/b", "a/b/c", "a/x", "content/x", ""]),
            json!({"content": "x", "a/b": {"c": 1}, "a/b/c": 1})
        );
    }

    #[test]
    fn probabilities_are_numbers_and_texts_valid() {
        let candidate = Candidate {
            token: 3,
            bytes: vec![b'a', 0xc3],
            logprob: f32::NEG_INFINITY,
        };
        let likely = serde_json::to_value(Likely::of(&candidate)).unwrap();
        assert_eq!((&likely["token"], &likely["bytes"]), (&json!("a"), &json!([97, 195])));
        assert!(likely["logprob"].as_f64().unwrap() < -1e38);
    }
}
