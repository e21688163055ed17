//! Messages of a conversation: checked one by one, and brought into the form that templates read.

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::limits;

/// Checks and normalises messages.
///
/// `developer` becomes `system`, parts of text become one text, and arguments of tool calls become objects where they
/// are JSON.
pub(super) fn normalise(messages: &Value) -> Result<Vec<Value>, ApiError> {
    let Some(list) = messages.as_array() else {
        return Err(ApiError::field("messages", "`messages` must be a list of messages"));
    };
    if list.is_empty() {
        return Err(ApiError::field("messages", "`messages` is empty"));
    }
    if list.len() > limits::MESSAGES {
        let message = format!(
            "`messages` has {} entries, but at most {} are taken",
            list.len(),
            limits::MESSAGES
        );
        return Err(ApiError::field("messages", message));
    }
    list.iter()
        .enumerate()
        .map(|(index, message)| one(index, message))
        .collect()
}

fn one(index: usize, message: &Value) -> Result<Value, ApiError> {
    let wrong = |field: &str, what: &str| {
        let path = format!("messages[{index}]{field}");
        ApiError::field(path.clone(), format!("`{path}` {what}"))
    };
    let Some(message) = message.as_object() else {
        return Err(wrong("", "must be an object with `role` and `content`"));
    };
    let role = match message.get("role").and_then(Value::as_str) {
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant" | "tool")) => role,
        Some("function") => "tool",
        Some(other) => {
            return Err(wrong(
                ".role",
                &format!("is `{other}`, not system, user, assistant or tool"),
            ));
        }
        None => return Err(wrong(".role", "is missing or not a string")),
    };
    let mut out = Map::new();
    out.insert("role".into(), role.into());
    let calls = match message.get("tool_calls") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(calls)) => calls
            .iter()
            .enumerate()
            .map(|(call, value)| {
                tool_call(value).ok_or_else(|| {
                    wrong(
                        &format!(".tool_calls[{call}]"),
                        "must have a `function` with `name` and `arguments`",
                    )
                })
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong(".tool_calls", "must be a list")),
    };
    let content = match message.get("content") {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(parts)) => {
            Some(text_of(parts).map_err(|(part, what)| wrong(&format!(".content[{part}]"), &what))?)
        }
        None | Some(Value::Null) if role == "assistant" => None,
        None | Some(Value::Null) => return Err(wrong(".content", "is missing")),
        Some(_) => return Err(wrong(".content", "must be a string or a list of parts")),
    };
    let reasoning = ["reasoning_content", "reasoning"]
        .iter()
        .find_map(|field| message.get(*field)?.as_str());
    // An answer that was cut while the model was thinking has only its reasoning.
    if content.is_none() && calls.is_empty() && reasoning.is_none() {
        return Err(wrong(".content", "is missing, and there are no tool calls"));
    }
    out.insert("content".into(), content.unwrap_or_default().into());
    if !calls.is_empty() {
        out.insert("tool_calls".into(), calls.into());
    }
    if let Some(reasoning) = reasoning {
        out.insert("reasoning_content".into(), reasoning.into());
    }
    for field in ["name", "tool_call_id"] {
        match message.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => {
                out.insert(field.into(), text.clone().into());
            }
            Some(_) => return Err(wrong(&format!(".{field}"), "must be a string")),
        }
    }
    Ok(out.into())
}

/// The text of parts; an error names the part and what is wrong with it.
fn text_of(parts: &[Value]) -> Result<String, (usize, String)> {
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let kind = part["type"].as_str().unwrap_or("text");
        match (kind, part["text"].as_str(), part.as_str()) {
            ("text" | "input_text" | "output_text", Some(part), _) | (_, _, Some(part)) => text.push_str(part),
            ("text" | "input_text" | "output_text", None, _) => return Err((index, "has no `text`".into())),
            (other, ..) => return Err((index, format!("is of type `{other}`; this model reads only text"))),
        }
    }
    Ok(text)
}

/// A call with its arguments as an object where they are one.
fn tool_call(call: &Value) -> Option<Value> {
    let function = call.get("function")?;
    let name = function.get("name")?.as_str()?;
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) => match serde_json::from_str::<Value>(text) {
            Ok(parsed @ Value::Object(_)) => parsed,
            _ => text.clone().into(),
        },
        Some(object @ Value::Object(_)) => object.clone(),
        None | Some(Value::Null) => json!({}),
        Some(_) => return None,
    };
    let mut out = Map::new();
    // Templates ask whether there is an id: null would count as one.
    if let Some(id @ Value::String(_)) = call.get("id") {
        out.insert("id".into(), id.clone());
    }
    out.insert("type".into(), "function".into());
    out.insert("function".into(), json!({"name": name, "arguments": arguments}));
    Some(out.into())
}

/// Checks the list of tools; what is in them is the template's business.
pub(super) fn tools(tools: &Value) -> Result<Vec<Value>, ApiError> {
    let list = match tools {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(ApiError::field("tools", "`tools` must be a list")),
    };
    if list.len() > limits::TOOLS {
        return Err(ApiError::field(
            "tools",
            format!("`tools` has more than {} entries", limits::TOOLS),
        ));
    }
    for (index, tool) in list.iter().enumerate() {
        if tool["function"]["name"].as_str().is_none_or(str::is_empty) {
            let path = format!("tools[{index}].function.name");
            return Err(ApiError::field(path.clone(), format!("`{path}` is missing")));
        }
    }
    Ok(list.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(messages: Value, expect: &str) {
        let message = normalise(&messages).unwrap_err().to_string();
        assert!(message.contains(expect), "{message}");
    }

    #[test]
    fn good_messages_are_normalised() {
        let messages = json!([
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": 2}"}}]},
            {"role": "tool", "content": "7", "tool_call_id": "c"},
        ]);
        let normal = normalise(&messages).unwrap();
        assert_eq!(normal[0], json!({"role": "system", "content": "ab"}));
        assert_eq!(
            normal[1]["tool_calls"][0]["function"]["arguments"].to_string(),
            r#"{"b":1,"a":2}"#
        );
        assert_eq!(normal[1]["content"], "");
        assert_eq!(normal[2]["tool_call_id"], "c");
    }

    #[test]
    fn bad_messages_are_named() {
        refused(Value::Null, "`messages` must be a list");
        refused(json!("hello"), "`messages` must be a list");
        refused(json!([]), "`messages` is empty");
        refused(json!([123]), "`messages[0]` must be an object");
        refused(json!([{}]), "`messages[0].role` is missing");
        refused(
            json!([{"role": 5, "content": "x"}]),
            "`messages[0].role` is missing or not a string",
        );
        refused(
            json!([{"role": "king", "content": "x"}]),
            "`messages[0].role` is `king`",
        );
        refused(json!([{"role": "user"}]), "`messages[0].content` is missing");
        refused(json!([{"role": "user", "content": 3}]), "must be a string or a list");
        refused(
            json!([{"role": "user", "content": [{"type": "image_url"}]}]),
            "`messages[0].content[0]` is of type `image_url`",
        );
        refused(
            json!([{"role": "assistant", "tool_calls": [{}]}]),
            "`messages[0].tool_calls[0]` must have",
        );
        refused(
            Value::Array(vec![json!({"role": "user", "content": "x"}); 10_000]),
            "at most 4096",
        );
    }
}
