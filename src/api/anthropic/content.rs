//! Messages and their blocks in Anthropic's form: checked one by one.

use std::collections::HashMap;

use serde_json::Value;

use crate::api::error::ApiError;
use crate::api::openai::conversation::list_of_messages;
use crate::generation::{Message, Role, ToolCall};

/// The conversation: the system's text, if there is one, and the messages. A result of a tool becomes a message of its own.
pub(super) fn messages(system: &Value, messages: &Value) -> Result<Vec<Message>, ApiError> {
    let list = list_of_messages(messages)?;
    let mut out = Vec::with_capacity(list.len() + 1);
    if let Some(text) = system_text(system)? {
        out.push(Message::new(Role::System, text));
    }
    let mut tools = HashMap::new();
    for (index, value) in list.iter().enumerate() {
        read_message(index, value, &mut tools, &mut out)?;
    }
    Ok(out)
}

fn system_text(system: &Value) -> Result<Option<String>, ApiError> {
    match system {
        Value::Null => Ok(None),
        Value::String(text) => Ok((!text.is_empty()).then(|| text.clone())),
        Value::Array(blocks) => {
            let text = texts("system", blocks)?;
            Ok((!text.is_empty()).then_some(text))
        }
        _ => Err(wrong("system", "must be a string or a list of text blocks")),
    }
}

fn wrong(path: &str, what: &str) -> ApiError {
    ApiError::field(path, format!("`{path}` {what}"))
}

/// The texts of blocks, each on a line of its own.
fn texts(path: &str, blocks: &[Value]) -> Result<String, ApiError> {
    let mut out = String::new();
    for (index, block) in blocks.iter().enumerate() {
        append(&mut out, text_of(&format!("{path}[{index}]"), block)?);
    }
    Ok(out)
}

fn append(out: &mut String, text: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(text);
}

/// The text of a block that can be nothing but text.
fn text_of<'b>(path: &str, block: &'b Value) -> Result<&'b str, ApiError> {
    match block["type"].as_str() {
        Some("text") => string(path, block, "text"),
        // A document may be plain text.
        Some("document") if block["source"]["type"] == "text" => {
            string(&format!("{path}.source"), &block["source"], "data")
        }
        Some(other) => {
            let what = format!("is of type `{other}`, which is not possible here; this model reads only text");
            Err(wrong(path, &what))
        }
        None => Err(wrong(path, "must be an object with `type`")),
    }
}

fn string<'b>(path: &str, block: &'b Value, field: &str) -> Result<&'b str, ApiError> {
    let path = format!("{path}.{field}");
    match &block[field] {
        Value::String(text) => Ok(text),
        Value::Null => Err(wrong(&path, "is missing")),
        _ => Err(wrong(&path, "must be a string")),
    }
}

/// Adds a message; `tools` has the names of tools by the ids of their calls so far.
fn read_message<'v>(
    index: usize,
    message: &'v Value,
    tools: &mut HashMap<&'v str, &'v str>,
    out: &mut Vec<Message>,
) -> Result<(), ApiError> {
    let path = format!("messages[{index}]");
    if !message.is_object() {
        return Err(wrong(&path, "must be an object with `role` and `content`"));
    }
    let role = match message["role"].as_str() {
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("system") => Role::System,
        Some(other) => {
            let what = format!("is `{other}`, not user, assistant or system");
            return Err(wrong(&format!("{path}.role"), &what));
        }
        None => return Err(wrong(&format!("{path}.role"), "is missing or not a string")),
    };
    let path = format!("{path}.content");
    match &message["content"] {
        Value::String(text) => out.push(Message::new(role, text.as_str())),
        Value::Array(blocks) => match role {
            Role::Assistant => out.push(assistant(&path, blocks, tools)?),
            Role::User => user(&path, blocks, tools, out)?,
            role => out.push(Message::new(role, texts(&path, blocks)?)),
        },
        Value::Null => return Err(wrong(&path, "is missing")),
        _ => return Err(wrong(&path, "must be a string or a list of blocks")),
    }
    Ok(())
}

fn assistant<'v>(path: &str, blocks: &'v [Value], tools: &mut HashMap<&'v str, &'v str>) -> Result<Message, ApiError> {
    let mut message = Message::new(Role::Assistant, "");
    for (index, block) in blocks.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match block["type"].as_str() {
            Some("thinking") => {
                let thought = string(&path, block, "thinking")?;
                append(message.reasoning.get_or_insert_default(), thought);
            }
            // Nobody but Anthropic can read it.
            Some("redacted_thinking") => {}
            Some("tool_use") => {
                let (id, name) = (string(&path, block, "id")?, string(&path, block, "name")?);
                let arguments = match &block["input"] {
                    Value::Null => "{}".to_owned(),
                    input @ Value::Object(_) => input.to_string(),
                    _ => return Err(wrong(&format!("{path}.input"), "must be an object")),
                };
                tools.insert(id, name);
                message.tool_calls.push(ToolCall {
                    id: id.to_owned(),
                    name: name.to_owned(),
                    arguments,
                });
            }
            _ => append(&mut message.content, text_of(&path, block)?),
        }
    }
    Ok(message)
}

/// What a user says, and the results of tools, in the order in which they come.
fn user<'v>(
    path: &str,
    blocks: &'v [Value],
    tools: &HashMap<&'v str, &'v str>,
    out: &mut Vec<Message>,
) -> Result<(), ApiError> {
    let mut text: Option<String> = None;
    for (index, block) in blocks.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if block["type"] != "tool_result" {
            append(text.get_or_insert_default(), text_of(&path, block)?);
            continue;
        }
        out.extend(text.take().map(|text| Message::new(Role::User, text)));
        let id = string(&path, block, "tool_use_id")?;
        let content = match &block["content"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(blocks) => texts(&format!("{path}.content"), blocks)?,
            _ => {
                return Err(wrong(
                    &format!("{path}.content"),
                    "must be a string or a list of blocks",
                ));
            }
        };
        out.push(Message {
            name: tools.get(id).map(|name| (*name).to_owned()),
            tool_call_id: Some(id.to_owned()),
            ..Message::new(Role::Tool, content)
        });
    }
    out.extend(text.map(|text| Message::new(Role::User, text)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(messages: Value) -> Result<Vec<Message>, String> {
        super::messages(&Value::Null, &messages).map_err(|error| error.to_string())
    }

    #[test]
    fn an_agents_conversation_is_read() {
        let system = json!([
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "b"},
        ]);
        let messages = json!([
            {"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "text", "text": "else"}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "look"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1, "a": 2}},
                {"type": "tool_use", "id": "t2", "name": "g"},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "7"},
                {"type": "tool_result", "tool_use_id": "t2", "is_error": true, "content": [
                    {"type": "text", "text": "no"}, {"type": "text", "text": "way"}]},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "go on"}},
            ]},
            {"role": "assistant", "content": "so"},
        ]);
        let read = super::messages(&system, &messages).unwrap();
        let call = |id: &str, name: &str, arguments: &str| ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
        };
        let result = |id: &str, name: &str, text: &str| Message {
            name: Some(name.into()),
            tool_call_id: Some(id.into()),
            ..Message::new(Role::Tool, text)
        };
        let expect = [
            Message::new(Role::System, "a\nb"),
            Message::new(Role::User, "what\nelse"),
            Message {
                reasoning: Some("hm".into()),
                tool_calls: vec![call("t1", "f", r#"{"b":1,"a":2}"#), call("t2", "g", "{}")],
                ..Message::new(Role::Assistant, "look")
            },
            result("t1", "f", "7"),
            result("t2", "g", "no\nway"),
            Message::new(Role::User, "go on"),
            Message::new(Role::Assistant, "so"),
        ];
        assert_eq!(read, expect);
    }

    #[test]
    fn bad_messages_are_named() {
        for (messages, expect) in [
            (json!(null), "`messages` must be a list"),
            (json!([]), "`messages` is empty"),
            (json!([1]), "`messages[0]` must be an object"),
            (json!([{}]), "`messages[0].role` is missing"),
            (
                json!([{"role": "tool", "content": "x"}]),
                "`messages[0].role` is `tool`",
            ),
            (json!([{"role": "user"}]), "`messages[0].content` is missing"),
            (json!([{"role": "user", "content": 1}]), "must be a string or a list"),
            (
                json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]),
                "`messages[0].content[0]` is of type `image`",
            ),
            (
                json!([{"role": "user", "content": [1]}]),
                "must be an object with `type`",
            ),
            (
                json!([{"role": "user", "content": [{"type": "text"}]}]),
                "`messages[0].content[0].text` is missing",
            ),
            (
                json!([{"role": "user", "content": [{"type": "tool_result"}]}]),
                "`messages[0].content[0].tool_use_id` is missing",
            ),
            (
                json!([{"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f", "input": 1}]}]),
                "`messages[0].content[0].input` must be an object",
            ),
            (
                json!(vec![json!({"role": "user", "content": "x"}); 5000]),
                "at most 4096",
            ),
        ] {
            let message = read(messages).unwrap_err();
            assert!(message.contains(expect), "{message}");
        }
        let error = super::messages(&json!(1), &json!([{"role": "user", "content": "x"}])).unwrap_err();
        assert!(error.to_string().contains("`system` must be"), "{error}");
    }
}
