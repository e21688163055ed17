//! What a conversation may hold, checked before `common` sees it: it recurses, and it takes what it is given.

use std::collections::BTreeSet;

use serde_json::Value;

use super::conversation::{Conversation, Message, Tool};
use super::error::GenerationError;
use super::request::OutputFormat;
use crate::grammar::{MAX_COST, cost, cost_of_text, prepare_schema};

const MAX_MESSAGES: usize = 4096;
const MAX_TOOLS: usize = 256;
/// Bytes of a tool's name.
const MAX_NAME: usize = 128;
/// Bytes of the schemas and descriptions of all tools.
const MAX_TOOL_BYTES: usize = 1 << 20;
/// Variables of a template, and their depth.
const MAX_VARIABLES: usize = 64;
const MAX_VARIABLE_DEPTH: usize = 32;
const MAX_GRAMMAR: usize = 256 * 1024;

/// Refuses what is too much, and what cannot be meant.
pub(super) fn check(conversation: &Conversation, format: &OutputFormat) -> Result<(), GenerationError> {
    if conversation.messages.is_empty() {
        return refuse("messages", "`messages` is empty");
    }
    if conversation.messages.len() > MAX_MESSAGES {
        return refuse("messages", format!("`messages` has more than {MAX_MESSAGES} entries"));
    }
    let variables = &conversation.variables;
    if variables.len() > MAX_VARIABLES || !variables.values().all(|value| depth_is(value, MAX_VARIABLE_DEPTH)) {
        let message = format!(
            "`chat_template_kwargs` has more than {MAX_VARIABLES} entries, or one that is nested more than \
             {MAX_VARIABLE_DEPTH} levels deep"
        );
        return refuse("chat_template_kwargs", message);
    }
    if variables.values().map(cost).sum::<u64>() > MAX_COST {
        return refuse("chat_template_kwargs", "`chat_template_kwargs` has too many values");
    }
    if let OutputFormat::Grammar(grammar) = format
        && grammar.len() > MAX_GRAMMAR
    {
        return refuse("grammar", format!("`grammar` has more than {MAX_GRAMMAR} bytes"));
    }
    tools(conversation)
}

/// Makes JSON text of all arguments: what a model wrote that is none, or that only reading by recursion could end, becomes a
/// string. Reads all of them, so it is for threads that may be busy.
pub(super) fn read_arguments(messages: &mut [Message]) -> Result<(), GenerationError> {
    let mut sum: u64 = 0;
    for call in messages.iter_mut().flat_map(|message| &mut message.tool_calls) {
        match cost_of_text(&call.arguments) {
            Some(cost) => sum = sum.saturating_add(cost),
            None if call.arguments.trim().is_empty() => call.arguments = "{}".to_owned(),
            None => call.arguments = Value::from(call.arguments.as_str()).to_string(),
        }
    }
    if sum > MAX_COST {
        return refuse(
            "messages",
            "the arguments of the calls in `messages` have too many values",
        );
    }
    Ok(())
}

/// Checks the schemas of all parameters, and makes them ready for llama.cpp's converter: for the same threads.
pub(super) fn read_parameters(tools: &mut [Tool]) -> Result<(), GenerationError> {
    for tool in tools {
        match prepare_schema(&tool.parameters, false) {
            Ok(schema) => tool.parameters = schema,
            Err(error) => return refuse("tools", format!("the parameters of the tool `{}`: {error}", tool.name)),
        }
    }
    Ok(())
}

/// The schema of an answer as JSON text, checked and made ready for llama.cpp's converter, for the same threads; empty for none.
pub(super) fn read_schema(format: &OutputFormat) -> Result<String, GenerationError> {
    match format {
        OutputFormat::JsonObject => Ok(r#"{"type":"object"}"#.to_owned()),
        OutputFormat::JsonSchema { schema, strict } => match prepare_schema(schema, *strict) {
            Ok(schema) => Ok(schema.to_string()),
            Err(error) => Err(invalid("response_format", error.to_string())),
        },
        OutputFormat::Text | OutputFormat::Grammar(_) => Ok(String::new()),
    }
}

fn tools(conversation: &Conversation) -> Result<(), GenerationError> {
    if conversation.tools.len() > MAX_TOOLS {
        return refuse("tools", format!("`tools` has more than {MAX_TOOLS} entries"));
    }
    let mut bytes = 0;
    let mut costs: u64 = 0;
    let mut names = BTreeSet::new();
    for tool in &conversation.tools {
        let name = tool.name.as_str();
        let letters = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(letters) {
            let shown: String = name.chars().take(MAX_NAME).collect();
            let message = format!(
                "a tool has the name {shown:?}; names have 1 to {MAX_NAME} letters, digits, `_`, `-`, `.`, `:` or `/`"
            );
            return refuse("tools", message);
        }
        if !names.insert(name) {
            return refuse("tools", format!("there are two tools with the name `{name}`"));
        }
        let parameters = &tool.parameters;
        bytes += parameters.to_string().len() + tool.description.len();
        if bytes > MAX_TOOL_BYTES {
            return refuse("tools", format!("`tools` has more than {MAX_TOOL_BYTES} bytes"));
        }
        costs += cost(parameters);
        if costs > MAX_COST {
            return refuse("tools", "the parameters of the `tools` have too many values");
        }
        let is_object = match &parameters["type"] {
            Value::Null => true,
            kind => kind == "object",
        };
        if !is_object {
            let message = format!("the parameters of the tool `{name}` must be a JSON schema of type \"object\"");
            return refuse("tools", message);
        }
    }
    Ok(())
}

fn depth_is(value: &Value, depth: usize) -> bool {
    let below = |value: &Value| depth > 0 && depth_is(value, depth - 1);
    match value {
        Value::Array(items) => items.iter().all(below),
        Value::Object(fields) => fields.values().all(below),
        _ => true,
    }
}

fn refuse(field: &'static str, message: impl Into<String>) -> Result<(), GenerationError> {
    Err(invalid(field, message))
}

fn invalid(field: &'static str, message: impl Into<String>) -> GenerationError {
    GenerationError::InvalidRequest {
        field,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::conversation::{Role, Tool, ToolCall};
    use super::*;
    use serde_json::json;

    fn conversation(tools: &[(&str, Value)]) -> Conversation {
        let tool = |(name, parameters): &(&str, Value)| Tool {
            name: (*name).into(),
            description: String::new(),
            parameters: parameters.clone(),
        };
        Conversation {
            messages: vec![Message::new(Role::User, "hi")],
            tools: tools.iter().map(tool).collect(),
            ..Conversation::default()
        }
    }

    fn refused(conversation: &Conversation, expect: &str) {
        let message = check(conversation, &OutputFormat::Text).unwrap_err().to_string();
        assert!(message.contains(expect), "{message}");
    }

    #[test]
    fn tools_have_names_and_schemas() {
        let fine = [
            ("get_weather", json!({})),
            ("mcp/files.read-1", json!({"type": "object"})),
        ];
        assert_eq!(check(&conversation(&fine), &OutputFormat::Text), Ok(()));
        refused(&conversation(&[("", json!({}))]), "a tool has the name");
        refused(&conversation(&[("say hi", json!({}))]), "a tool has the name");
        refused(&conversation(&[("a", json!({})), ("a", json!({}))]), "two tools");
        refused(&conversation(&[("a", json!({"type": "string"}))]), "of type \"object\"");
        let mut wrong = conversation(&[("a", json!({"maxItems": -1}))]).tools;
        let error = read_parameters(&mut wrong).unwrap_err().to_string();
        assert!(
            error.contains("the tool `a`") && error.contains("`maxItems`"),
            "{error}"
        );
        let mut dotted = conversation(&[("a", json!({"properties": {"b": {"pattern": "^[a]$"}}}))]).tools;
        assert_eq!(read_parameters(&mut dotted), Ok(()));
        assert_eq!(dotted[0].parameters["properties"]["b"]["pattern"], "^([a-a])$");
        refused(&Conversation::default(), "`messages` is empty");
        let mut deep = json!(1);
        for _ in 0..40 {
            deep = json!([deep]);
        }
        let mut nested = conversation(&[]);
        nested.variables.insert("x".into(), deep);
        refused(&nested, "nested more than");
        let mut many = conversation(&[]);
        many.variables.insert("x".into(), keys(10_000));
        refused(&many, "has too many values");
        refused(
            &conversation(&[
                ("a", json!({"default": keys(3000)})),
                ("b", json!({"default": keys(3000)})),
            ]),
            "too many values",
        );
    }

    fn keys(count: usize) -> Value {
        Value::Object((0..count).map(|key| (key.to_string(), json!(0))).collect())
    }

    #[test]
    fn arguments_are_json() {
        let read = |arguments: &str| {
            let mut message = Message::new(Role::Assistant, "");
            message.tool_calls.push(ToolCall {
                id: String::new(),
                name: "a".into(),
                arguments: arguments.into(),
            });
            read_arguments(std::slice::from_mut(&mut message)).map(|()| message.tool_calls[0].arguments.clone())
        };
        for arguments in ["{}", "{\"a\": [1, {}]}", "3"] {
            assert_eq!(read(arguments).as_deref(), Ok(arguments));
        }
        assert_eq!(read(" ").as_deref(), Ok("{}"));
        assert_eq!(read("{\"a\":").as_deref(), Ok(r#""{\"a\":""#));
        // llama.cpp would recurse once for each bracket.
        let deep = "[".repeat(60_000) + &"]".repeat(60_000);
        assert_eq!(read(&deep), Ok(format!("\"{deep}\"")));
        let error = read(&keys(10_000).to_string()).unwrap_err().to_string();
        assert!(error.contains("too many values"), "{error}");
    }
}
