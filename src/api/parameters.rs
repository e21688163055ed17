//! The fields that all generating endpoints share, and what becomes of them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::body::Body;
use super::described::{LogitBias, Logprobs, Samplers, Stop};
use super::error::ApiError;
use super::format;
use super::limits;
use super::other_fields;
use super::respond::Delivery;
use crate::engine::{SamplerKind, SamplingOverrides, Token};
use crate::generation::{BiasTarget, Options, OutputFormat};

#[cfg(test)]
mod tests;

/// Sampling and limits of a request, by the names of OpenAI, llama-server and vLLM.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct Parameters {
    /// Name, alias or role of a model, or the name of a preset; the first model if not given.
    pub(super) model: Option<String>,
    /// Answer with server-sent events.
    #[schema(default = false)]
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// Tokens to generate at most; -1 is as many as fit. The first of `n_predict`, `max_completion_tokens` and
    /// `max_tokens` that is given counts.
    #[schema(value_type = Option<i64>, minimum = -1)]
    max_tokens: Option<Integer>,
    /// See `max_tokens`.
    #[schema(value_type = Option<i64>, minimum = -1)]
    max_completion_tokens: Option<Integer>,
    /// See `max_tokens`.
    #[schema(value_type = Option<i64>, minimum = -1)]
    n_predict: Option<Integer>,
    /// 0 is greedy; higher is more varied.
    #[schema(minimum = 0, maximum = 10, default = 0.8)]
    temperature: Option<f32>,
    /// The temperature goes from `temperature` - range to `temperature` + range; 0 is off.
    #[schema(minimum = 0, maximum = 10, default = 0)]
    dynatemp_range: Option<f32>,
    /// How entropy becomes temperature.
    #[schema(minimum = 0, maximum = 100, default = 1)]
    dynatemp_exponent: Option<f32>,
    /// Version of Mirostat; 0 is off.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 2, default = 0)]
    mirostat: Option<Integer>,
    /// The surprise that Mirostat aims at.
    #[schema(minimum = 0, maximum = 100, default = 5)]
    mirostat_tau: Option<f32>,
    /// How fast Mirostat learns.
    #[schema(minimum = 0, maximum = 1, default = 0.1)]
    mirostat_eta: Option<f32>,
    /// Keep the k likeliest tokens; 0 and below keeps all.
    #[schema(value_type = Option<i64>, minimum = -2147483648_i64, maximum = 2147483647, default = 40)]
    top_k: Option<Integer>,
    /// Keep the likeliest tokens that together have this probability.
    #[schema(minimum = 0, maximum = 1, default = 0.95)]
    top_p: Option<f32>,
    /// Drop tokens less likely than this share of the likeliest.
    #[schema(minimum = 0, maximum = 1, default = 0.05)]
    min_p: Option<f32>,
    /// Keep tokens within so many standard deviations of the largest logit; 0 and below is off.
    #[schema(minimum = -1, maximum = 100, default = -1)]
    top_n_sigma: Option<f32>,
    /// Locally typical sampling; 1 is off.
    #[schema(minimum = 0, maximum = 1, default = 1)]
    typical_p: Option<f32>,
    /// Another name of `typical_p`.
    #[schema(minimum = 0, maximum = 1)]
    typical: Option<f32>,
    /// Divides the logits of repeated tokens; 1 is off.
    #[schema(minimum = 0.01, maximum = 10, default = 1)]
    repeat_penalty: Option<f32>,
    /// Another name of `repeat_penalty`.
    #[schema(minimum = 0.01, maximum = 10)]
    repetition_penalty: Option<f32>,
    /// Tokens that the penalties look back upon; -1 is the whole context.
    #[schema(value_type = Option<i64>, minimum = -1, maximum = 2147483647, default = 64)]
    repeat_last_n: Option<Integer>,
    /// Lowers the logits of tokens that are there already.
    #[schema(minimum = -2, maximum = 2, default = 0)]
    presence_penalty: Option<f32>,
    /// Lowers the logits of tokens by how often they are there already.
    #[schema(minimum = -2, maximum = 2, default = 0)]
    frequency_penalty: Option<f32>,
    /// Strength of DRY; 0 is off.
    #[schema(minimum = 0, maximum = 100, default = 0)]
    dry_multiplier: Option<f32>,
    /// Growth of DRY's penalty with the length of the repetition.
    #[schema(minimum = 1, maximum = 100, default = 1.75)]
    dry_base: Option<f32>,
    /// Repetitions up to this length are free.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 2147483647, default = 2)]
    dry_allowed_length: Option<Integer>,
    /// Tokens that DRY looks back upon; -1 is the whole context.
    #[schema(value_type = Option<i64>, minimum = -1, maximum = 2147483647, default = -1)]
    dry_penalty_last_n: Option<Integer>,
    /// Texts that end a repetition.
    #[schema(max_items = 64)]
    dry_sequence_breakers: Option<Vec<String>>,
    /// Chance of XTC removing the likeliest tokens; 0 is off.
    #[schema(minimum = 0, maximum = 1, default = 0)]
    xtc_probability: Option<f32>,
    /// Tokens above this probability may be removed by XTC.
    #[schema(minimum = 0, maximum = 1, default = 0.1)]
    xtc_threshold: Option<f32>,
    #[schema(value_type = Option<Samplers>)]
    samplers: Value,
    /// The low 32 bits count; a negative one asks for a random one.
    #[schema(value_type = Option<i64>)]
    seed: Option<Integer>,
    #[schema(value_type = Option<Stop>)]
    stop: Value,
    /// Tokens that end an answer, too.
    #[schema(max_items = 64)]
    stop_token_ids: Option<Vec<Token>>,
    #[schema(value_type = Option<LogitBias>)]
    logit_bias: Value,
    /// Go on after the model's end.
    #[schema(default = false)]
    ignore_eos: Option<bool>,
    /// Reuse what is held of earlier prompts.
    #[schema(default = true)]
    cache_prompt: Option<bool>,
    /// Print control tokens as text.
    #[schema(default = false)]
    special: Option<bool>,
    /// In streams: tell how far the prefill is.
    #[schema(default = false)]
    return_progress: Option<bool>,
    /// In streams: tell with each piece what the answer has taken so far.
    #[schema(default = false)]
    timings_per_token: Option<bool>,
    /// Choices for each prompt.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 64, default = 1)]
    n: Option<Integer>,
    /// Another name of `n`.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 64)]
    n_cmpl: Option<Integer>,
    #[schema(value_type = Option<Logprobs>)]
    logprobs: Value,
    /// How many of the likeliest tokens are told with each. Needs `logprobs`.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 20)]
    top_logprobs: Option<Integer>,
    /// Another name of `top_logprobs`, which needs no `logprobs`.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 128)]
    n_probs: Option<Integer>,
    /// Tell which experts of each layer computed each token. For models with an expert cache; at most 8192 tokens are generated
    /// then.
    #[schema(default = false)]
    return_routed_experts: Option<bool>,
    #[serde(skip)]
    format: OutputFormat,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
struct StreamOptions {
    /// End with a chunk that tells the token counts.
    include_usage: Option<bool>,
}

/// A whole number; `1.0` is one, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Integer(pub(super) i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Integer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Integer, E> {
                Ok(Integer(number))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Integer, E> {
                i64::try_from(number)
                    .map(Integer)
                    .map_err(|_| E::custom("the number is too large"))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Integer, E> {
                /// Up to here every whole number is a float of its own.
                const EXACT: f64 = 9_007_199_254_740_992.0;
                if number.fract() != 0.0 || number.abs() > EXACT {
                    return Err(E::invalid_value(serde::de::Unexpected::Float(number), &self));
                }
                #[expect(clippy::cast_possible_truncation, reason = "whole and within i64")]
                Ok(Integer(number as i64))
            }
        }
        deserializer.deserialize_any(Whole)
    }
}

/// Fields of requests that are read by other types.
const READ_ELSEWHERE: &[&str] = &[
    "add_generation_prompt",
    "chat_template_kwargs",
    "continue_final_message",
    "echo",
    "messages",
    "parallel_tool_calls",
    "prompt",
    "raw",
    "reasoning_budget_tokens",
    "reasoning_effort",
    "reasoning_format",
    "suffix",
    "system",
    "thinking_budget_tokens",
    "tool_choice",
    "tools",
];

/// All fields that have an effect.
pub(super) static KNOWN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let fields = match Parameters::schema() {
        RefOr::T(Schema::Object(object)) => object.properties.into_keys().collect(),
        _ => Vec::new(),
    };
    fields
        .into_iter()
        .chain(
            READ_ELSEWHERE
                .iter()
                .chain(&format::FIELDS)
                .map(|name| (*name).to_owned()),
        )
        .collect()
});

impl Parameters {
    /// Reads the fields from a body.
    pub(super) fn of(body: &Body) -> Result<Self, ApiError> {
        other_fields::judge(body, &KNOWN)?;
        Ok(Self {
            format: format::read(body)?,
            ..body.read()?
        })
    }

    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// How the answer is given out.
    pub(super) fn delivery(&self) -> Delivery {
        Delivery {
            streams: self.streams(),
            timings_per_token: self.timings_per_token.unwrap_or(false),
            progress: self.return_progress.unwrap_or(false),
        }
    }

    pub(super) fn include_usage(&self) -> bool {
        self.stream_options
            .and_then(|options| options.include_usage)
            .unwrap_or(false)
    }

    /// What the model is to do.
    pub(super) fn options(&self) -> Result<Options, ApiError> {
        let stop_tokens = self.stop_token_ids.clone().unwrap_or_default();
        if stop_tokens.len() > limits::STOP_TOKENS {
            let message = format!("`stop_token_ids` has more than {} entries", limits::STOP_TOKENS);
            return Err(ApiError::field("stop_token_ids", message));
        }
        Ok(Options {
            sampling: self.sampling()?,
            logit_bias: logit_bias(&self.logit_bias)?,
            stop: stops(&self.stop)?,
            stop_tokens,
            ignore_eos: self.ignore_eos.unwrap_or(false),
            cache_prompt: self.cache_prompt.unwrap_or(true),
            special: self.special.unwrap_or(false),
            // Timings need the prompt's as well.
            progress: self.streams()
                && (self.return_progress.unwrap_or(false) || self.timings_per_token.unwrap_or(false)),
            format: self.format.clone(),
            choices: self.choices()?,
            logprobs: self.logprobs()?,
            routed_experts: self.return_routed_experts.unwrap_or(false),
        })
    }

    fn choices(&self) -> Result<u32, ApiError> {
        let given = [("n", self.n), ("n_cmpl", self.n_cmpl)];
        let Some((field, number)) = given.into_iter().find_map(|(field, number)| Some((field, number?.0))) else {
            return Ok(1);
        };
        let number = u32::try_from(number)
            .ok()
            .filter(|number| (1..=limits::CHOICES).contains(number));
        number.ok_or_else(|| ApiError::field(field, format!("`{field}` must be from 1 to {}", limits::CHOICES)))
    }

    /// How many of the likeliest tokens are told with each token; `None` for no probabilities at all.
    fn logprobs(&self) -> Result<Option<u32>, ApiError> {
        let count = |field: &str, number: i64, most: u32| {
            let count = u32::try_from(number).ok().filter(|count| *count <= most);
            count.ok_or_else(|| ApiError::field(field, format!("`{field}` is {number}, but must be from 0 to {most}")))
        };
        let top = |field, number: Option<Integer>, most| number.map(|number| count(field, number.0, most)).transpose();
        let top_logprobs = top("top_logprobs", self.top_logprobs, limits::TOP_LOGPROBS)?;
        let n_probs = top("n_probs", self.n_probs, limits::N_PROBS)?.filter(|count| *count > 0);
        let wrong = || ApiError::field("logprobs", "`logprobs` must be true, false or a number");
        match &self.logprobs {
            Value::Null | Value::Bool(false) => match top_logprobs {
                Some(1..) => Err(ApiError::field(
                    "top_logprobs",
                    "`top_logprobs` needs `logprobs` to be true",
                )),
                _ => Ok(n_probs),
            },
            Value::Bool(true) => Ok(Some(top_logprobs.or(n_probs).unwrap_or(0))),
            number => {
                let number: Integer = serde_json::from_value(number.clone()).map_err(|_| wrong())?;
                match number.0 {
                    // llama-server's clients say so for "off".
                    -1 => Ok(n_probs),
                    number => Ok(Some(count("logprobs", number, limits::TOP_LOGPROBS)?)),
                }
            }
        }
    }

    fn sampling(&self) -> Result<SamplingOverrides, ApiError> {
        let signed = |field: &str, number: Option<Integer>| {
            number
                .map(|Integer(number)| {
                    i32::try_from(number)
                        .map_err(|_| ApiError::field(field, format!("`{field}` is {number}, which is out of range")))
                })
                .transpose()
        };
        Ok(SamplingOverrides {
            temperature: self.temperature,
            dynatemp_range: self.dynatemp_range,
            dynatemp_exponent: self.dynatemp_exponent,
            // A version that is not there is refused with the other ranges.
            mirostat: signed("mirostat", self.mirostat)?.map(|version| u32::try_from(version).unwrap_or(u32::MAX)),
            mirostat_tau: self.mirostat_tau,
            mirostat_eta: self.mirostat_eta,
            // llama-server and vLLM both take values below 1 for "all tokens".
            top_k: signed("top_k", self.top_k)?.map(|top_k| u32::try_from(top_k).unwrap_or(0)),
            top_p: self.top_p,
            min_p: self.min_p,
            top_n_sigma: self.top_n_sigma,
            typical_p: self.typical_p.or(self.typical),
            repeat_penalty: self.repeat_penalty.or(self.repetition_penalty),
            repeat_last_n: signed("repeat_last_n", self.repeat_last_n)?,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: signed("dry_allowed_length", self.dry_allowed_length)?,
            dry_penalty_last_n: signed("dry_penalty_last_n", self.dry_penalty_last_n)?,
            dry_sequence_breakers: self.dry_sequence_breakers.clone(),
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            samplers: samplers(&self.samplers)?,
            // Any whole number is a seed, and a negative one asks for a random one; the low bits decide.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the low bits of a seed"
            )]
            seed: self.seed.filter(|seed| seed.0 >= 0).map(|seed| seed.0 as u32),
            max_tokens: self.max_tokens()?,
        })
    }

    fn max_tokens(&self) -> Result<Option<u32>, ApiError> {
        /// More than any context holds.
        const AS_MANY_AS_FIT: u32 = i32::MAX.unsigned_abs();
        let given = [
            ("n_predict", self.n_predict),
            ("max_completion_tokens", self.max_completion_tokens),
            ("max_tokens", self.max_tokens),
        ];
        let Some((field, number)) = given.into_iter().find_map(|(field, number)| Some((field, number?.0))) else {
            return Ok(None);
        };
        match number {
            -1 => Ok(Some(AS_MANY_AS_FIT)),
            1.. => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX).min(AS_MANY_AS_FIT))),
            _ => {
                let message = format!("`{field}` is {number}, but must be at least 1, or -1 for as many tokens as fit");
                Err(ApiError::field(field, message))
            }
        }
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

/// The order of the sampling chain; `None` leaves it to the model.
fn samplers(value: &Value) -> Result<Option<Vec<SamplerKind>>, ApiError> {
    let wrong = |what: String| ApiError::field("samplers", format!("`samplers`: {what}"));
    let samplers: Result<Vec<SamplerKind>, String> = match value {
        Value::Null => return Ok(None),
        Value::String(letters) => letters.chars().map(SamplerKind::from_letter).collect(),
        Value::Array(names) => names
            .iter()
            .map(|name| match name.as_str() {
                Some(name) => name.parse(),
                None => Err(format!("{name} is not the name of a sampler")),
            })
            .collect(),
        _ => return Err(wrong("must be a list of names, or a string of letters".into())),
    };
    samplers.map(Some).map_err(wrong)
}

/// An object from targets to biases, or a list of pairs. A target is a token id or a text; `false` bans it.
fn logit_bias(value: &Value) -> Result<Vec<(BiasTarget, f32)>, ApiError> {
    let wrong = |what: String| ApiError::field("logit_bias", format!("`logit_bias`: {what}"));
    let text = |text: &str| match text.len() {
        1..=limits::STOP_BYTES => Ok(BiasTarget::Text(text.to_owned())),
        _ => Err(wrong(format!("a text must have 1 to {} bytes", limits::STOP_BYTES))),
    };
    let bias = |target: &dyn fmt::Display, bias: &Value| match bias {
        Value::Bool(false) => Ok(f32::NEG_INFINITY),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "biases beyond f32 are out of range anyway"
        )]
        bias => match bias.as_f64() {
            Some(bias) => Ok(bias as f32),
            None => Err(wrong(format!("the bias of {target} is neither a number nor false"))),
        },
    };
    let entries = match value {
        Value::Null => 0,
        Value::Object(entries) => entries.len(),
        Value::Array(pairs) => pairs.len(),
        _ => {
            return Err(wrong(
                "must be an object from token ids or texts to numbers, or a list of such pairs".into(),
            ));
        }
    };
    if entries > limits::BIASES {
        return Err(wrong(format!("has more than {} entries", limits::BIASES)));
    }
    match value {
        Value::Object(entries) => entries
            .iter()
            .map(|(target, value)| {
                let bias = bias(target, value)?;
                Ok(match target.trim().parse() {
                    Ok(token) => (BiasTarget::Token(token), bias),
                    Err(_) => (text(target)?, bias),
                })
            })
            .collect(),
        Value::Array(pairs) => pairs
            .iter()
            .map(|pair| {
                let Some([target, value]) = pair.as_array().map(Vec::as_slice) else {
                    return Err(wrong(format!("{pair} is not a pair of a token and its bias")));
                };
                let bias = bias(target, value)?;
                let target = match target {
                    Value::String(target) => text(target)?,
                    target => {
                        let token: Result<Integer, _> = serde_json::from_value(target.clone());
                        let token = token.ok().and_then(|token| Token::try_from(token.0).ok());
                        BiasTarget::Token(
                            token.ok_or_else(|| wrong(format!("{target} is neither a token id nor a text")))?,
                        )
                    }
                };
                Ok((target, bias))
            })
            .collect(),
        _ => Ok(Vec::new()),
    }
}
