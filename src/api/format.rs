//! The form of an answer that a request asks for: `response_format`, `json_schema` or `grammar`.

use serde_json::{Map, Value};

use super::body::Body;
use super::error::ApiError;
use crate::generation::OutputFormat;

/// The fields that [`read`] reads.
pub(super) const FIELDS: [&str; 3] = ["grammar", "json_schema", "response_format"];

/// At most one of the three may be given.
pub(super) fn read(body: &Body) -> Result<OutputFormat, ApiError> {
    let formats = [
        ("response_format", response_format(body.field("response_format"))?),
        ("json_schema", json_schema(body.field("json_schema"))?),
        ("grammar", grammar(body.field("grammar"))?),
    ];
    let mut given = formats.into_iter().filter(|(_, format)| *format != OutputFormat::Text);
    let (first, second) = (given.next(), given.next());
    if let (Some((first, _)), Some((second, _))) = (&first, second) {
        let message = format!("`{first}` and `{second}` both say what the answer must look like");
        return Err(ApiError::field(second, message));
    }
    Ok(first.map_or(OutputFormat::Text, |(_, format)| format))
}

fn response_format(format: &Value) -> Result<OutputFormat, ApiError> {
    let wrong = |field: &str, what: &str| {
        let path = format!("response_format{field}");
        ApiError::field(path.clone(), format!("`{path}` {what}"))
    };
    if format.is_null() {
        return Ok(OutputFormat::Text);
    }
    if !format.is_object() {
        return Err(wrong("", "must be an object with `type`"));
    }
    let schema = |field: &str, schema: &Value| match schema {
        Value::Object(_) => Ok(OutputFormat::JsonSchema(schema.clone())),
        Value::Null => Err(wrong(field, "is missing")),
        _ => Err(wrong(field, "must be a JSON schema, an object")),
    };
    match format["type"].as_str() {
        Some("text") => Ok(OutputFormat::Text),
        // llama-server takes a schema here as well.
        Some("json_object") if !format["schema"].is_null() => schema(".schema", &format["schema"]),
        Some("json_object") => Ok(OutputFormat::JsonObject),
        Some("json_schema") if !format["schema"].is_null() => schema(".schema", &format["schema"]),
        Some("json_schema") => schema(".json_schema.schema", &format["json_schema"]["schema"]),
        _ => Err(wrong(".type", "must be \"text\", \"json_object\" or \"json_schema\"")),
    }
}

fn json_schema(schema: &Value) -> Result<OutputFormat, ApiError> {
    let wrong = || ApiError::field("json_schema", "`json_schema` must be a JSON schema, an object");
    match schema {
        Value::Null => Ok(OutputFormat::Text),
        Value::Object(_) => Ok(OutputFormat::JsonSchema(schema.clone())),
        // As text it is what llama-server's own clients send.
        Value::String(text) => match serde_json::from_str::<Map<String, Value>>(text) {
            Ok(schema) => Ok(OutputFormat::JsonSchema(schema.into())),
            Err(_) => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn grammar(grammar: &Value) -> Result<OutputFormat, ApiError> {
    match grammar {
        Value::Null => Ok(OutputFormat::Text),
        Value::String(text) if text.is_empty() => Ok(OutputFormat::Text),
        Value::String(text) => Ok(OutputFormat::Grammar(text.clone())),
        _ => Err(ApiError::field("grammar", "`grammar` must be a string in GBNF")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_form_has_three_places() {
        let schema = json!({"type": "object"});
        let of_schema = OutputFormat::JsonSchema(schema.clone());
        for (body, expect) in [
            (json!({}), OutputFormat::Text),
            (
                json!({"response_format": {"type": "text"}, "grammar": ""}),
                OutputFormat::Text,
            ),
            (
                json!({"response_format": {"type": "json_object"}}),
                OutputFormat::JsonObject,
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}}}),
                of_schema.clone(),
            ),
            (json!({"json_schema": schema}), of_schema.clone()),
            (json!({"json_schema": schema.to_string()}), of_schema),
            (
                json!({"grammar": "root ::= \"a\""}),
                OutputFormat::Grammar("root ::= \"a\"".into()),
            ),
        ] {
            assert_eq!(read(&Body::of_value(body.clone())).unwrap(), expect, "{body}");
        }
        for (body, expect) in [
            (
                json!({"response_format": "json"}),
                "`response_format` must be an object",
            ),
            (
                json!({"response_format": {"type": "yaml"}}),
                "`response_format.type` must be",
            ),
            (
                json!({"response_format": {"type": "json_schema"}}),
                "`response_format.json_schema.schema` is missing",
            ),
            (json!({"json_schema": 3}), "`json_schema` must be"),
            (json!({"json_schema": "{"}), "`json_schema` must be"),
            (json!({"grammar": {}}), "`grammar` must be a string"),
            (
                json!({"grammar": "x", "json_schema": schema}),
                "`json_schema` and `grammar` both",
            ),
        ] {
            let message = read(&Body::of_value(body)).unwrap_err().to_string();
            assert!(message.contains(expect), "{message}");
        }
    }
}
