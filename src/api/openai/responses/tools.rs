//! Functions that the model may call, and the choice among them, in the form of Responses.

use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::limits;
use crate::generation::{Tool, ToolChoice};

fn wrong(path: &str, what: &str) -> ApiError {
    ApiError::field(path, format!("`{path}` {what}"))
}

/// The tools of a request.
pub(super) struct Tools {
    pub(super) tools: Vec<Tool>,
    pub(super) choice: ToolChoice,
    /// As the response tells them back.
    pub(super) told: Vec<Value>,
    pub(super) told_choice: Value,
}

pub(super) fn read(tools: Value, choice: Value) -> Result<Tools, ApiError> {
    let told = match tools {
        Value::Null => Vec::new(),
        Value::Array(list) => list,
        _ => return Err(wrong("tools", "must be a list")),
    };
    if told.len() > limits::TOOLS {
        return Err(wrong("tools", &format!("has more than {} entries", limits::TOOLS)));
    }
    let tools: Result<Vec<Tool>, ApiError> = (0..).zip(&told).map(|(index, value)| tool(index, value)).collect();
    let mut tools = tools?;
    let choice_of_tools = self::choice(&choice, &mut tools)?;
    Ok(Tools {
        tools,
        choice: choice_of_tools,
        told: told.into_iter().map(complete).collect(),
        told_choice: if choice.is_null() { "auto".into() } else { choice },
    })
}

fn tool(index: usize, tool: &Value) -> Result<Tool, ApiError> {
    let path = |field: &str| format!("tools[{index}]{field}");
    match tool["type"].as_str() {
        Some("function") => {}
        Some(other) => {
            let what = format!("is `{other}`, which runs on OpenAI's servers; there are only functions here");
            return Err(wrong(&path(".type"), &what));
        }
        None => return Err(wrong(&path(""), "must be an object with `type` and `name`")),
    }
    let Some(name) = tool["name"].as_str() else {
        return Err(wrong(&path(".name"), "is missing or not a string"));
    };
    let description = match &tool["description"] {
        Value::Null => "",
        Value::String(text) => text,
        _ => return Err(wrong(&path(".description"), "must be a string")),
    };
    let parameters = match &tool["parameters"] {
        Value::Null => json!({}),
        schema @ Value::Object(_) => schema.clone(),
        _ => return Err(wrong(&path(".parameters"), "must be a JSON schema, an object")),
    };
    Ok(Tool {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters,
    })
}

/// What clients expect of a function in a response.
fn complete(mut tool: Value) -> Value {
    if let Some(fields) = tool.as_object_mut() {
        for field in ["description", "parameters"] {
            fields.entry(field).or_insert(Value::Null);
        }
        // Arguments always keep to their schema.
        fields.entry("strict").or_insert(true.into());
    }
    tool
}

/// The choice; tools that it does not allow are taken out.
fn choice(choice: &Value, tools: &mut Vec<Tool>) -> Result<ToolChoice, ApiError> {
    let word = |path: &str, word: &Value| match word.as_str() {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        Some("required") => Ok(ToolChoice::Required),
        _ => {
            let what = "must be \"auto\", \"none\", \"required\", a function, or `allowed_tools`";
            Err(wrong(path, what))
        }
    };
    match (choice["type"].as_str(), choice) {
        (_, Value::Null) => Ok(ToolChoice::Auto),
        (Some("function"), _) => match choice["name"].as_str() {
            Some(name) => Ok(ToolChoice::Named(name.to_owned())),
            None => Err(wrong("tool_choice.name", "is missing or not a string")),
        },
        (Some("allowed_tools"), _) => {
            let Some(allowed) = choice["tools"].as_array() else {
                return Err(wrong("tool_choice.tools", "must be a list of functions"));
            };
            tools.retain(|tool| allowed.iter().any(|allowed| allowed["name"] == *tool.name));
            word("tool_choice.mode", &choice["mode"])
        }
        _ => word("tool_choice", choice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_read_and_told_back() {
        let functions = json!([{"type": "function", "name": "f", "parameters": {"type": "object"}}, {"type": "function", "name": "g"}]);
        let read = super::read(functions.clone(), json!(null)).unwrap();
        assert_eq!(read.tools.len(), 2);
        assert_eq!(read.tools[0].parameters, json!({"type": "object"}));
        assert_eq!((read.choice, read.told_choice), (ToolChoice::Auto, json!("auto")));
        assert_eq!(
            read.told[1],
            json!({"type": "function", "name": "g", "description": null, "parameters": null, "strict": true})
        );
        let named = super::read(functions.clone(), json!({"type": "function", "name": "g"})).unwrap();
        assert_eq!(named.choice, ToolChoice::Named("g".into()));
        let allowed =
            json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]});
        let allowed = super::read(functions, allowed).unwrap();
        assert_eq!(
            (allowed.choice, allowed.tools.len(), allowed.told.len()),
            (ToolChoice::Required, 1, 2)
        );
        assert_eq!(allowed.tools[0].name, "g");
    }

    #[test]
    fn mistakes_are_named() {
        for (tools, choice, expect) in [
            (json!(1), json!(null), "`tools` must be a list"),
            (json!([1]), json!(null), "`tools[0]` must be an object"),
            (
                json!([{"type": "web_search"}]),
                json!(null),
                "`tools[0].type` is `web_search`",
            ),
            (json!([{"type": "function"}]), json!(null), "`tools[0].name` is missing"),
            (
                json!([{"type": "function", "name": "f", "parameters": 1}]),
                json!(null),
                "`tools[0].parameters` must be",
            ),
            (json!(null), json!("f"), "`tool_choice` must be"),
            (
                json!(null),
                json!({"type": "function"}),
                "`tool_choice.name` is missing",
            ),
            (json!(null), json!({"type": "mcp"}), "`tool_choice` must be"),
            (
                json!(null),
                json!({"type": "allowed_tools"}),
                "`tool_choice.tools` must be",
            ),
        ] {
            let message = read(tools, choice).err().unwrap().to_string();
            assert!(message.contains(expect), "{message}");
        }
    }
}
