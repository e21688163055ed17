//! Requests in the form of Responses, put into the fields that all endpoints share.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::input::{Messages, items};
use super::store::Stored;
use super::tools;
use super::wire::{Reasoning, Settings, Text};
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::openai::conversation;
use crate::api::parameters::Parameters;
use crate::generation::Conversation;

/// What a request asks for.
pub(super) struct Request {
    pub(super) parameters: Parameters,
    pub(super) conversation: Conversation,
    /// What the response tells back.
    pub(super) settings: Settings,
    /// The request's own items, as JSON.
    pub(super) input: Vec<u8>,
}

/// The most likely tokens that are told beside each.
const MAX_TOP_LOGPROBS: u64 = 20;

fn wrong(path: &str, what: &str) -> ApiError {
    ApiError::field(path, format!("`{path}` {what}"))
}

/// A request that continues these responses, oldest first, and refers to items of others.
pub(super) fn read(mut body: Body, chain: &[Arc<Stored>], referenced: &[Arc<Stored>]) -> Result<Request, ApiError> {
    refuse(&body)?;
    let instructions = optional_string(&mut body, "instructions")?;
    let mut messages = Messages::new(instructions.as_deref());
    for stored in chain {
        let (input, output) = parts(stored)?;
        messages.extend("previous_response_id", &input)?;
        messages.extend("previous_response_id", &output)?;
    }
    let mut items = items(body.take("input"))?;
    resolve(&mut items, referenced)?;
    messages.extend("input", &items)?;
    let tools = tools::read(body.take("tools"), body.take("tool_choice"))?;
    let max_output_tokens = max_output_tokens(&mut body)?;
    let reasoning = reasoning(&mut body)?;
    let top_logprobs = logprobs(&mut body)?;
    let settings = Settings {
        instructions,
        max_output_tokens,
        max_tool_calls: body.take("max_tool_calls"),
        metadata: metadata(body.take("metadata"))?,
        parallel_tool_calls: !matches!(body.field("parallel_tool_calls"), Value::Bool(false)),
        previous_response_id: optional_string(&mut body, "previous_response_id")?,
        prompt_cache_key: body.take("prompt_cache_key"),
        safety_identifier: body.take("safety_identifier"),
        service_tier: "default",
        store: boolean(&mut body, "store")?.unwrap_or(true),
        temperature: body.field("temperature").clone(),
        text: text(&mut body)?,
        tool_choice: tools.told_choice,
        tools: tools.told,
        top_logprobs,
        top_p: body.field("top_p").clone(),
        truncation: truncation(&body.take("truncation"))?,
        user: body.take("user"),
        reasoning,
    };
    let mut conversation = conversation::of_messages(&body, messages.finish())?;
    if let Some(effort) = &settings.reasoning.effort {
        // Also before that of a preset.
        conversation
            .variables
            .insert("reasoning_effort".into(), effort.as_str().into());
    }
    // "none" is an effort of models that can leave it.
    let thinking = (settings.reasoning.effort.as_deref() == Some("none")).then_some(false);
    Ok(Request {
        parameters: Parameters::of(&body)?,
        conversation: Conversation {
            tools: tools.tools,
            tool_choice: tools.choice,
            parallel_tool_calls: Some(settings.parallel_tool_calls),
            thinking: thinking.or(conversation.thinking),
            ..conversation
        },
        settings,
        // Writing JSON values to memory cannot fail.
        input: serde_json::to_vec(&items).unwrap_or_default(),
    })
}

/// What would be wrong to ignore.
fn refuse(body: &Body) -> Result<(), ApiError> {
    if body.field("background") == true {
        return Err(ApiError::unsupported("background", "answering in the background"));
    }
    if !body.field("conversation").is_null() {
        let message = "`conversation` is not supported: there are no conversations that the server keeps; continue a \
                       response by `previous_response_id`";
        return Err(ApiError::field("conversation", message));
    }
    if !body.field("prompt").is_null() {
        return Err(ApiError::unsupported("prompt", "a prompt that the server keeps"));
    }
    Ok(())
}

/// The items that a stored response answered, and its own.
fn parts(stored: &Stored) -> Result<(Vec<Value>, Vec<Value>), ApiError> {
    let broken = |error: serde_json::Error| ApiError::internal(format!("a stored response is broken: {error}"));
    let input = serde_json::from_slice(&stored.input).map_err(broken)?;
    let mut response: Value = serde_json::from_slice(&stored.response).map_err(broken)?;
    match response["output"].take() {
        Value::Array(output) => Ok((input, output)),
        _ => Ok((input, Vec::new())),
    }
}

/// Puts items of responses in the place of references to them. Each is there once, so that a short request stays small.
fn resolve(items: &mut [Value], referenced: &[Arc<Stored>]) -> Result<(), ApiError> {
    let mut known: HashMap<String, Value> = HashMap::new();
    for stored in referenced {
        let (_, output) = parts(stored)?;
        known.extend(
            output
                .into_iter()
                .filter_map(|item| Some((item["id"].as_str()?.to_owned(), item))),
        );
    }
    for item in items.iter_mut().filter(|item| item["type"] == "item_reference") {
        if let Some(found) = item["id"].as_str().and_then(|id| known.remove(id)) {
            *item = found;
        }
    }
    Ok(())
}

fn optional_string(body: &mut Body, field: &str) -> Result<Option<String>, ApiError> {
    match body.take(field) {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        _ => Err(wrong(field, "must be a string")),
    }
}

fn boolean(body: &mut Body, field: &str) -> Result<Option<bool>, ApiError> {
    match body.take(field) {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(value)),
        _ => Err(wrong(field, "must be true or false")),
    }
}

fn max_output_tokens(body: &mut Body) -> Result<Option<u64>, ApiError> {
    let limit = body.take("max_output_tokens");
    if limit.is_null() {
        return Ok(None);
    }
    let tokens = limit.as_u64().filter(|tokens| *tokens > 0);
    let tokens = tokens.ok_or_else(|| wrong("max_output_tokens", "must be a whole number of at least 1"))?;
    body.set("max_tokens", tokens.into());
    Ok(Some(tokens))
}

fn reasoning(body: &mut Body) -> Result<Reasoning, ApiError> {
    let effort = match body.take("reasoning")["effort"].take() {
        Value::Null => return Ok(Reasoning::default()),
        Value::String(effort) => effort,
        _ => return Err(wrong("reasoning.effort", "must be a string")),
    };
    body.set("reasoning_effort", effort.as_str().into());
    Ok(Reasoning::new(Some(effort)))
}

/// Probabilities, if `include` or `top_logprobs` asks for them; the other things to be included are there or do not exist.
fn logprobs(body: &mut Body) -> Result<u64, ApiError> {
    let included = match body.take("include") {
        Value::Null => false,
        Value::Array(list) => list.iter().any(|what| what == "message.output_text.logprobs"),
        _ => return Err(wrong("include", "must be a list")),
    };
    let top = match body.take("top_logprobs") {
        Value::Null => 0,
        number => number.as_u64().filter(|top| *top <= MAX_TOP_LOGPROBS).ok_or_else(|| {
            wrong(
                "top_logprobs",
                &format!("must be a whole number from 0 to {MAX_TOP_LOGPROBS}"),
            )
        })?,
    };
    if included || top > 0 {
        body.set("logprobs", true.into());
        body.set("top_logprobs", top.into());
    }
    Ok(top)
}

fn metadata(metadata: Value) -> Result<Map<String, Value>, ApiError> {
    const MAX_ENTRIES: usize = 16;
    const MAX_KEY: usize = 64;
    const MAX_VALUE: usize = 512;
    let fits = |(key, value): (&String, &Value)| {
        let length = |text: &str| text.chars().count();
        length(key) <= MAX_KEY && value.as_str().is_some_and(|value| length(value) <= MAX_VALUE)
    };
    match metadata {
        Value::Null => Ok(Map::new()),
        Value::Object(entries) if entries.len() <= MAX_ENTRIES && entries.iter().all(fits) => Ok(entries),
        _ => {
            let what = format!(
                "must be an object of at most {MAX_ENTRIES} texts of {MAX_VALUE} characters, with keys of {MAX_KEY} characters"
            );
            Err(wrong("metadata", &what))
        }
    }
}

/// The form of the answer becomes that of all endpoints.
fn text(body: &mut Body) -> Result<Text, ApiError> {
    let mut text = body.take("text");
    let format = match text["format"].take() {
        Value::Null => json!({"type": "text"}),
        format => format,
    };
    let response_format = match format["type"].as_str() {
        Some("text") => None,
        Some("json_object") => Some(json!({"type": "json_object"})),
        Some("json_schema") => {
            if !format["schema"].is_object() {
                return Err(wrong("text.format.schema", "must be a JSON schema, an object"));
            }
            let (name, schema, strict) = (&format["name"], &format["schema"], &format["strict"]);
            Some(json!({"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": strict}}))
        }
        _ => {
            let what = "must be \"text\", \"json_object\" or \"json_schema\"";
            return Err(wrong("text.format.type", what));
        }
    };
    if let Some(response_format) = response_format {
        body.set("response_format", response_format);
    }
    Ok(Text {
        format,
        verbosity: match text["verbosity"].take() {
            Value::Null => "medium".into(),
            verbosity => verbosity,
        },
    })
}

fn truncation(truncation: &Value) -> Result<&'static str, ApiError> {
    match truncation.as_str() {
        None if truncation.is_null() => Ok("disabled"),
        Some("disabled") => Ok("disabled"),
        Some("auto") => Ok("auto"),
        _ => Err(wrong("truncation", "must be \"auto\" or \"disabled\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{OutputFormat, Role, ToolChoice};

    fn with(fields: Value) -> Result<Request, String> {
        let mut body = json!({"input": "x"});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        read(Body::of_value(body), &[], &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_find_their_places() {
        let schema = json!({"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true});
        let request = with(json!({
            "model": "m", "instructions": "be brief", "stream": true, "temperature": 0.5, "max_output_tokens": 7,
            "tools": [{"type": "function", "name": "f"}], "tool_choice": "required", "parallel_tool_calls": false,
            "text": {"format": schema}, "reasoning": {"effort": "low", "summary": "auto"}, "truncation": "auto",
            "metadata": {"a": "b"}, "store": false, "include": ["reasoning.encrypted_content"], "user": "u",
        }))
        .unwrap();
        let conversation = &request.conversation;
        assert_eq!(conversation.messages[0].role, Role::System);
        assert_eq!(conversation.messages[1].content, "x");
        assert_eq!(conversation.tool_choice, ToolChoice::Required);
        assert_eq!(conversation.parallel_tool_calls, Some(false));
        assert_eq!(conversation.variables["reasoning_effort"], "low");
        let options = request.parameters.options().unwrap();
        assert_eq!(options.sampling.max_tokens, Some(7));
        assert_eq!(
            options.format,
            OutputFormat::JsonSchema {
                schema: json!({"type": "object"}),
                strict: true
            }
        );
        let told = serde_json::to_value(&request.settings).unwrap();
        assert_eq!(told["text"], json!({"format": schema, "verbosity": "medium"}));
        assert_eq!(told["reasoning"], json!({"effort": "low", "summary": null}));
        assert_eq!(
            (
                &told["store"],
                &told["truncation"],
                &told["user"],
                &told["metadata"]["a"]
            ),
            (&json!(false), &json!("auto"), &json!("u"), &json!("b"))
        );
        assert_eq!(told["temperature"], 0.5);
        let plain = serde_json::to_value(with(json!({})).unwrap().settings).unwrap();
        assert_eq!(plain["text"]["format"], json!({"type": "text"}));
        assert_eq!(
            (&plain["store"], &plain["parallel_tool_calls"]),
            (&json!(true), &json!(true))
        );
        let none = with(json!({"reasoning": {"effort": "none"}})).unwrap();
        assert_eq!(none.conversation.thinking, Some(false));
    }

    #[test]
    fn a_chain_comes_before_the_input() {
        let stored = |input: Value, output: Value| {
            Arc::new(Stored {
                response: json!({ "output": output }).to_string().into(),
                input: input.to_string().into(),
                previous: None,
            })
        };
        let message = |role: &str, text: &str| json!({"type": "message", "role": role, "content": text});
        let chain = [
            stored(json!([message("user", "a")]), json!([message("assistant", "b")])),
            stored(json!([message("user", "c")]), json!([message("assistant", "d")])),
        ];
        let request = read(Body::of_value(json!({"input": "e", "instructions": "s"})), &chain, &[]).unwrap();
        let texts: Vec<&str> = request
            .conversation
            .messages
            .iter()
            .map(|message| &*message.content)
            .collect();
        assert_eq!(texts, ["s", "a", "b", "c", "d", "e"]);
        let own: Value = serde_json::from_slice(&request.input).unwrap();
        assert_eq!(own.as_array().unwrap().len(), 1);
    }

    #[test]
    fn references_become_items() {
        let output = json!([{"type": "message", "id": "msg_1", "role": "assistant", "content": "b"}]);
        let stored = [Arc::new(Stored {
            response: json!({ "output": output }).to_string().into(),
            input: "[]".into(),
            previous: None,
        })];
        let with = |input: Value| read(Body::of_value(json!({ "input": input })), &[], &stored);
        let reference = json!({"type": "item_reference", "id": "msg_1"});
        let request = with(json!([{"role": "user", "content": "a"}, reference])).unwrap();
        assert_eq!(request.conversation.messages[1].content, "b");
        let own: Value = serde_json::from_slice(&request.input).unwrap();
        assert_eq!(own[1]["content"], "b");
        for (input, expect) in [
            (json!([reference, reference]), "`input[1]` is a reference"),
            (
                json!([{"type": "item_reference", "id": "msg_2"}]),
                "`input[0]` is a reference",
            ),
            (json!([{"type": "item_reference"}]), "`input[0]` is a reference"),
        ] {
            let message = with(input).err().unwrap().to_string();
            assert!(message.contains(expect), "{message}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (fields, expect) in [
            (json!({"background": true}), "`background`"),
            (json!({"conversation": "conv_1"}), "`conversation` is not supported"),
            (json!({"prompt": {"id": "x"}}), "`prompt`"),
            (json!({"instructions": 1}), "`instructions` must be a string"),
            (json!({"max_output_tokens": 0}), "`max_output_tokens` must be"),
            (json!({"max_output_tokens": "x"}), "`max_output_tokens` must be"),
            (json!({"store": "x"}), "`store` must be true or false"),
            (json!({"metadata": {"a": 1}}), "`metadata` must be"),
            (json!({"metadata": 1}), "`metadata` must be"),
            (
                json!({"text": {"format": {"type": "yaml"}}}),
                "`text.format.type` must be",
            ),
            (
                json!({"text": {"format": {"type": "json_schema"}}}),
                "`text.format.schema` must be",
            ),
            (json!({"truncation": "x"}), "`truncation` must be"),
            (json!({"top_logprobs": 21}), "`top_logprobs` must be"),
            (json!({"include": "x"}), "`include` must be"),
            (json!({"reasoning": {"effort": 1}}), "`reasoning.effort` must be"),
            (json!({"tools": [{"type": "web_search"}]}), "`tools[0].type`"),
        ] {
            let message = with(fields.clone()).err().unwrap_or_else(|| panic!("{fields}"));
            assert!(message.contains(expect), "{message}");
        }
    }
}
