//! Fields of a completion that only llama-server's clients send.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::limits;
use crate::api::parameters::Integer;

/// What [`Fields::take`] takes out of a body.
const FIELDS: &[&str] = &[
    "id_slot",
    "logprobs",
    "n",
    "n_cache_reuse",
    "n_cmpl",
    "n_discard",
    "n_indent",
    "n_keep",
    "n_probs",
    "post_sampling_probs",
    "response_fields",
    "return_progress",
    "return_tokens",
    "sse_ping_interval",
    "t_max_predict_ms",
    "timings_per_token",
];

/// Names of the bound of generated tokens, the first one that is given counts.
const BOUNDS: [&str; 3] = ["n_predict", "max_completion_tokens", "max_tokens"];

/// Numbers that llama-server moves into their range.
const CLAMPED: [(&str, f64, f64); 5] = [
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("xtc_probability", 0.0, 1.0),
    ("xtc_threshold", 0.0, 1.0),
    ("temperature", 0.0, f64::MAX),
];

/// As they are sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sent {
    n_cmpl: Option<Integer>,
    n: Option<Integer>,
    n_probs: Option<Integer>,
    logprobs: Option<Integer>,
    post_sampling_probs: Option<bool>,
    return_tokens: Option<bool>,
    return_progress: Option<bool>,
    timings_per_token: Option<bool>,
    response_fields: Option<Vec<String>>,
    n_indent: Option<Integer>,
    n_keep: Option<Integer>,
    n_discard: Option<Integer>,
    t_max_predict_ms: Option<Integer>,
}

#[derive(Debug)]
pub(super) struct Fields {
    /// Answers to each prompt.
    pub(super) count: usize,
    /// How many of the likeliest tokens are told with each; 0 tells nothing.
    pub(super) probabilities: u32,
    pub(super) return_tokens: bool,
    pub(super) return_progress: bool,
    pub(super) timings_per_token: bool,
    /// Parts of the answer that are wanted; all if empty.
    pub(super) response_fields: Vec<String>,
    pub(super) indent: usize,
    pub(super) time: Option<Duration>,
    /// Without effect: the context is never shifted.
    pub(super) keep: i64,
    pub(super) discard: i64,
    /// As asked: -1 is as many as fit.
    pub(super) predict: Option<i64>,
}

impl Fields {
    /// Takes the fields out of a body, and makes of the others what the endpoints of `/v1` take.
    ///
    /// `slots` is how many answers a prompt may have.
    pub(super) fn take(body: &mut Body, slots: u32) -> Result<Self, ApiError> {
        let sent: Sent = body.take_all(FIELDS).read()?;
        let whole = |field: &'static str, number: Option<Integer>, low: i64, high: i64, default: i64| match number {
            None => Ok(default),
            Some(Integer(number)) if (low..=high).contains(&number) => Ok(number),
            Some(Integer(number)) => {
                let message = format!("`{field}` is {number}, but must be between {low} and {high}");
                Err(ApiError::field(field, message))
            }
        };
        let most = i64::from(i32::MAX);
        let count = whole("n_cmpl", sent.n_cmpl.or(sent.n), 1, slots.into(), 1)?;
        let probabilities = sent
            .n_probs
            .or(sent.logprobs)
            .map_or(0, |Integer(number)| number.max(0));
        if sent.post_sampling_probs == Some(true) {
            return Err(ApiError::unsupported(
                "post_sampling_probs",
                "telling probabilities after sampling",
            ));
        }
        let response_fields = sent.response_fields.unwrap_or_default();
        if response_fields.len() > limits::RESPONSE_FIELDS
            || response_fields.iter().any(|path| path.len() > limits::STOP_BYTES)
        {
            let message = format!(
                "`response_fields` may have {} entries of {} bytes",
                limits::RESPONSE_FIELDS,
                limits::STOP_BYTES
            );
            return Err(ApiError::field("response_fields", message));
        }
        let time = whole("t_max_predict_ms", sent.t_max_predict_ms, -1, i64::MAX, 0)?;
        let predict = predict(body);
        // To llama-server an empty schema means any object; elsewhere it is any value.
        body.change("json_schema", |schema| {
            if schema.as_object().is_some_and(Map::is_empty) {
                *schema = json!({"type": "object"});
            }
        });
        for (field, low, high) in CLAMPED {
            body.change(field, |value| {
                if let Some(number) = value.as_f64().filter(|number| !(low..=high).contains(number)) {
                    *value = number.clamp(low, high).into();
                }
            });
        }
        Ok(Self {
            count: usize::try_from(count).unwrap_or(1),
            probabilities: u32::try_from(probabilities).unwrap_or(u32::MAX),
            return_tokens: sent.return_tokens.unwrap_or(false),
            return_progress: sent.return_progress.unwrap_or(false),
            timings_per_token: sent.timings_per_token.unwrap_or(false),
            response_fields,
            indent: usize::try_from(whole("n_indent", sent.n_indent, 0, most, 0)?).unwrap_or(0),
            time: u64::try_from(time).ok().filter(|ms| *ms > 0).map(Duration::from_millis),
            keep: whole("n_keep", sent.n_keep, -1, most, 0)?,
            discard: whole("n_discard", sent.n_discard, 0, most, 0)?,
            predict,
        })
    }
}

/// The bound of generated tokens as it was sent. A bound of 0 becomes 1: as in llama-server the prompt is computed, and with it
/// comes a first token.
fn predict(body: &mut Body) -> Option<i64> {
    let given = BOUNDS.iter().find(|name| !body.field(name).is_null());
    let mut predict = None;
    if let Some(name) = given {
        body.change(name, |value| {
            predict = value.as_i64();
            if predict == Some(0) {
                *value = Value::from(1);
            }
        });
    }
    predict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(body: Value) -> Result<(Fields, Body), String> {
        let mut body = Body::of_value(body);
        let fields = Fields::take(&mut body, 4).map_err(|error| error.to_string())?;
        Ok((fields, body))
    }

    #[test]
    fn fields_are_taken_out() {
        let (fields, body) =
            take(json!({"n": 2, "n_probs": 3, "n_keep": -1, "t_max_predict_ms": 5, "seed": 1})).unwrap();
        assert_eq!((fields.count, fields.probabilities, fields.keep), (2, 3, -1));
        assert_eq!(fields.time, Some(Duration::from_millis(5)));
        let left: Vec<_> = body.fields().map(|(name, _)| name.as_str()).collect();
        assert_eq!(left, ["seed"]);
        let (fields, _) = take(json!({"n_cmpl": null, "logprobs": 2, "t_max_predict_ms": -1})).unwrap();
        assert_eq!((fields.count, fields.probabilities, fields.time), (1, 2, None));
    }

    #[test]
    fn bounds_and_ranges_are_llama_servers() {
        let (fields, body) = take(json!({"n_predict": 0, "max_tokens": 0, "top_p": 1.5, "temperature": -1})).unwrap();
        assert_eq!((fields.predict, body.field("n_predict")), (Some(0), &json!(1)));
        assert_eq!(
            (body.field("top_p"), body.field("temperature")),
            (&json!(1.0), &json!(0.0))
        );
        let (_, body) = take(json!({"json_schema": {}})).unwrap();
        assert_eq!(body.field("json_schema"), &json!({"type": "object"}));
        let (fields, body) = take(json!({"max_tokens": -1, "top_p": 0.5})).unwrap();
        assert_eq!((fields.predict, body.field("top_p")), (Some(-1), &json!(0.5)));
    }

    #[test]
    fn wrong_values_are_named() {
        for (body, expect) in [
            (json!({"n": 5}), "`n_cmpl` is 5"),
            (json!({"n_cmpl": 0}), "`n_cmpl` is 0"),
            (json!({"n_indent": -1}), "`n_indent` is -1"),
            (json!({"n_probs": "x"}), "`n_probs`: invalid type"),
            (json!({"t_max_predict_ms": -2}), "`t_max_predict_ms` is -2"),
            (json!({"response_fields": vec!["x"; 200]}), "`response_fields` may have"),
            (json!({"response_fields": "content"}), "`response_fields`"),
            (json!({"post_sampling_probs": true}), "`post_sampling_probs`"),
        ] {
            let message = take(body).map(|_| ()).unwrap_err();
            assert!(message.contains(expect), "{message}");
        }
    }
}
