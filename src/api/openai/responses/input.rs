//! The items of a conversation: checked one by one, and put together to messages.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::wire::new_id;
use crate::api::error::ApiError;
use crate::api::limits;
use crate::generation::{Message, Role, ToolCall};

fn wrong(path: &str, what: &str) -> ApiError {
    ApiError::field(path, format!("`{path}` {what}"))
}

/// The items of `input`, each with an id and a type.
pub(super) fn items(input: Value) -> Result<Vec<Value>, ApiError> {
    match input {
        Value::String(text) => Ok(vec![complete(json!({"role": "user", "content": text}))]),
        Value::Array(list) if list.is_empty() => Err(wrong("input", "is empty")),
        Value::Array(list) => Ok(list.into_iter().map(complete).collect()),
        Value::Null => Err(wrong("input", "is missing")),
        _ => Err(wrong("input", "must be a string or a list of items")),
    }
}

/// Gives an item what clients may leave out.
fn complete(mut item: Value) -> Value {
    let Some(fields) = item.as_object_mut() else {
        return item;
    };
    if !fields.contains_key("type") && fields.contains_key("role") {
        fields.insert("type".into(), "message".into());
    }
    let prefix = match fields.get("type").and_then(Value::as_str) {
        Some("message") => {
            parts_of_text(fields);
            "msg"
        }
        Some("function_call") => "fc",
        Some("function_call_output") => "fco",
        Some("reasoning") => "rs",
        _ => return item,
    };
    if !fields.get("id").is_some_and(Value::is_string) {
        fields.insert("id".into(), new_id(prefix).into());
    }
    fields.entry("status").or_insert("completed".into());
    item
}

/// The content of a message as a list.
fn parts_of_text(message: &mut Map<String, Value>) {
    let kind = match message.get("role").and_then(Value::as_str) {
        Some("assistant") => "output_text",
        _ => "input_text",
    };
    let Some(content) = message.get_mut("content") else {
        return;
    };
    if let Value::String(text) = content {
        let mut part = json!({"type": kind, "text": std::mem::take(text)});
        if kind == "output_text" {
            part["annotations"] = json!([]);
        }
        *content = json!([part]);
    }
}

/// Puts messages together from items.
#[derive(Default)]
pub(super) struct Messages {
    messages: Vec<Message>,
    /// Names of functions by the ids of their calls.
    names: HashMap<String, String>,
    /// The last message is of the assistant, and of these items: more of them may belong to it.
    grows: bool,
    items: usize,
}

impl Messages {
    /// Begins with what the system says, if it says anything.
    pub(super) fn new(instructions: Option<&str>) -> Self {
        let system = instructions.map(|text| Message::new(Role::System, text));
        Self {
            messages: system.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(super) fn finish(self) -> Vec<Message> {
        self.messages
    }

    /// Adds all items of a list that is at this path.
    pub(super) fn extend(&mut self, path: &str, items: &[Value]) -> Result<(), ApiError> {
        self.items += items.len();
        if self.items > limits::MESSAGES {
            let what = format!("and what it continues have more than {} items", limits::MESSAGES);
            return Err(wrong(path, &what));
        }
        for (index, item) in items.iter().enumerate() {
            self.add(&format!("{path}[{index}]"), item)?;
        }
        Ok(())
    }

    fn add(&mut self, path: &str, item: &Value) -> Result<(), ApiError> {
        match item["type"].as_str() {
            Some("message") => self.message(path, item),
            Some("function_call") => {
                let call = ToolCall {
                    id: string(path, item, "call_id")?.to_owned(),
                    name: string(path, item, "name")?.to_owned(),
                    arguments: string(path, item, "arguments")?.to_owned(),
                };
                self.names.insert(call.id.clone(), call.name.clone());
                self.assistant(|_| true).tool_calls.push(call);
                Ok(())
            }
            Some("function_call_output") => {
                let id = string(path, item, "call_id")?;
                let text = text(&format!("{path}.output"), &item["output"])?;
                self.push(Message {
                    name: self.names.get(id).cloned(),
                    tool_call_id: Some(id.to_owned()),
                    ..Message::new(Role::Tool, text)
                });
                Ok(())
            }
            Some("reasoning") => {
                let thought = thought(path, item)?;
                if !thought.is_empty() {
                    // A new thought begins a new answer.
                    let begun = |message: &Message| message.content.is_empty() && message.tool_calls.is_empty();
                    append(self.assistant(begun).reasoning.get_or_insert_default(), &thought);
                }
                Ok(())
            }
            Some("item_reference") => Err(wrong(
                path,
                "is a reference to an item that is not stored here, or is there already; send the item itself",
            )),
            Some(other) => {
                let what = format!(
                    "is `{other}`, but there are only messages, function calls, their outputs and reasoning here"
                );
                Err(wrong(&format!("{path}.type"), &what))
            }
            None => Err(wrong(
                path,
                "must be an object with `type`, or with `role` and `content`",
            )),
        }
    }

    fn message(&mut self, path: &str, item: &Value) -> Result<(), ApiError> {
        let role = match item["role"].as_str() {
            Some("user") => Role::User,
            Some("system") => Role::System,
            Some("developer") => Role::Developer,
            Some("assistant") => Role::Assistant,
            Some(other) => {
                let what = format!("is `{other}`, not user, system, developer or assistant");
                return Err(wrong(&format!("{path}.role"), &what));
            }
            None => return Err(wrong(&format!("{path}.role"), "is missing or not a string")),
        };
        let text = text(&format!("{path}.content"), &item["content"])?;
        if role == Role::Assistant {
            let begun = |message: &Message| message.content.is_empty() && message.tool_calls.is_empty();
            self.assistant(begun).content = text;
        } else {
            self.push(Message::new(role, text));
        }
        Ok(())
    }

    fn push(&mut self, message: Message) {
        self.messages.push(message);
        self.grows = false;
    }

    /// The assistant's message that the next item belongs to: the last one if it may have more, or a new one.
    fn assistant(&mut self, takes: impl Fn(&Message) -> bool) -> &mut Message {
        let last = self.messages.last().filter(|_| self.grows);
        if !last.is_some_and(takes) {
            self.messages.push(Message::new(Role::Assistant, ""));
            self.grows = true;
        }
        let last = self.messages.len() - 1;
        &mut self.messages[last]
    }
}

fn append(out: &mut String, text: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(text);
}

fn string<'i>(path: &str, item: &'i Value, field: &str) -> Result<&'i str, ApiError> {
    let path = format!("{path}.{field}");
    match &item[field] {
        Value::String(text) => Ok(text),
        Value::Null => Err(wrong(&path, "is missing")),
        _ => Err(wrong(&path, "must be a string")),
    }
}

/// A text, or the texts of a list of parts, each on a line of its own.
fn text(path: &str, content: &Value) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        Value::Null => return Err(wrong(path, "is missing")),
        _ => return Err(wrong(path, "must be a string or a list of parts")),
    };
    let mut out = String::new();
    for (index, part) in parts.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let field = match part["type"].as_str() {
            Some("input_text" | "output_text" | "text") => "text",
            Some("refusal") => "refusal",
            Some(other) => {
                let what = format!("is of type `{other}`; this model reads only text");
                return Err(wrong(&path, &what));
            }
            None => return Err(wrong(&path, "must be an object with `type`")),
        };
        append(&mut out, string(&path, part, field)?);
    }
    Ok(out)
}

/// What an item of reasoning says; nothing if only its author can read it.
fn thought(path: &str, item: &Value) -> Result<String, ApiError> {
    for field in ["content", "summary"] {
        let parts = match &item[field] {
            Value::Array(parts) => parts,
            Value::Null => continue,
            _ => return Err(wrong(&format!("{path}.{field}"), "must be a list of parts")),
        };
        let mut out = String::new();
        for (index, part) in parts.iter().enumerate() {
            append(&mut out, string(&format!("{path}.{field}[{index}]"), part, "text")?);
        }
        if !out.is_empty() {
            return Ok(out);
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: Value) -> Result<Vec<Message>, String> {
        let read = || {
            let items = items(input)?;
            let mut messages = Messages::new(None);
            messages.extend("input", &items)?;
            Ok(messages.finish())
        };
        read().map_err(|error: ApiError| error.to_string())
    }

    fn call(id: &str) -> ToolCall {
        ToolCall {
            id: id.into(),
            name: "f".into(),
            arguments: "{}".into(),
        }
    }

    #[test]
    fn a_text_is_what_the_user_says() {
        assert_eq!(read(json!("hi")).unwrap(), [Message::new(Role::User, "hi")]);
        let items = items(json!("hi")).unwrap();
        assert_eq!(items[0]["content"], json!([{"type": "input_text", "text": "hi"}]));
        assert!(items[0]["id"].as_str().unwrap().starts_with("msg_"));
    }

    #[test]
    fn items_of_one_answer_are_one_message() {
        let function_call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"});
        let read = read(json!([
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "look", "annotations": []}]},
            function_call("c1"),
            function_call("c2"),
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
            {"type": "reasoning", "summary": [], "encrypted_content": "x"},
            function_call("c3"),
            {"type": "function_call_output", "call_id": "c3", "output": "3"},
            {"role": "assistant", "content": "so"},
            {"role": "assistant", "content": "and so"},
        ]))
        .unwrap();
        let result = |id: &str, text: &str| Message {
            name: Some("f".into()),
            tool_call_id: Some(id.into()),
            ..Message::new(Role::Tool, text)
        };
        let expect = [
            Message::new(Role::Developer, "be brief"),
            Message::new(Role::User, "a\nb"),
            Message {
                reasoning: Some("hm".into()),
                tool_calls: vec![call("c1"), call("c2")],
                ..Message::new(Role::Assistant, "look")
            },
            result("c1", "1"),
            result("c2", "2"),
            Message {
                tool_calls: vec![call("c3")],
                ..Message::new(Role::Assistant, "")
            },
            result("c3", "3"),
            Message::new(Role::Assistant, "so"),
            Message::new(Role::Assistant, "and so"),
        ];
        assert_eq!(read, expect);
    }

    #[test]
    fn mistakes_are_named() {
        for (input, expect) in [
            (json!(null), "`input` is missing"),
            (json!(1), "`input` must be"),
            (json!([]), "`input` is empty"),
            (json!([1]), "`input[0]` must be an object"),
            (json!([{"role": "king", "content": "x"}]), "`input[0].role` is `king`"),
            (json!([{"role": "user"}]), "`input[0].content` is missing"),
            (
                json!([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
                "`input[0].content[0]` is of type `input_image`",
            ),
            (
                json!([{"type": "function_call", "call_id": "x", "name": "f"}]),
                "`input[0].arguments` is missing",
            ),
            (
                json!([{"type": "function_call_output", "output": "x"}]),
                "`input[0].call_id` is missing",
            ),
            (json!([{"type": "item_reference", "id": "x"}]), "is a reference"),
            (
                json!([{"type": "web_search_call"}]),
                "`input[0].type` is `web_search_call`",
            ),
            (
                json!(vec![json!({"role": "user", "content": "x"}); 5000]),
                "more than 4096 items",
            ),
        ] {
            let message = read(input).unwrap_err();
            assert!(message.contains(expect), "{message}");
        }
    }
}
