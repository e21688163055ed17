//! From a conversation to the text that the model's chat template makes of it.

use serde_json::{Map, Value, json};

use super::conversation::{Conversation, Ending, Message, Tool, ToolCall};
use super::error::GenerationError;
use crate::chat::{RenderInput, Template};

/// Stands at the end of the message that is to be continued while the template is rendered. The same means, with the
/// same meaning of the space, as in Hugging Face's `apply_chat_template`.
const MARK: &str = "CONTINUE_FINAL_MESSAGE_HERE ";

/// Renders a conversation.
pub(super) fn render(template: &Template, conversation: &Conversation) -> Result<String, GenerationError> {
    let continues = conversation.ending == Ending::FinalMessage;
    let mut messages: Vec<Value> = conversation.messages.iter().map(message).collect();
    if continues && let Some(last) = messages.last_mut() {
        let content = last["content"].as_str().unwrap_or_default();
        last["content"] = format!("{content}{MARK}").into();
    }
    let text = template.render(&RenderInput {
        messages,
        tools: conversation.tools.iter().map(tool).collect(),
        add_generation_prompt: conversation.ending == Ending::Answer,
        variables: conversation.variables.clone(),
    })?;
    if continues { open_end(text) } else { Ok(text) }
}

/// A message as templates read it. Templates ask whether a field is there, so what is not set is left out.
fn message(message: &Message) -> Value {
    let mut out = Map::new();
    out.insert("role".into(), message.role.as_str().into());
    out.insert("content".into(), message.content.as_str().into());
    if !message.tool_calls.is_empty() {
        out.insert("tool_calls".into(), message.tool_calls.iter().map(tool_call).collect());
    }
    for (field, value) in [
        ("reasoning_content", &message.reasoning),
        ("name", &message.name),
        ("tool_call_id", &message.tool_call_id),
    ] {
        if let Some(text) = value {
            out.insert(field.into(), text.as_str().into());
        }
    }
    out.into()
}

fn tool(tool: &Tool) -> Value {
    json!({"type": "function", "function": {
        "name": tool.name, "description": tool.description, "parameters": tool.parameters}})
}

fn tool_call(call: &ToolCall) -> Value {
    let mut out = Map::new();
    if !call.id.is_empty() {
        out.insert("id".into(), call.id.as_str().into());
    }
    out.insert("type".into(), "function".into());
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| call.arguments.as_str().into());
    out.insert("function".into(), json!({"name": call.name, "arguments": arguments}));
    out.into()
}

/// Cuts the text where the last message ends: what the template puts behind it would close it.
fn open_end(mut text: String) -> Result<String, GenerationError> {
    let Some(end) = text.rfind(MARK.trim_end()) else {
        return Err(GenerationError::InvalidRequest {
            field: "continue_final_message",
            message: "the model's chat template does not print the content of the final message".into(),
        });
    };
    // A template that trims the content took the mark's space; then it would have trimmed what is before the mark too.
    let trims = !text[end..].starts_with(MARK);
    text.truncate(end);
    if trims {
        text.truncate(text.trim_end().len());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::conversation::Role;
    use super::*;

    #[test]
    fn templates_see_only_what_is_set() {
        let user = Message::new(Role::User, "hi");
        assert_eq!(message(&user), json!({"role": "user", "content": "hi"}));
        let mut assistant = Message::new(Role::Assistant, "");
        assistant.tool_calls.push(ToolCall {
            id: String::new(),
            name: "f".into(),
            arguments: r#"{"b": 1, "a": 2}"#.into(),
        });
        assistant.reasoning = Some("so".into());
        assert_eq!(
            message(&assistant).to_string(),
            r#"{"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"f","arguments":{"b":1,"a":2}}}],"reasoning_content":"so"}"#
        );
    }

    #[test]
    fn a_final_message_stays_open() {
        let conversation = Conversation {
            messages: vec![
                Message::new(Role::User, "hi"),
                Message::new(Role::Assistant, "I think "),
            ],
            ending: Ending::FinalMessage,
            ..Conversation::default()
        };
        let check = |source: &str, expect: Option<&str>| {
            let template = Template::compile(source, "", "").unwrap();
            assert_eq!(render(&template, &conversation).ok().as_deref(), expect, "{source}");
        };
        check(
            "{% for m in messages %}<{{ m.content }}>{% endfor %}",
            Some("<hi><I think "),
        );
        check(
            "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}",
            Some("<hi><I think"),
        );
        check("nothing", None);
    }
}
