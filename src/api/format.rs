//! The form of an answer that a request asks for: `response_format` and its like of llama-server and vLLM.

use serde_json::{Map, Value};

use super::body::Body;
use super::error::ApiError;
use super::limits;
use crate::generation::OutputFormat;
use crate::grammar::{choice_to_grammar, regex_to_grammar};

/// The fields that [`read`] reads.
pub(super) const FIELDS: [&str; 9] = [
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "json_schema",
    "regex",
    "response_format",
    "structured_outputs",
];

/// At most one of the fields may be given.
pub(super) fn read(body: &Body) -> Result<OutputFormat, ApiError> {
    let mut formats = Vec::with_capacity(FIELDS.len());
    for field in FIELDS {
        let value = body.field(field);
        let format = match field {
            "response_format" => response_format(value)?,
            "structured_outputs" => structured_outputs(value)?,
            "json_schema" | "guided_json" => json_schema(field, value)?,
            "regex" | "guided_regex" => regex(field, value)?,
            "guided_choice" => choice(field, value)?,
            _ => grammar(field, value)?,
        };
        formats.push((field, format));
    }
    // In the order of what clients use most, for the message.
    formats.sort_by_key(|(field, _)| *field != "response_format");
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
    let schema = |field: &str, schema: &Value, strict: bool| match schema {
        Value::Object(_) => Ok(of_schema(schema.clone(), strict)),
        Value::Null => Err(wrong(field, "is missing")),
        _ => Err(wrong(field, "must be a JSON schema, an object")),
    };
    match format["type"].as_str() {
        Some("text") => Ok(OutputFormat::Text),
        // llama-server takes a schema here as well.
        Some("json_object") if !format["schema"].is_null() => schema(".schema", &format["schema"], false),
        Some("json_object") => Ok(OutputFormat::JsonObject),
        Some("json_schema") if !format["schema"].is_null() => schema(".schema", &format["schema"], false),
        Some("json_schema") => {
            let named = &format["json_schema"];
            let strict = match &named["strict"] {
                Value::Null => false,
                Value::Bool(strict) => *strict,
                _ => return Err(wrong(".json_schema.strict", "must be true or false")),
            };
            schema(".json_schema.schema", &named["schema"], strict)
        }
        _ => Err(wrong(".type", "must be \"text\", \"json_object\" or \"json_schema\"")),
    }
}

fn of_schema(schema: Value, strict: bool) -> OutputFormat {
    OutputFormat::JsonSchema { schema, strict }
}

/// vLLM's newer form: an object with one of these.
fn structured_outputs(outputs: &Value) -> Result<OutputFormat, ApiError> {
    let field = "structured_outputs";
    let wrong = || {
        let message =
            format!("`{field}` must be an object with one of `json`, `regex`, `choice`, `grammar` and `json_object`");
        ApiError::field(field, message)
    };
    let Some(outputs) = outputs.as_object() else {
        return if outputs.is_null() {
            Ok(OutputFormat::Text)
        } else {
            Err(wrong())
        };
    };
    let mut given = outputs
        .iter()
        .filter(|(_, value)| !value.is_null() && **value != Value::Bool(false));
    let (Some((name, value)), None) = (given.next(), given.next()) else {
        return Err(wrong());
    };
    match name.as_str() {
        "json" => json_schema(field, value),
        "regex" => regex(field, value),
        "choice" => choice(field, value),
        "grammar" => grammar(field, value),
        "json_object" => Ok(OutputFormat::JsonObject),
        _ => Err(wrong()),
    }
}

fn json_schema(field: &str, schema: &Value) -> Result<OutputFormat, ApiError> {
    let wrong = || ApiError::field(field, format!("`{field}` must be a JSON schema, an object"));
    match schema {
        Value::Null => Ok(OutputFormat::Text),
        Value::Object(_) => Ok(of_schema(schema.clone(), false)),
        // As text it is what llama-server's own clients send.
        Value::String(text) => match serde_json::from_str::<Map<String, Value>>(text) {
            Ok(schema) => Ok(of_schema(schema.into(), false)),
            Err(_) => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn regex(field: &str, pattern: &Value) -> Result<OutputFormat, ApiError> {
    match pattern {
        Value::Null => Ok(OutputFormat::Text),
        Value::String(pattern) => match regex_to_grammar(pattern) {
            Ok(grammar) => Ok(OutputFormat::Grammar(grammar)),
            Err(error) => Err(ApiError::field(field, format!("`{field}`: {error}"))),
        },
        _ => Err(ApiError::field(
            field,
            format!("`{field}` must be a regular expression, a string"),
        )),
    }
}

fn choice(field: &str, choices: &Value) -> Result<OutputFormat, ApiError> {
    let wrong = || {
        let message = format!("`{field}` must be a list of 1 to {} texts", limits::OUTPUT_CHOICES);
        ApiError::field(field, message)
    };
    if choices.is_null() {
        return Ok(OutputFormat::Text);
    }
    let choices = choices.as_array().ok_or_else(wrong)?;
    let texts: Option<Vec<String>> = choices
        .iter()
        .map(|choice| choice.as_str().map(str::to_owned))
        .collect();
    let texts = texts.filter(|texts| (1..=limits::OUTPUT_CHOICES).contains(&texts.len()));
    Ok(OutputFormat::Grammar(choice_to_grammar(&texts.ok_or_else(wrong)?)))
}

fn grammar(field: &str, grammar: &Value) -> Result<OutputFormat, ApiError> {
    match grammar {
        Value::Null => Ok(OutputFormat::Text),
        Value::String(text) if text.is_empty() => Ok(OutputFormat::Text),
        Value::String(text) => Ok(OutputFormat::Grammar(text.clone())),
        _ => Err(ApiError::field(field, format!("`{field}` must be a string in GBNF"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_form_has_many_places() {
        let schema = json!({"type": "object"});
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
                of_schema(schema.clone(), true),
            ),
            (json!({"json_schema": schema}), of_schema(schema.clone(), false)),
            (
                json!({"json_schema": schema.to_string()}),
                of_schema(schema.clone(), false),
            ),
            (
                json!({"grammar": "root ::= \"a\""}),
                OutputFormat::Grammar("root ::= \"a\"".into()),
            ),
            (json!({"regex": "a"}), OutputFormat::Grammar("root ::= \"a\"\n".into())),
            (
                json!({"structured_outputs": {"choice": ["a"]}}),
                OutputFormat::Grammar("root ::= \"a\"\n".into()),
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
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"strict": 1, "schema": {}}}}),
                "`response_format.json_schema.strict` must be",
            ),
            (json!({"json_schema": 3}), "`json_schema` must be"),
            (json!({"json_schema": "{"}), "`json_schema` must be"),
            (json!({"grammar": {}}), "`grammar` must be a string"),
            (
                json!({"grammar": "x", "json_schema": schema}),
                "`grammar` and `json_schema` both",
            ),
            (json!({"regex": "("}), "`regex`: the regular expression"),
            (json!({"guided_choice": []}), "`guided_choice` must be a list"),
            (
                json!({"structured_outputs": {"regex": "a", "choice": ["b"]}}),
                "`structured_outputs` must be",
            ),
        ] {
            let message = read(&Body::of_value(body)).unwrap_err().to_string();
            assert!(message.contains(expect), "{message}");
        }
    }
}
