//! The fields that all generating endpoints share, and what becomes of them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::Body;
use super::error::ApiError;
use super::format;
use super::limits;
use super::other_fields;
use crate::engine::{SamplerKind, SamplingOverrides, Token};
use crate::generation::{BiasTarget, Options, OutputFormat};

/// Sampling and limits of a request, by the names of OpenAI, llama-server and vLLM.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Parameters {
    /// Name, alias or role; the first model if not given.
    pub(super) model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// Tokens to generate at most; -1 is as many as fit. The first of `n_predict`, `max_completion_tokens` and
    /// `max_tokens` that is given counts.
    max_tokens: Option<Integer>,
    max_completion_tokens: Option<Integer>,
    n_predict: Option<Integer>,
    temperature: Option<f32>,
    dynatemp_range: Option<f32>,
    dynatemp_exponent: Option<f32>,
    mirostat: Option<Integer>,
    mirostat_tau: Option<f32>,
    mirostat_eta: Option<f32>,
    top_k: Option<Integer>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    top_n_sigma: Option<f32>,
    typical_p: Option<f32>,
    /// Another name of `typical_p`.
    typical: Option<f32>,
    repeat_penalty: Option<f32>,
    /// Another name of `repeat_penalty`.
    repetition_penalty: Option<f32>,
    repeat_last_n: Option<Integer>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    dry_multiplier: Option<f32>,
    dry_base: Option<f32>,
    dry_allowed_length: Option<Integer>,
    dry_penalty_last_n: Option<Integer>,
    dry_sequence_breakers: Option<Vec<String>>,
    xtc_probability: Option<f32>,
    xtc_threshold: Option<f32>,
    /// Names of samplers in the order in which they are applied, or llama-server's letters for them in one string.
    samplers: Value,
    seed: Option<Integer>,
    /// A string or a list of strings.
    stop: Value,
    stop_token_ids: Option<Vec<Token>>,
    /// From token ids or texts to numbers: an object, or a list of pairs; `false` bans a token.
    logit_bias: Value,
    ignore_eos: Option<bool>,
    cache_prompt: Option<bool>,
    special: Option<bool>,
    return_progress: Option<bool>,
    /// Choices for each prompt.
    n: Option<Integer>,
    /// Another name of `n`.
    n_cmpl: Option<Integer>,
    /// How likely each token was: true or false with `top_logprobs`, or a number that stands for both.
    logprobs: Value,
    /// How many of the likeliest tokens are told with each.
    top_logprobs: Option<Integer>,
    /// Another name of `top_logprobs`, which needs no `logprobs`.
    n_probs: Option<Integer>,
    #[serde(skip)]
    format: OutputFormat,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// A whole number; `1.0` is one, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
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
    "reasoning_effort",
    "reasoning_format",
    "suffix",
    "tool_choice",
    "tools",
];

/// All fields that have an effect.
static KNOWN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let schema = schemars::schema_for!(Parameters);
    let fields = schema.get("properties").and_then(Value::as_object);
    let fields = fields.into_iter().flat_map(|fields| fields.keys().cloned());
    fields
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
            progress: self.streams() && self.return_progress.unwrap_or(false),
            format: self.format.clone(),
            choices: self.choices()?,
            logprobs: self.logprobs()?,
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
            mirostat: signed("mirostat", self.mirostat)?.map(|version| u32::try_from(version).unwrap_or(0)),
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

#[cfg(test)]
mod tests {
    use super::super::other_fields::REFUSED;
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<Options, String> {
        let read = || Parameters::of(&Body::of_value(body))?.options();
        read().map_err(|error| error.to_string())
    }

    #[track_caller]
    fn refused(body: Value, expect: &str) {
        let message = read(body.clone()).expect_err(&body.to_string());
        assert!(message.contains(expect), "{body}: {message}");
    }

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
    fn biases_are_for_tokens_and_texts() {
        let token = BiasTarget::Token;
        let text = |text: &str| BiasTarget::Text(text.into());
        let off = f32::NEG_INFINITY;
        let expect = vec![(token(5), 1.5), (token(7), off), (text("no"), -2.0)];
        assert_eq!(logit_bias(&json!({"5": 1.5, "7": false, "no": -2})).unwrap(), expect);
        assert_eq!(logit_bias(&json!([[5, 1.5], [7, false], ["no", -2]])).unwrap(), expect);
        // In a list a string is a text, whatever it looks like; numbers may be floats.
        assert_eq!(
            logit_bias(&json!([["5", 1], [6.0, 1]])).unwrap(),
            [(text("5"), 1.0), (token(6), 1.0)]
        );
        for value in [
            json!("x"),
            json!({"1": "x"}),
            json!({"1": true}),
            json!({"": 1}),
            json!([1]),
            json!([[1]]),
            json!([[1, 2, 3]]),
            json!([[1.5, 2]]),
            json!([[null, 2]]),
            json!([["x".repeat(257), 2]]),
            json!(vec![json!([1, 1]); limits::BIASES + 1]),
        ] {
            assert!(logit_bias(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn numbers_of_tokens_have_several_names_and_forms() {
        let tokens = |body| read(body).unwrap().sampling.max_tokens;
        assert_eq!(tokens(json!({})), None);
        assert_eq!(tokens(json!({"max_tokens": null})), None);
        assert_eq!(tokens(json!({"max_tokens": 1.0})), Some(1));
        assert_eq!(tokens(json!({"max_tokens": 5, "max_completion_tokens": 4})), Some(4));
        assert_eq!(tokens(json!({"max_tokens": 5, "n_predict": 3})), Some(3));
        for name in ["max_tokens", "max_completion_tokens", "n_predict"] {
            assert_eq!(tokens(json!({ (name): -1 })), Some(i32::MAX.unsigned_abs()));
            refused(json!({ (name): -2 }), &format!("`{name}` is -2"));
            refused(json!({ (name): 0 }), &format!("`{name}` is 0"));
            refused(json!({ (name): 1.5 }), &format!("`{name}`: invalid value"));
            refused(json!({ (name): "many" }), &format!("`{name}`: invalid type"));
        }
        let sampling = read(json!({"top_k": -1.0, "seed": 7.0, "repeat_last_n": -1}))
            .unwrap()
            .sampling;
        assert_eq!(
            (sampling.top_k, sampling.seed, sampling.repeat_last_n),
            (Some(0), Some(7), Some(-1))
        );
        refused(json!({"repeat_last_n": 1u64 << 40}), "`repeat_last_n` is 1099511627776");
    }

    #[test]
    fn samplers_have_names_and_letters() {
        use SamplerKind::{Temperature, TopK, TopP};
        let order = |value| read(json!({ "samplers": value })).unwrap().sampling.samplers;
        assert_eq!(order(json!(null)), None);
        assert_eq!(order(json!([])), Some(vec![]));
        assert_eq!(
            order(json!(["temperature", "top_k", "nucleus"])),
            Some(vec![Temperature, TopK, TopP])
        );
        assert_eq!(order(json!("tkp")), Some(vec![Temperature, TopK, TopP]));
        refused(json!({"samplers": ["magic"]}), "`magic`");
        refused(json!({"samplers": "z"}), "`z`");
        refused(json!({"samplers": [1]}), "1 is not the name");
        refused(json!({"samplers": 1}), "must be a list");
    }

    #[test]
    fn probabilities_are_asked_for_in_several_ways() {
        let top = |body| read(body).unwrap().logprobs;
        assert_eq!(top(json!({})), None);
        assert_eq!(top(json!({"logprobs": false, "top_logprobs": null})), None);
        assert_eq!(top(json!({"logprobs": true})), Some(0));
        assert_eq!(top(json!({"logprobs": true, "top_logprobs": 3})), Some(3));
        assert_eq!(top(json!({"logprobs": 2})), Some(2));
        assert_eq!(top(json!({"logprobs": 0})), Some(0));
        assert_eq!(top(json!({"n_probs": 30})), Some(30));
        assert_eq!(top(json!({"n_probs": 0})), None);
        refused(json!({"top_logprobs": 3}), "needs `logprobs`");
        refused(json!({"logprobs": true, "top_logprobs": 21}), "`top_logprobs` is 21");
        refused(json!({"logprobs": "yes"}), "`logprobs` must be");
        refused(json!({"n_probs": -1}), "`n_probs` is -1");
    }

    #[test]
    fn what_cannot_be_done_is_refused_and_what_is_off_is_not() {
        for refused in REFUSED {
            for field in refused.fields {
                for off in [json!(null), json!(-1)] {
                    assert!(read(json!({ (*field): off })).is_ok(), "{field}: {off}");
                }
                let message = read(json!({ (*field): {"x": 5} })).expect_err(field);
                assert!(message.contains(&format!("`{field}`")), "{message}");
            }
        }
        for body in [
            json!({"n": 1}),
            json!({"logprobs": false, "echo": false}),
            json!({"lora": [], "modalities": ["text"], "mirostat": 0}),
            json!({"metadata": {"a": 1}, "user": "u", "made_up": true}),
        ] {
            assert!(read(body.clone()).is_ok(), "{body}");
        }
        refused(json!({"n": 0}), "`n` must be from 1");
        refused(json!({"n": 65}), "`n` must be from 1");
        refused(json!({"reasoning_budget_tokens": 0}), "`reasoning_budget_tokens`");
    }

    #[test]
    fn every_field_is_in_one_list() {
        for field in REFUSED.iter().flat_map(|refused| refused.fields) {
            assert!(!KNOWN.contains(*field), "{field}");
        }
        assert!(KNOWN.contains("temperature") && KNOWN.contains("messages"));
    }
}
