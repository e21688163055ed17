//! Fields of requests that hearth does not read: which of them must be refused, and which only have no effect.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use serde_json::Value;

use super::body::Body;
use super::error::ApiError;

/// A field that asks for what hearth does not do. To ignore it would give a wrong answer.
pub(super) struct Refused {
    pub(super) fields: &'static [&'static str],
    what: &'static str,
    /// Whether this value asks for it.
    asks: fn(&Value) -> bool,
}

pub(super) const REFUSED: &[Refused] = &[
    Refused {
        fields: &["best_of", "use_beam_search"],
        what: "more than one candidate",
        asks: |value| asks(value) && value.as_f64() != Some(1.0),
    },
    Refused {
        fields: &["prompt_logprobs"],
        what: "probabilities of the prompt",
        // 0 asks for those of its tokens alone.
        asks: |value| asks(value) || value.as_f64().is_some_and(|count| count >= 0.0),
    },
    Refused {
        fields: &["post_sampling_probs"],
        what: "probabilities after sampling",
        asks,
    },
    Refused {
        fields: &["adaptive_target"],
        what: "adaptive sampling",
        asks: |value| !value.is_null() && value.as_f64().is_none_or(|target| target >= 0.0),
    },
    Refused {
        fields: &["min_keep"],
        what: "a least number of candidates",
        asks: |value| asks(value) && value.as_f64() != Some(1.0),
    },
    Refused {
        fields: &["bad_words", "allowed_token_ids"],
        what: "a choice of tokens other than by `logit_bias`",
        asks,
    },
    Refused {
        fields: &["min_tokens"],
        what: "a least number of tokens",
        asks,
    },
    Refused {
        fields: &["t_max_predict_ms"],
        what: "a limit of time",
        asks,
    },
    Refused {
        fields: &["n_indent"],
        what: "a least indentation",
        asks,
    },
    Refused {
        fields: &["lora"],
        what: "a choice of adapters",
        asks,
    },
    Refused {
        fields: &["functions", "function_call"],
        what: "the old form of `tools` and `tool_choice`",
        asks,
    },
    Refused {
        fields: &["modalities"],
        what: "anything but text",
        asks: |value| {
            asks(value)
                && value
                    .as_array()
                    .is_none_or(|list| list.iter().any(|item| item != "text"))
        },
    },
    Refused {
        fields: &["audio"],
        what: "anything but text",
        asks,
    },
    Refused {
        fields: &["web_search_options"],
        what: "search on the web",
        asks: Value::is_object,
    },
    Refused {
        fields: &["chat_template"],
        what: "a template of the request",
        asks,
    },
    Refused {
        fields: &["truncate_prompt_tokens"],
        what: "cutting the prompt",
        asks,
    },
    Refused {
        fields: &["include_stop_str_in_output"],
        what: "stop strings in the answer",
        asks,
    },
    Refused {
        fields: &["response_fields", "return_tokens", "return_token_ids"],
        what: "a choice of what is returned",
        asks,
    },
];

/// Whether a value is not one of those that mean "off".
fn asks(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64().is_none_or(|number| number > 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Refuses what is not supported, and says once for each further field that is not in `known` that it has no effect.
pub(super) fn judge(body: &Body, known: &BTreeSet<String>) -> Result<(), ApiError> {
    /// A client cannot fill the log, or the memory, with names that it makes up.
    const MAX_NAMES: usize = 64;
    const MAX_NAME_BYTES: usize = 64;
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    for (field, value) in body.fields().filter(|(field, _)| !known.contains(*field)) {
        if let Some(refused) = REFUSED.iter().find(|refused| refused.fields.contains(&field.as_str())) {
            if (refused.asks)(value) {
                return Err(ApiError::unsupported(field, refused.what));
            }
            continue;
        }
        if value.is_null() || field.len() > MAX_NAME_BYTES {
            continue;
        }
        let mut told = TOLD.lock();
        if told.len() < MAX_NAMES && told.insert(field.clone()) {
            tracing::info!(field, "a request has a field that has no effect here (said once)");
        }
    }
    Ok(())
}
