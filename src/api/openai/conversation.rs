//! Conversations in OpenAI's form: checked message by message.

use actix_web::web::block;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::tools::{tool_choice, tools};
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::limits;
use crate::generation::{Conversation, Ending, Message, ReasoningFormat, Role, ToolCall};

/// The conversation of a body. Long ones are read away from the async workers.
pub(in crate::api) async fn read(body: Body) -> Result<Conversation, ApiError> {
    let many = body.field("messages").as_array().map_or(0, Vec::len) > limits::INLINE_MESSAGES;
    if !many && !body.is_large() {
        return read_now(&body);
    }
    block(move || read_now(&body))
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?
}

/// What decides how the template is used.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Templating {
    chat_template_kwargs: Option<Map<String, Value>>,
    add_generation_prompt: Option<bool>,
    /// Also the part of the final message that is continued: `content` or `reasoning_content`.
    continue_final_message: Value,
    reasoning_effort: Option<String>,
    reasoning_format: Option<String>,
    /// Tokens of thought at most; -1 for any number.
    reasoning_budget_tokens: Option<i64>,
    /// Another name of it.
    thinking_budget_tokens: Option<i64>,
    parallel_tool_calls: Option<bool>,
}

fn read_now(body: &Body) -> Result<Conversation, ApiError> {
    let messages = messages(body.field("messages"))?;
    of_messages(body, messages)
}

/// What the body says of a conversation, but for its messages.
pub(in crate::api) fn of_messages(body: &Body, messages: Vec<Message>) -> Result<Conversation, ApiError> {
    let templating: Templating = body.read()?;
    let mut variables = templating.chat_template_kwargs.unwrap_or_default();
    let thinking = match variables.shift_remove("enable_thinking") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(thinks)) => Some(thinks),
        Some(_) => {
            let path = "chat_template_kwargs.enable_thinking";
            return Err(ApiError::field(path, format!("`{path}` must be true or false")));
        }
    };
    if let Some(effort) = templating.reasoning_effort {
        variables.entry("reasoning_effort").or_insert(effort.into());
    }
    Ok(Conversation {
        tools: tools(body.field("tools"))?,
        tool_choice: tool_choice(body.field("tool_choice"))?,
        parallel_tool_calls: templating.parallel_tool_calls,
        ending: match ending(&templating.continue_final_message, templating.add_generation_prompt)? {
            Some(ending) => ending,
            None => Ending::of(&messages),
        },
        thinking,
        reasoning_budget: match templating.reasoning_budget_tokens.or(templating.thinking_budget_tokens) {
            None | Some(-1) => None,
            Some(budget) => Some(u32::try_from(budget).map_err(|_| {
                let message = "`reasoning_budget_tokens` must be a number of tokens, or -1 for any number";
                ApiError::field("reasoning_budget_tokens", message)
            })?),
        },
        reasoning_format: match templating.reasoning_format.as_deref() {
            None | Some("auto" | "deepseek") => ReasoningFormat::Apart,
            Some("none") => ReasoningFormat::InContent,
            Some(_) => {
                let message = "`reasoning_format` must be \"auto\", \"none\" or \"deepseek\"";
                return Err(ApiError::field("reasoning_format", message));
            }
        },
        variables,
        messages,
    })
}

/// `None` where the request leaves it to the messages.
fn ending(continues: &Value, answers: Option<bool>) -> Result<Option<Ending>, ApiError> {
    let wrong = |message: &str| Err(ApiError::field("continue_final_message", message));
    let continues = match continues {
        Value::Null => None,
        Value::Bool(continues) => Some(*continues),
        Value::String(part) if part == "content" || part == "reasoning_content" => Some(true),
        _ => return wrong("`continue_final_message` must be true or false"),
    };
    match (continues, answers) {
        (Some(true), Some(true)) => wrong("`continue_final_message` and `add_generation_prompt` contradict each other"),
        (Some(true), _) => Ok(Some(Ending::FinalMessage)),
        (_, Some(false)) => Ok(Some(Ending::Closed)),
        (Some(false), _) => Ok(Some(Ending::Answer)),
        (None, _) => Ok(None),
    }
}

/// The list of a conversation's messages, which is neither empty nor too long.
pub(in crate::api) fn list_of_messages(messages: &Value) -> Result<&[Value], ApiError> {
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
    Ok(list)
}

/// Checks messages one by one.
pub(in crate::api) fn messages(messages: &Value) -> Result<Vec<Message>, ApiError> {
    let list = list_of_messages(messages)?;
    list.iter()
        .enumerate()
        .map(|(index, value)| message(index, value))
        .collect()
}

fn message(index: usize, message: &Value) -> Result<Message, ApiError> {
    let wrong = |field: &str, what: &str| {
        let path = format!("messages[{index}]{field}");
        ApiError::field(path.clone(), format!("`{path}` {what}"))
    };
    let Some(message) = message.as_object() else {
        return Err(wrong("", "must be an object with `role` and `content`"));
    };
    let role = match message.get("role").and_then(Value::as_str) {
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        Some(other) => {
            return Err(wrong(
                ".role",
                &format!("is `{other}`, not system, user, assistant or tool"),
            ));
        }
        None => return Err(wrong(".role", "is missing or not a string")),
    };
    let tool_calls = match message.get("tool_calls") {
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
        None | Some(Value::Null) if role == Role::Assistant => None,
        None | Some(Value::Null) => return Err(wrong(".content", "is missing")),
        Some(_) => return Err(wrong(".content", "must be a string or a list of parts")),
    };
    let reasoning = ["reasoning_content", "reasoning"]
        .iter()
        .find_map(|field| message.get(*field)?.as_str());
    // An answer that was cut while the model was thinking has only its reasoning.
    if content.is_none() && tool_calls.is_empty() && reasoning.is_none() {
        return Err(wrong(".content", "is missing, and there are no tool calls"));
    }
    let text = |field: &str| match message.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong(&format!(".{field}"), "must be a string")),
    };
    Ok(Message {
        role,
        content: content.unwrap_or_default(),
        tool_calls,
        reasoning: reasoning.map(str::to_owned),
        name: text("name")?,
        tool_call_id: text("tool_call_id")?,
    })
}

/// The text of parts, each on a line of its own as in llama-server; an error names the part and what is wrong with it.
fn text_of(parts: &[Value]) -> Result<String, (usize, String)> {
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let kind = part["type"].as_str().unwrap_or("text");
        let part = match (kind, part["text"].as_str(), part.as_str()) {
            ("text" | "input_text" | "output_text", Some(part), _) | (_, _, Some(part)) => part,
            ("text" | "input_text" | "output_text", None, _) => return Err((index, "has no `text`".into())),
            (other, ..) => return Err((index, format!("is of type `{other}`; this model reads only text"))),
        };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(part);
    }
    Ok(text)
}

/// A call; arguments that came as an object become text.
fn tool_call(call: &Value) -> Option<ToolCall> {
    let function = call.get("function")?;
    let arguments = match function.get("arguments") {
        Some(Value::String(text)) => text.clone(),
        Some(object @ Value::Object(_)) => object.to_string(),
        None | Some(Value::Null) => "{}".to_owned(),
        Some(_) => return None,
    };
    Some(ToolCall {
        id: call.get("id").and_then(Value::as_str).unwrap_or_default().to_owned(),
        name: function.get("name")?.as_str()?.to_owned(),
        arguments,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn refused(messages: Value, expect: &str) {
        let message = super::messages(&messages).unwrap_err().to_string();
        assert!(message.contains(expect), "{message}");
    }

    #[test]
    fn good_messages_are_read() {
        let messages = json!([
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": 2}"}}]},
            {"role": "tool", "content": "7", "tool_call_id": "c"},
        ]);
        let read = super::messages(&messages).unwrap();
        assert_eq!(read[0], Message::new(Role::Developer, "a\nb"));
        assert_eq!(read[1].tool_calls[0].arguments, r#"{"b": 1, "a": 2}"#);
        assert_eq!(read[1].content, "");
        assert_eq!(read[2].tool_call_id.as_deref(), Some("c"));
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
