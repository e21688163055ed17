//! Forms that an answer must have, at a temperature at which models write nonsense: calls that are required or named, and
//! strict schemas, by the built-in reasoner and by a model of random weights.

#[path = "common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::Server;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const ANSWERS: usize = 100;
/// Requests at a time.
const CLIENTS: usize = 4;

fn tools() -> Value {
    let tool = |name: &str, properties: Value| {
        let required: Vec<&String> = properties.as_object().unwrap().keys().collect();
        json!({"type": "function", "function": {"name": name, "description": "A tool", "parameters": {
            "type": "object", "properties": properties, "required": required, "additionalProperties": false}}})
    };
    json!([
        tool(
            "get_weather",
            json!({"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 14}})
        ),
        tool(
            "play",
            json!({"song": {"type": "string", "maxLength": 12}, "loud": {"type": "boolean"}})
        ),
    ])
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "phone": {"type": "string", "pattern": r"^\d{3}-[^a-z]{2}\w$"},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "kind": {"enum": ["rain", "sun"]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 3},
            "next": {"anyOf": [{"type": "null"}, {"type": "string", "format": "date"}]},
        },
        "required": ["name", "phone", "age", "kind", "tags", "next"],
        "additionalProperties": false,
    })
}

/// Writes a model of random weights, and starts a server with it; calls look as the built-in reasoner's.
fn random_model(folder: &Path, template: &str) -> Server {
    let (file, template_file) = (folder.join("random.gguf"), folder.join("template.jinja"));
    std::fs::write(&template_file, template).unwrap();
    let shape = Shape::preset(Arch::Qwen3next, "tiny").unwrap();
    let synthetic = Synthetic::new(shape, Mix::from_name("q4_k_m").unwrap());
    synthetic.write(&file, |_, _| ()).unwrap();
    let config = format!(
        "[server]\nport = 0\n[[model]]\nname = \"random\"\npath = {file:?}\nchat_template = {template_file:?}\nparallel = 4\n"
    );
    Server::configured(&config, 1, None)
}

/// Asks a hundred times; `valid` judges a choice that was not cut off. At least `least` must have come to an end.
fn hold(server: &Server, model: &str, extra: &Value, least: usize, valid: impl Fn(&Value) -> bool + Sync) {
    let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= ANSWERS {
                        break;
                    }
                    let mut body = json!({"model": model, "temperature": 1.5, "seed": number, "max_tokens": 250,
                        "messages": [{"role": "user", "content": format!("Do something, number {number}.")}]});
                    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
                    let (status, answer) = server.post(CHAT, &body);
                    assert_eq!(status, 200, "{answer}");
                    let choice = &answer["choices"][0];
                    if choice["finish_reason"] != "length" {
                        assert!(valid(choice), "{model}, {extra}: {choice}");
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let ended = ended.into_inner();
    println!("{model}: {ended} of {ANSWERS} ended, and were valid");
    assert!(ended >= least, "{model}, {extra}: only {ended} answers ended");
}

fn calls(choice: &Value) -> impl Iterator<Item = (&str, Value)> {
    let calls = choice["message"]["tool_calls"].as_array().into_iter().flatten();
    calls.map(|call| {
        let arguments = call["function"]["arguments"].as_str().unwrap();
        let arguments = serde_json::from_str(arguments).unwrap_or_else(|error| panic!("{error}: {arguments}"));
        (call["function"]["name"].as_str().unwrap(), arguments)
    })
}

fn all_hold(server: &Server, model: &str, fields: &Value, least: usize) {
    let tools = tools();
    let validators: Vec<(String, jsonschema::Validator)> = tools
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| {
            let function = &tool["function"];
            let validator = jsonschema::validator_for(&function["parameters"]).unwrap();
            (function["name"].as_str().unwrap().to_owned(), validator)
        })
        .collect();
    let valid = |name: &str, arguments: &Value| {
        let (_, validator) = validators.iter().find(|(known, _)| known == name).unwrap();
        validator.is_valid(arguments)
    };
    let with = |extra: &Value| {
        let mut fields = fields.clone();
        fields
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        fields
    };
    let required = json!({"tools": tools, "tool_choice": "required"});
    hold(server, model, &with(&required), least, |choice| {
        calls(choice).count() > 0 && calls(choice).all(|(name, arguments)| valid(name, &arguments))
    });
    let named = json!({"tools": tools, "tool_choice": {"type": "function", "function": {"name": "play"}}});
    hold(server, model, &with(&named), least, |choice| {
        calls(choice).count() > 0 && calls(choice).all(|(name, arguments)| name == "play" && valid(name, &arguments))
    });
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let format = json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}}});
    hold(server, model, &with(&format), least, |choice| {
        let text = choice["message"]["content"].as_str().unwrap();
        let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        validator.is_valid(&value)
    });
}

#[test]
fn the_built_in_reasoner_keeps_to_forms() {
    let server = Server::start("");
    all_hold(
        &server,
        "demo-reasoner",
        &json!({"parallel_tool_calls": false}),
        ANSWERS / 2,
    );
}

#[test]
fn a_random_model_keeps_to_forms() {
    let template = {
        let built_in = Server::start("");
        let (_, properties) = built_in.get("/props?model=demo-reasoner");
        properties["chat_template"].as_str().unwrap().to_owned()
    };
    let folder = tempfile::tempdir().unwrap();
    let server = random_model(folder.path(), &template);
    // It would neither end its thoughts nor its list of calls.
    let short = json!({"parallel_tool_calls": false, "chat_template_kwargs": {"enable_thinking": false}});
    all_hold(&server, "random", &short, ANSWERS * 3 / 4);
}
