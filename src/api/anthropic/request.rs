//! Requests in Anthropic's form, put into the fields that all endpoints share.

use serde_json::{Value, json};

use super::content;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::limits;
use crate::api::openai::conversation;
use crate::api::parameters::Parameters;
use crate::generation::{Conversation, Tool, ToolChoice};

/// What a request asks for.
pub(super) struct Request {
    pub(super) parameters: Parameters,
    pub(super) conversation: Conversation,
}

/// A request for a message.
pub(super) fn read(body: Body) -> Result<Request, ApiError> {
    if body.field("max_tokens").is_null() {
        return Err(ApiError::field("max_tokens", "`max_tokens` is missing"));
    }
    read_to_count(body)
}

/// A request that need not say how long the answer may be.
pub(super) fn read_to_count(mut body: Body) -> Result<Request, ApiError> {
    let messages = content::messages(&body.take("system"), &body.take("messages"))?;
    let tools = tools(&body.take("tools"))?;
    let (tool_choice, parallel) = tool_choice(&body.take("tool_choice"))?;
    let thinking = thinking(&mut body)?;
    stop_sequences(&mut body)?;
    output_config(&mut body)?;
    let mut conversation = conversation::of_messages(&body, messages)?;
    if let Value::String(effort) = body.field("reasoning_effort") {
        // Also before that of a preset.
        conversation
            .variables
            .insert("reasoning_effort".into(), effort.as_str().into());
    }
    Ok(Request {
        parameters: Parameters::of(&body)?,
        conversation: Conversation {
            tools,
            tool_choice,
            parallel_tool_calls: Some(parallel),
            thinking: thinking.or(conversation.thinking),
            ..conversation
        },
    })
}

fn wrong(path: &str, what: &str) -> ApiError {
    ApiError::field(path, format!("`{path}` {what}"))
}

fn tools(tools: &Value) -> Result<Vec<Tool>, ApiError> {
    let list = match tools {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(wrong("tools", "must be a list")),
    };
    if list.len() > limits::TOOLS {
        return Err(wrong("tools", &format!("has more than {} entries", limits::TOOLS)));
    }
    (0..).zip(list).map(|(index, value)| tool(index, value)).collect()
}

fn tool(index: usize, tool: &Value) -> Result<Tool, ApiError> {
    let path = |field: &str| format!("tools[{index}]{field}");
    match &tool["type"] {
        Value::Null if tool.is_object() => {}
        Value::String(kind) if kind == "custom" => {}
        Value::String(kind) => {
            let what =
                format!("is `{kind}`, a tool of Anthropic's servers; there are only tools with an `input_schema` here");
            return Err(wrong(&path(".type"), &what));
        }
        _ => return Err(wrong(&path(""), "must be an object with `name` and `input_schema`")),
    }
    let description = match &tool["description"] {
        Value::Null => "",
        Value::String(text) => text,
        _ => return Err(wrong(&path(".description"), "must be a string")),
    };
    let Some(name) = tool["name"].as_str() else {
        return Err(wrong(&path(".name"), "is missing or not a string"));
    };
    let parameters = match &tool["input_schema"] {
        schema @ Value::Object(_) => schema.clone(),
        Value::Null => return Err(wrong(&path(".input_schema"), "is missing")),
        _ => return Err(wrong(&path(".input_schema"), "must be a JSON schema, an object")),
    };
    Ok(Tool {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters,
    })
}

/// The choice, and whether several calls may come at once.
fn tool_choice(choice: &Value) -> Result<(ToolChoice, bool), ApiError> {
    if choice.is_null() {
        return Ok((ToolChoice::Auto, true));
    }
    let kind = match (choice["type"].as_str(), choice["name"].as_str()) {
        (Some("auto"), _) => ToolChoice::Auto,
        (Some("any"), _) => ToolChoice::Required,
        (Some("none"), _) => ToolChoice::None,
        (Some("tool"), Some(name)) => ToolChoice::Named(name.to_owned()),
        (Some("tool"), None) => return Err(wrong("tool_choice.name", "is missing")),
        _ => {
            return Err(wrong(
                "tool_choice.type",
                "must be \"auto\", \"any\", \"tool\" or \"none\"",
            ));
        }
    };
    let parallel = match &choice["disable_parallel_tool_use"] {
        Value::Null => true,
        Value::Bool(disabled) => !disabled,
        _ => return Err(wrong("tool_choice.disable_parallel_tool_use", "must be true or false")),
    };
    Ok((kind, parallel))
}

/// Whether the model is to think. A budget becomes that of all endpoints.
fn thinking(body: &mut Body) -> Result<Option<bool>, ApiError> {
    let thinking = body.take("thinking");
    if thinking.is_null() {
        return Ok(None);
    }
    match thinking["type"].as_str() {
        Some("disabled") => Ok(Some(false)),
        Some("adaptive") => Ok(Some(true)),
        Some("enabled") => match thinking["budget_tokens"].as_u64() {
            Some(budget) => {
                body.set("reasoning_budget_tokens", budget.into());
                Ok(Some(true))
            }
            None => Err(wrong("thinking.budget_tokens", "must be a whole number of tokens")),
        },
        _ => Err(wrong(
            "thinking.type",
            "must be \"enabled\", \"disabled\" or \"adaptive\"",
        )),
    }
}

fn stop_sequences(body: &mut Body) -> Result<(), ApiError> {
    let stops = body.take("stop_sequences");
    let is_text = |stop: &Value| {
        let length = stop.as_str().map_or(0, str::len);
        (1..=limits::STOP_BYTES).contains(&length)
    };
    match &stops {
        Value::Null => return Ok(()),
        Value::Array(list) if list.len() > limits::STOPS => {
            let what = format!("has more than {} entries", limits::STOPS);
            return Err(wrong("stop_sequences", &what));
        }
        Value::Array(list) if list.iter().all(is_text) => {}
        _ => {
            let what = format!("must be a list of strings of 1 to {} bytes", limits::STOP_BYTES);
            return Err(wrong("stop_sequences", &what));
        }
    }
    body.set("stop", stops);
    Ok(())
}

/// The effort of thinking, and the form of the answer.
fn output_config(body: &mut Body) -> Result<(), ApiError> {
    let config = body.take("output_config");
    match &config["effort"] {
        Value::Null => {}
        effort @ Value::String(_) => body.set("reasoning_effort", effort.clone()),
        _ => return Err(wrong("output_config.effort", "must be a string")),
    }
    let format = &config["format"];
    if format.is_null() {
        return Ok(());
    }
    if format["type"] != "json_schema" {
        return Err(wrong("output_config.format.type", "must be \"json_schema\""));
    }
    if !format["schema"].is_object() {
        return Err(wrong("output_config.format.schema", "must be a JSON schema, an object"));
    }
    let format = json!({"type": "json_schema", "json_schema": {"schema": format["schema"]}});
    body.set("response_format", format);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{OutputFormat, Role};

    fn with(fields: Value) -> Result<Request, String> {
        let mut body = json!({"max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        read(Body::of_value(body)).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_find_their_places() {
        let request = with(json!({
            "model": "m", "system": "be brief", "stream": true, "temperature": 0.5, "top_k": 3,
            "stop_sequences": ["a", "b"], "metadata": {"user_id": "u"},
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
            "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
            "thinking": {"type": "disabled"},
            "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        }));
        let Request {
            parameters,
            conversation,
        } = request.unwrap();
        assert_eq!(conversation.messages[0].role, Role::System);
        assert_eq!(conversation.tools[0].parameters, json!({"type": "object"}));
        assert_eq!(conversation.tool_choice, ToolChoice::Named("f".into()));
        assert_eq!(conversation.parallel_tool_calls, Some(false));
        assert_eq!(conversation.thinking, Some(false));
        assert_eq!(conversation.variables["reasoning_effort"], "low");
        let options = parameters.options().unwrap();
        assert_eq!(
            (options.sampling.max_tokens, options.sampling.top_k),
            (Some(5), Some(3))
        );
        assert_eq!(options.stop, ["a", "b"]);
        assert_eq!(
            options.format,
            OutputFormat::JsonSchema {
                schema: json!({"type": "object"}),
                strict: false
            }
        );
        assert!(parameters.streams());
        assert_eq!(parameters.model.as_deref(), Some("m"));
        let plain = with(json!({"thinking": {"type": "adaptive"}})).unwrap().conversation;
        assert_eq!((plain.thinking, plain.parallel_tool_calls), (Some(true), Some(true)));
        assert_eq!(plain.tool_choice, ToolChoice::Auto);
    }

    #[test]
    fn mistakes_are_named() {
        for (fields, expect) in [
            (json!({"max_tokens": null}), "`max_tokens` is missing"),
            (json!({"max_tokens": 0}), "`max_tokens` is 0"),
            (json!({"tools": 1}), "`tools` must be a list"),
            (json!({"tools": [1]}), "`tools[0]` must be an object"),
            (json!({"tools": [{"name": "f"}]}), "`tools[0].input_schema` is missing"),
            (json!({"tools": [{"input_schema": {}}]}), "`tools[0].name` is missing"),
            (
                json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
                "`tools[0].type` is",
            ),
            (json!({"tool_choice": "auto"}), "`tool_choice.type` must be"),
            (
                json!({"tool_choice": {"type": "tool"}}),
                "`tool_choice.name` is missing",
            ),
            (json!({"thinking": true}), "`thinking.type` must be"),
            (
                json!({"thinking": {"type": "enabled"}}),
                "`thinking.budget_tokens` must be",
            ),
            (json!({"stop_sequences": "x"}), "`stop_sequences` must be"),
            (json!({"stop_sequences": [""]}), "`stop_sequences` must be"),
            (json!({"stop_sequences": vec!["x"; 17]}), "`stop_sequences` has more"),
            (
                json!({"output_config": {"format": {"type": "text"}}}),
                "`output_config.format.type`",
            ),
            (
                json!({"output_config": {"format": {"type": "json_schema"}}}),
                "`output_config.format.schema`",
            ),
        ] {
            let parameters = with(fields.clone())
                .and_then(|request| request.parameters.options().map_err(|error| error.to_string()));
            let message = parameters.expect_err(&fields.to_string());
            assert!(message.contains(expect), "{message}");
        }
        let count = read_to_count(Body::of_value(json!({"messages": [{"role": "user", "content": "x"}]})));
        assert!(count.is_ok());
    }
}
