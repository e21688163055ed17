//! What a preset adds to a request: defaults of fields, and a system message.

use serde_json::{Map, Value};

use super::body::Body;
use crate::config::PresetConfig;
use crate::generation::{Conversation, Message, Role};
use crate::models::Target;

/// Fields that say the same in other words, or exclude each other: a request that has one of them does not get the preset's.
const SAME: &[&[&str]] = &[
    &["max_tokens", "max_completion_tokens", "n_predict"],
    &["typical_p", "typical"],
    &["repeat_penalty", "repetition_penalty"],
    &[
        "response_format",
        "json_schema",
        "grammar",
        "regex",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "structured_outputs",
    ],
];

/// Variables of templates that are fields of requests, too.
const TEMPLATE_FIELDS: [&str; 2] = ["enable_thinking", "reasoning_effort"];

/// Puts what the preset says into the body where the request says nothing.
pub(super) fn apply(body: &mut Body, preset: &PresetConfig) {
    for (field, value) in fields(preset) {
        let same = SAME.iter().find(|names| names.contains(&field.as_str()));
        let names = same.copied().unwrap_or(&[]);
        if body.field(&field).is_null() && names.iter().all(|name| body.field(name).is_null()) {
            body.set(&field, value);
        }
    }
    let mut variables = variables(preset);
    match body.field("chat_template_kwargs") {
        Value::Null => {}
        Value::Object(given) => variables.extend(given.clone()),
        // A mistake, which is told when it is read.
        _ => return,
    }
    // Also a field of the request comes before a variable of the preset.
    for field in TEMPLATE_FIELDS {
        if !body.field(field).is_null() && body.field("chat_template_kwargs")[field].is_null() {
            variables.remove(field);
        }
    }
    if !variables.is_empty() {
        body.set("chat_template_kwargs", variables.into());
    }
}

/// Begins a conversation with the preset's system message, unless it has one: as with Ollama's models, that of the request
/// takes its place.
pub(super) fn begin(target: &Target, mut conversation: Conversation) -> Conversation {
    let system = target.preset.as_ref().and_then(|preset| preset.config.system.as_ref());
    let has_one = conversation
        .messages
        .first()
        .is_some_and(|first| matches!(first.role, Role::System | Role::Developer));
    if let (Some(system), false) = (system, has_one) {
        conversation
            .messages
            .insert(0, Message::new(Role::System, system.as_str()));
    }
    conversation
}

/// Fields of requests.
fn fields(preset: &PresetConfig) -> Map<String, Value> {
    let sampling = serde_json::to_value(&preset.sampling).unwrap_or_default();
    let mut fields: Map<String, Value> = match sampling {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    };
    if !preset.stop.is_empty() {
        fields.insert("stop".into(), preset.stop.as_slice().into());
    }
    if let Some(format) = &preset.response_format {
        fields.insert("response_format".into(), format.clone().into());
    }
    fields
}

/// Variables of the chat template.
fn variables(preset: &PresetConfig) -> Map<String, Value> {
    let mut variables = preset.chat_template_kwargs.clone().unwrap_or_default();
    if let Some(effort) = preset.reasoning_effort {
        variables.insert("reasoning_effort".into(), effort.into());
    }
    if let Some(thinks) = preset.enable_thinking {
        variables.insert("enable_thinking".into(), thinks.into());
    }
    variables
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::config::{Environment, Overrides, load_text};

    fn preset(lines: &str) -> PresetConfig {
        let text = format!(
            "[[model]]\nname = \"m\"\npath = \"demo:reasoner\"\n[[preset]]\nname = \"p\"\nmodel = \"m\"\n{lines}"
        );
        let loaded = load_text(&text, Path::new("m.toml"), &Overrides::default(), &Environment::new());
        loaded.unwrap().config.presets.remove(0)
    }

    #[track_caller]
    fn check(lines: &str, request: Value, expect: Value) {
        let mut body = Body::of_value(request);
        apply(&mut body, &preset(lines));
        let fields: Map<String, Value> = body
            .fields()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        assert_eq!(Value::Object(fields), expect);
    }

    #[test]
    fn what_a_request_says_comes_first() {
        let lines =
            "stop = [\"x\"]\nsampling = { temperature = 0.5, top_k = 3, max_tokens = 9, repeat_penalty = 1.5 }\n";
        check(
            lines,
            json!({}),
            json!({"temperature": 0.5, "top_k": 3, "max_tokens": 9, "repeat_penalty": 1.5, "stop": ["x"]}),
        );
        // A null says nothing; other words for the same do.
        check(
            lines,
            json!({"temperature": 0.75, "top_k": null, "n_predict": 4, "repetition_penalty": 2, "stop": []}),
            json!({"temperature": 0.75, "top_k": 3, "n_predict": 4, "repetition_penalty": 2, "stop": []}),
        );
    }

    #[test]
    fn a_format_of_the_request_takes_the_place_of_the_preset_s() {
        let lines = "response_format = { type = \"json_object\" }\n";
        check(lines, json!({}), json!({"response_format": {"type": "json_object"}}));
        check(
            lines,
            json!({"grammar": "root ::= \"a\""}),
            json!({"grammar": "root ::= \"a\""}),
        );
        let text = json!({"response_format": {"type": "text"}});
        check(lines, text.clone(), text);
    }

    #[test]
    fn variables_of_the_template_are_merged() {
        let lines = "enable_thinking = false\nreasoning_effort = \"low\"\nchat_template_kwargs = { a = 1, b = 2 }\n";
        check(
            lines,
            json!({"chat_template_kwargs": {"b": 3, "enable_thinking": true}}),
            json!({"chat_template_kwargs": {"a": 1, "b": 3, "reasoning_effort": "low", "enable_thinking": true}}),
        );
        check(
            lines,
            json!({"reasoning_effort": "high"}),
            json!({"reasoning_effort": "high", "chat_template_kwargs": {"a": 1, "b": 2, "enable_thinking": false}}),
        );
        check(
            lines,
            json!({"chat_template_kwargs": 5}),
            json!({"chat_template_kwargs": 5}),
        );
    }
}
