//! Answers that keep to a grammar, at a temperature at which the demo models say anything.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Server, stream};

const COMPLETIONS: &str = "/v1/completions";

fn ask(server: &Server, more: &Value) -> (u16, Value) {
    let mut body = json!({"model": "demo-narrator", "prompt": "Once", "max_tokens": 200, "temperature": 1.5});
    for (field, value) in more.as_object().unwrap() {
        body[field] = value.clone();
    }
    server.post(COMPLETIONS, &body)
}

/// The text of a complete answer; `None` if it was cut off.
#[track_caller]
fn text(server: &Server, more: &Value) -> Option<String> {
    let (status, body) = ask(server, more);
    assert_eq!(status, 200, "{more}: {body}");
    let choice = &body["choices"][0];
    let text = choice["text"].as_str().unwrap().to_owned();
    match choice["finish_reason"].as_str() {
        Some("stop") => Some(text),
        Some("length") => None,
        _ => panic!("{body}"),
    }
}

#[test]
fn answers_keep_to_their_grammar() {
    let server = Server::start("");
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false,
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut complete = 0;
    for seed in 0..12 {
        for model in ["demo-narrator", "demo-reasoner"] {
            for greedy in [false, true] {
                let mut body = json!({"model": model, "json_schema": schema, "seed": seed});
                if greedy {
                    body["temperature"] = 0.into();
                }
                let Some(text) = text(&server, &body) else { continue };
                complete += 1;
                let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
                assert!(validator.is_valid(&value), "{text}");
            }
        }
    }
    assert!(complete >= 40, "{complete} of 48 answers were complete");

    for seed in 0..8 {
        let with = |field: &str, value: Value| text(&server, &json!({ (field): value, "seed": seed })).unwrap();
        let date = with("regex", json!("20[0-9]{2}-(0[1-9]|1[0-2])"));
        assert!(date.len() == 7 && date.starts_with("20"), "{date}");
        let choice = with("guided_choice", json!(["yes", "no \"thanks\"", "日本"]));
        assert!(["yes", "no \"thanks\"", "日本"].contains(&choice.as_str()), "{choice}");
        let choice = with("structured_outputs", json!({"choice": ["red", "green"]}));
        assert!(["red", "green"].contains(&choice.as_str()), "{choice}");
        let list = with("grammar", json!("root ::= item (\", \" item){2}\nitem ::= [a-z]{2,4}"));
        assert_eq!(
            list.split(", ").filter(|item| (2..=4).contains(&item.len())).count(),
            3,
            "{list}"
        );
    }
}

#[test]
fn a_grammar_streams_and_ends_as_it_must() {
    let server = Server::start("");
    let body = json!({"model": "demo-narrator", "prompt": "Once", "stream": true, "temperature": 1.5, "ignore_eos": true,
        "grammar": "root ::= [a-z]{30} \"!\""});
    let lines = stream(server.address, COMPLETIONS, &body);
    let chunks: Vec<Value> = lines[..lines.len() - 1]
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
        .collect();
    assert!(text.len() == 31 && text.ends_with('!'), "{text}");
    // Although the model's own end is ignored: nothing else may come.
    assert!(
        chunks
            .iter()
            .any(|chunk| chunk["choices"][0]["finish_reason"] == "stop"),
        "{chunks:?}"
    );
    // A grammar that is used up by `max_tokens` is cut off as any other text.
    let (_, cut) = ask(&server, &json!({"grammar": "root ::= [a-z]{300}", "max_tokens": 5}));
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
}

#[test]
fn grammars_that_cannot_be_followed_are_refused_at_once() {
    let server = Server::start("");
    let nested = format!("root ::= {}\"a\"", "(".repeat(50_000));
    let mut deep = json!({"type": "string"});
    for _ in 0..110 {
        deep = json!({"type": "array", "items": deep});
    }
    let endless = json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"properties": {"x": {"allOf": [{"$ref": "#/$defs/a"}]}}}}});
    for (field, value, expect) in [
        ("grammar", json!("root ::= "), ""),
        ("grammar", json!("root := \"a\""), "`::=` is expected"),
        ("grammar", json!("root ::= root \"a\" | \"b\""), "left recursion"),
        (
            "grammar",
            json!("root ::= a root \"x\" | \"y\"\na ::= b\nb ::= \"z\" | \"\""),
            "left recursion",
        ),
        ("grammar", json!("a ::= \"b\""), "no rule `root`"),
        (
            "grammar",
            json!("root ::= (((\"a\"{1000}){1000}){1000}){1000}"),
            "too large",
        ),
        ("grammar", json!(nested), "brackets nest deeper"),
        ("grammar", json!("root ::= <[999999]>"), "not a token"),
        ("json_schema", json!({"type": "nothing"}), "no type `nothing`"),
        (
            "json_schema",
            json!({"type": "string", "maxLength": 10_000_000}),
            "`maxLength`",
        ),
        ("json_schema", json!({"$ref": "#/$defs/none"}), "not in the schema"),
        ("json_schema", deep, "nest deeper"),
        ("json_schema", endless, "nest deeper"),
        ("regex", json!("(a"), "regular expression"),
        ("regex", json!("(?<=a)b"), "regular expression"),
    ] {
        let started = Instant::now();
        let (status, body) = ask(&server, &json!({ (field): value }));
        let took = started.elapsed();
        if expect.is_empty() {
            // An empty text is the only one; it is complete at once.
            assert_eq!((status, &body["choices"][0]["text"]), (200, &json!("")), "{body}");
            continue;
        }
        let error = &body["error"];
        assert_eq!((status, &error["param"]), (400, &json!(field)), "{body}");
        assert!(error["message"].as_str().unwrap().contains(expect), "{expect}: {body}");
        assert!(took < Duration::from_secs(5), "{field} {expect}: {took:?}");
    }
    // The server is none the worse.
    assert!(text(&server, &json!({"regex": "[a-z]{5}"})).is_some());
}
