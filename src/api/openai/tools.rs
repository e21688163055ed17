//! Tools and the choice among them, in OpenAI's form.

use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::limits;
use crate::generation::{Tool, ToolChoice};

/// The list of tools; `null` is an empty one.
pub(in crate::api) fn tools(tools: &Value) -> Result<Vec<Tool>, ApiError> {
    let list = match tools {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(ApiError::field("tools", "`tools` must be a list")),
    };
    if list.len() > limits::TOOLS {
        let message = format!("`tools` has more than {} entries", limits::TOOLS);
        return Err(ApiError::field("tools", message));
    }
    (0..).zip(list).map(|(index, value)| tool(index, value)).collect()
}

fn tool(index: usize, tool: &Value) -> Result<Tool, ApiError> {
    let wrong = |field: &str, what: &str| {
        let path = format!("tools[{index}]{field}");
        ApiError::field(path.clone(), format!("`{path}` {what}"))
    };
    match &tool["type"] {
        Value::String(kind) if kind == "function" => {}
        // Many clients leave it out, and there is no other kind that has a `function`.
        Value::Null if tool["function"].is_object() => {}
        Value::Null => return Err(wrong("", "must be an object with `type` and `function`")),
        _ => return Err(wrong(".type", "must be \"function\"; there are no other tools here")),
    }
    let function = &tool["function"];
    let name = match &function["name"] {
        Value::String(name) => name,
        Value::Null => return Err(wrong(".function.name", "is missing")),
        _ => return Err(wrong(".function.name", "must be a string")),
    };
    let description = match &function["description"] {
        Value::Null => "",
        Value::String(text) => text,
        _ => return Err(wrong(".function.description", "must be a string")),
    };
    let parameters = match &function["parameters"] {
        Value::Null => json!({}),
        schema @ Value::Object(_) => schema.clone(),
        _ => return Err(wrong(".function.parameters", "must be a JSON schema, an object")),
    };
    Ok(Tool {
        name: name.clone(),
        description: description.to_owned(),
        parameters,
    })
}

/// `auto`, `none`, `required`, or the name of a function.
pub(in crate::api) fn tool_choice(choice: &Value) -> Result<ToolChoice, ApiError> {
    let wrong = || {
        let message = "`tool_choice` must be \"auto\", \"none\", \"required\", or \
                       {\"type\": \"function\", \"function\": {\"name\": …}}";
        ApiError::field("tool_choice", message)
    };
    match choice {
        Value::Null => Ok(ToolChoice::Auto),
        Value::String(word) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" | "any" => Ok(ToolChoice::Required),
            _ => Err(wrong()),
        },
        Value::Object(_) => {
            let name = choice["function"]["name"].as_str().or(choice["name"].as_str());
            match (choice["type"].as_str(), name) {
                (Some("function") | None, Some(name)) => Ok(ToolChoice::Named(name.to_owned())),
                _ => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_functions() {
        let read = tools(&json!([
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": true}},
            {"function": {"name": "g"}},
        ]))
        .unwrap();
        let expect = |name: &str, description: &str, parameters| Tool {
            name: name.into(),
            description: description.into(),
            parameters,
        };
        assert_eq!(
            read,
            [expect("f", "d", json!({"type": "object"})), expect("g", "", json!({}))]
        );
        assert_eq!(tools(&Value::Null).unwrap(), []);
        for (value, expect) in [
            (json!("x"), "`tools` must be a list"),
            (json!([1]), "`tools[0]` must be an object"),
            (json!([{"type": "web_search"}]), "`tools[0].type` must be"),
            (json!([{"type": "function"}]), "`tools[0].function.name` is missing"),
            (
                json!([{"function": {"name": 3}}]),
                "`tools[0].function.name` must be a string",
            ),
            (
                json!([{"function": {"name": "f", "parameters": []}}]),
                "`tools[0].function.parameters` must be a JSON schema",
            ),
            (
                json!([{"function": {"name": "f", "description": 1}}]),
                "`tools[0].function.description` must be a string",
            ),
            (json!(vec![json!({}); 200]), "more than 128"),
        ] {
            let message = tools(&value).unwrap_err().to_string();
            assert!(message.contains(expect), "{message}");
        }
    }

    #[test]
    fn a_choice_is_a_word_or_a_function() {
        let named = ToolChoice::Named("f".into());
        for (value, expect) in [
            (json!(null), Some(ToolChoice::Auto)),
            (json!("none"), Some(ToolChoice::None)),
            (json!("required"), Some(ToolChoice::Required)),
            (
                json!({"type": "function", "function": {"name": "f"}}),
                Some(named.clone()),
            ),
            (json!({"type": "function", "name": "f"}), Some(named)),
            (json!("f"), None),
            (json!(1), None),
            (json!({"type": "function"}), None),
            (json!({"type": "allowed_tools", "name": "f"}), None),
        ] {
            assert_eq!(tool_choice(&value).ok(), expect, "{value}");
        }
    }
}
