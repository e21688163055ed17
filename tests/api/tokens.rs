//! `/tokenize` and `/detokenize` of long texts: answers come in parts.

use serde_json::{Value, json};

use crate::scripted::{Api, client};

/// More than one part, and characters that are split between tokens and parts.
fn long() -> String {
    "wörld 🦙 \"q\" \\ \n".repeat(1000)
}

#[test]
fn long_texts_are_tokenized_in_parts() {
    let api = Api::start();
    let text = long();
    let ids: Vec<Value> = text.bytes().map(|byte| json!(byte)).collect();
    let (status, answer) = api.post("/tokenize", &json!({ "content": text }));
    assert_eq!(status, 200);
    assert!(answer == json!({ "tokens": ids }));
    let (_, answer) = api.post("/tokenize", &json!({"content": text, "with_pieces": true}));
    let tokens = answer["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), text.len());
    for (token, byte) in tokens.iter().zip(text.bytes()) {
        // A byte of a longer character is no text by itself.
        let piece = if byte.is_ascii() {
            json!(char::from(byte).to_string())
        } else {
            json!([byte])
        };
        assert_eq!(token, &json!({"id": byte, "piece": piece}));
    }
    let (status, answer) = api.post("/detokenize", &json!({ "tokens": ids }));
    assert_eq!(status, 200);
    assert!(answer == json!({ "content": text }));
    // Nobody knows the length of what is made while it is sent.
    for (path, body) in [
        ("/tokenize", json!({"content": text, "with_pieces": true})),
        ("/detokenize", json!({ "tokens": ids })),
    ] {
        let request = client().post(api.url(path)).body(body.to_string());
        let headers = request.send().unwrap().headers().clone();
        assert!(!headers.contains_key("content-length"), "{path}: {headers:?}");
        assert_eq!(headers["transfer-encoding"], "chunked", "{path}");
    }
    let (_, short) = api.post("/detokenize", &json!({"tokens": [0xf0, 0x9f, 65]}));
    assert_eq!(short["content"], "\u{fffd}A");
}

#[test]
fn too_much_and_unknown_tokens_are_refused() {
    let api = Api::configured(hearth::engine::Health::Ready, hearth::config::ServerConfig::default());
    let mut many = vec![65; 10_000];
    many[9_000] = 256;
    let (status, error) = api.post("/detokenize", &json!({ "tokens": many }));
    assert_eq!((status, &error["error"]["param"]), (400, &json!("tokens")), "{error}");
    let (status, _) = api.post("/detokenize", &json!({"tokens": [-1]}));
    assert_eq!(status, 400);
}
