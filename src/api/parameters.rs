//! The fields that all generating endpoints share, and what becomes of them.

use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;
use serde_json::Value;

use super::body::Body;
use super::error::ApiError;
use super::limits;
use crate::engine::{GenerateRequest, ModelCard, Prompt, SamplingOverrides, Token};

/// Sampling and limits of a request. Unknown fields are ignored: clients send all sorts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Common {
    pub(super) model: Option<String>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_k: Option<i64>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    #[serde(alias = "typical")]
    typical_p: Option<f32>,
    #[serde(alias = "repetition_penalty")]
    repeat_penalty: Option<f32>,
    repeat_last_n: Option<i32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    dry_multiplier: Option<f32>,
    dry_base: Option<f32>,
    dry_allowed_length: Option<i32>,
    dry_penalty_last_n: Option<i32>,
    dry_sequence_breakers: Option<Vec<String>>,
    xtc_probability: Option<f32>,
    xtc_threshold: Option<f32>,
    seed: Option<i64>,
    stop: Value,
    stop_token_ids: Option<Vec<Token>>,
    logit_bias: Value,
    ignore_eos: Option<bool>,
    cache_prompt: Option<bool>,
    special: Option<bool>,
    return_progress: Option<bool>,
    // Not supported yet: refused, since ignoring them would give a wrong answer.
    n: Option<i64>,
    best_of: Option<i64>,
    logprobs: Value,
    top_logprobs: Option<i64>,
    response_format: Value,
    grammar: Value,
    json_schema: Value,
    echo: Option<bool>,
    suffix: Value,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
}

/// Fields that are accepted without effect, because clients send them and no answer gets wrong without them.
const IGNORED: &[&str] = &[
    "metadata",
    "store",
    "user",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "verbosity",
    "prediction",
    "parallel_tool_calls",
    "timings_per_token",
];

/// Says once for each ignored field that it has no effect.
fn note_ignored(body: &Body) {
    static NOTED: AtomicU32 = AtomicU32::new(0);
    for (index, field) in IGNORED.iter().enumerate() {
        let bit = 1 << index;
        if !body.field(field).is_null() && NOTED.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            tracing::info!(field, "a request has a field that has no effect here; said once");
        }
    }
}

impl Common {
    /// Reads the fields from a body.
    pub(super) fn of(body: &Body) -> Result<Self, ApiError> {
        note_ignored(body);
        body.read()
    }

    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    pub(super) fn include_usage(&self) -> bool {
        self.stream_options
            .and_then(|options| options.include_usage)
            .unwrap_or(false)
    }

    /// Refuses what would be ignored.
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        let asked = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
        if self.n.is_some_and(|n| n != 1) {
            return Err(ApiError::unsupported("n", "more than one choice"));
        }
        if self.best_of.is_some_and(|n| n != 1) {
            return Err(ApiError::unsupported("best_of", "more than one candidate"));
        }
        if asked(&self.logprobs) || self.top_logprobs.is_some_and(|n| n != 0) {
            return Err(ApiError::unsupported("logprobs", "returning probabilities"));
        }
        if asked(&self.response_format) && self.response_format["type"] != "text" {
            return Err(ApiError::unsupported("response_format", "any format but text"));
        }
        for (field, value) in [("grammar", &self.grammar), ("json_schema", &self.json_schema)] {
            if asked(value) && value != "" {
                return Err(ApiError::unsupported(field, "constrained output"));
            }
        }
        if self.echo == Some(true) {
            return Err(ApiError::unsupported("echo", "returning the prompt"));
        }
        if asked(&self.suffix) && self.suffix != "" {
            return Err(ApiError::unsupported("suffix", "filling in the middle"));
        }
        Ok(())
    }

    fn overrides(&self) -> Result<SamplingOverrides, ApiError> {
        let top_k = match self.top_k {
            // llama-server and vLLM both take values below 1 for "all tokens".
            Some(top_k) if top_k < 1 => Some(0),
            Some(top_k) => Some(u32::try_from(top_k).map_err(|_| ApiError::field("top_k", "`top_k` is too large"))?),
            None => None,
        };
        Ok(SamplingOverrides {
            temperature: self.temperature,
            top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last_n: self.repeat_last_n,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: self.dry_allowed_length,
            dry_penalty_last_n: self.dry_penalty_last_n,
            dry_sequence_breakers: self.dry_sequence_breakers.clone(),
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            // Any whole number is a seed, and a negative one asks for a random one; the low bits decide.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the low bits of a seed"
            )]
            seed: self.seed.filter(|seed| *seed >= 0).map(|seed| seed as u32),
            max_tokens: self.max_completion_tokens.or(self.max_tokens),
        })
    }

    /// The engine's request for a prompt.
    pub(super) fn generate(&self, prompt: Prompt, card: &ModelCard) -> Result<GenerateRequest, ApiError> {
        self.refuse_unsupported()?;
        let overrides = self.overrides()?.or(&card.sampling);
        let stop_tokens = self.stop_token_ids.clone().unwrap_or_default();
        if stop_tokens.len() > limits::STOP_TOKENS {
            let message = format!("`stop_token_ids` has more than {} entries", limits::STOP_TOKENS);
            return Err(ApiError::field("stop_token_ids", message));
        }
        Ok(GenerateRequest {
            prompt,
            sampling: overrides.resolve(logit_bias(&self.logit_bias)?)?,
            max_tokens: overrides.max_tokens,
            stop: stops(&self.stop)?,
            stop_tokens,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            cache_prompt: self.cache_prompt.unwrap_or(true),
            special: self.special.unwrap_or(false),
            progress: self.streams() && self.return_progress.unwrap_or(false),
        })
    }
}

/// A string, a list of strings, or nothing.
fn stops(value: &Value) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::field("stop", "`stop` must be a string or a list of strings");
    let stops: Vec<String> = match value {
        Value::Null => Vec::new(),
        Value::String(stop) => vec![stop.clone()],
        Value::Array(stops) => stops
            .iter()
            .map(|stop| stop.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()?,
        _ => return Err(wrong()),
    };
    if stops.len() > limits::STOPS {
        return Err(ApiError::field(
            "stop",
            format!("`stop` has more than {} entries", limits::STOPS),
        ));
    }
    if stops
        .iter()
        .any(|stop| stop.is_empty() || stop.len() > limits::STOP_BYTES)
    {
        let message = format!("each stop string must have 1 to {} bytes", limits::STOP_BYTES);
        return Err(ApiError::field("stop", message));
    }
    Ok(stops)
}

/// An object from token ids to biases; `false` bans a token.
fn logit_bias(value: &Value) -> Result<Vec<(Token, f32)>, ApiError> {
    let wrong = |what: &str| ApiError::field("logit_bias", format!("`logit_bias`: {what}"));
    let entries = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(entries) => entries,
        _ => return Err(wrong("must be an object from token ids to numbers from -100 to 100")),
    };
    entries
        .iter()
        .map(|(token, bias)| {
            let id = token
                .parse()
                .map_err(|_| wrong(&format!("`{token}` is not a token id")))?;
            let bias = match bias {
                Value::Bool(false) => -100.0,
                bias => bias
                    .as_f64()
                    .ok_or_else(|| wrong(&format!("the bias of {token} is not a number")))?,
            };
            #[expect(
                clippy::cast_possible_truncation,
                reason = "biases beyond f32 are out of range anyway"
            )]
            Ok((id, bias as f32))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn stops_are_strings() {
        assert_eq!(stops(&json!("a")).unwrap(), ["a"]);
        assert_eq!(stops(&json!(["a", "b"])).unwrap(), ["a", "b"]);
        assert!(stops(&json!([""])).is_err());
        assert!(stops(&json!([1])).is_err());
        assert!(stops(&json!(vec!["x"; 17])).is_err());
        assert!(stops(&json!("x".repeat(257))).is_err());
    }

    #[test]
    fn biases_are_numbers() {
        assert_eq!(
            logit_bias(&json!({"5": 1.5, "7": false})).unwrap(),
            [(5, 1.5), (7, -100.0)]
        );
        assert!(logit_bias(&json!({"five": 1})).is_err());
        assert!(logit_bias(&json!([[1, 2]])).is_err());
        assert!(logit_bias(&json!({"1": "x"})).is_err());
    }
}
