//! Arbitrary JSON as schemas of answers and of arguments: checks, `common`'s converter, our matcher, and the parser on an
//! answer that fits.
//!
//! The first byte is the way in, the second the template; then comes a schema as text up to 0x1f, or bytes of which one is
//! made. The rest chooses the answer.
#![no_main]

mod model;

use std::sync::Arc;

use hearth::generation::{
    ChatBackend, ChatRequest, Conversation, LocalBackend, Message, Options, OutputFormat, Role, TextPrompt,
    TextRequest, ToolChoice,
};
use libfuzzer_sys::{Corpus, fuzz_target};
use model::{Bytes, Chooser, TEMPLATES, block_on, check, tool};
use serde_json::{Map, Value, json};

const PATTERNS: [&str; 12] = [
    "^[a-z]+$",
    "^(a|b)*c?$",
    "^.{2,3}$",
    "a",
    "^\\d{4}-\\d\\d$",
    "^(",
    "^[^\\]\"]$",
    "^a{1000}$",
    "^((a*)*)*$",
    "^\\\"\\u00e9$",
    "^$",
    "^[a\\-z]|b.{0,}$",
];
const KINDS: [&str; 7] = ["object", "array", "string", "integer", "number", "boolean", "null"];
const NAMES: [&str; 8] = ["a", "ab", "city", "", "a b", "\"q\"", "é", "$defs"];

/// A schema, or nearly one.
fn schema(bytes: &mut Bytes, depth: usize) -> Value {
    if depth == 0 || bytes.one_in(16) {
        return bytes.json(2);
    }
    let mut fields = Map::new();
    for _ in 0..=bytes.below(5) {
        let some = |bytes: &mut Bytes| -> Value { (0..bytes.below(4)).map(|_| schema(bytes, depth - 1)).collect() };
        let named = |bytes: &mut Bytes| {
            let count = bytes.below(5);
            Value::Object(
                (0..count)
                    .map(|_| (bytes.of(&NAMES).to_owned(), schema(bytes, depth - 1)))
                    .collect(),
            )
        };
        let (key, value) = match bytes.below(22) {
            0..=3 => ("type", bytes.of(&KINDS).into()),
            4 => ("type", (0..bytes.below(3)).map(|_| bytes.of(&KINDS)).collect()),
            5..=7 => ("properties", named(bytes)),
            8 => ("required", (0..bytes.below(4)).map(|_| bytes.of(&NAMES)).collect()),
            9 => ("items", schema(bytes, depth - 1)),
            10 => (
                "additionalProperties",
                if bytes.one_in(2) {
                    bytes.one_in(2).into()
                } else {
                    schema(bytes, depth - 1)
                },
            ),
            11 => (
                bytes.of(&["anyOf", "oneOf", "allOf", "prefixItems", "items"]),
                some(bytes),
            ),
            12 => (
                "$ref",
                bytes
                    .of(&["#/$defs/a", "#/$defs/ab", "#/properties/a", "#/", "#", "#/anyOf/0"])
                    .into(),
            ),
            13 | 14 => ("$defs", named(bytes)),
            15 => ("enum", (0..bytes.below(4)).map(|_| bytes.json(1)).collect()),
            16 => ("const", bytes.json(2)),
            17 => (
                "pattern",
                if bytes.one_in(4) {
                    bytes.text().into()
                } else {
                    bytes.of(&PATTERNS).into()
                },
            ),
            18 => (
                bytes.of(&["minLength", "maxLength", "minItems", "maxItems"]),
                bytes.of(&[0, 1, 2, 7, 100, 20_000]).into(),
            ),
            19 => (
                bytes.of(&["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]),
                bytes.json(0),
            ),
            20 => (
                "format",
                bytes
                    .of(&["date", "time", "date-time", "uuid", "uuid4", "email"])
                    .into(),
            ),
            _ => (
                bytes.of(&["description", "title", "default", "not", "nullable"]),
                bytes.json(1),
            ),
        };
        fields.insert(key.to_owned(), value);
    }
    fields.into()
}

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let [way, template, rest @ ..] = bytes else {
        return Corpus::Reject;
    };
    let cut = rest.iter().position(|byte| *byte == 0x1f);
    let (schema, choices) = match cut {
        Some(cut) => match serde_json::from_slice(&rest[..cut]) {
            Ok(schema) => (schema, &rest[cut + 1..]),
            Err(_) => return Corpus::Reject,
        },
        None => {
            let mut bytes = Bytes(rest);
            (schema(&mut bytes, 4), bytes.0)
        }
    };
    let template = &TEMPLATES[usize::from(*template) % TEMPLATES.len()];
    let backend = LocalBackend::new(Arc::new(Chooser::new(template, choices)));
    let mut request = ChatRequest {
        conversation: Conversation {
            messages: vec![Message::new(Role::User, "hi")],
            ..Conversation::default()
        },
        ..ChatRequest::default()
    };
    let parameters = |schema: Value| match schema {
        Value::Object(mut fields) => {
            fields.insert("type".into(), "object".into());
            fields.into()
        }
        other => json!({"type": "object", "properties": {"a": other}, "required": ["a"]}),
    };
    let outcome = block_on(async {
        let stream = match way % 4 {
            0 => {
                let options = Options {
                    format: OutputFormat::JsonSchema { schema, strict: false },
                    ..Options::default()
                };
                backend
                    .continue_text(TextRequest {
                        prompts: vec![TextPrompt::from("hi".to_owned())],
                        options,
                    })
                    .await
            }
            1 => {
                request.options.format = OutputFormat::JsonSchema { schema, strict: false };
                backend.chat(request).await
            }
            way => {
                let other = json!({"type": "object", "properties": {"city": {"type": "string"}}});
                request.conversation.tools = vec![tool("weather", parameters(schema)), tool("weather_map", other)];
                request.conversation.tool_choice = if way == 2 {
                    ToolChoice::Required
                } else {
                    ToolChoice::Auto
                };
                backend.chat(request).await
            }
        };
        stream?.collect().await
    });
    check(outcome);
    Corpus::Keep
});
