//! Texts as vectors, by a second context of the narrator and by a model that does nothing else.

use serde_json::{Value, json};

use crate::common::Server;

const EMBEDDINGS: &str = "/v1/embeddings";

fn vector(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect()
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-3)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn base64(text: &str) -> Vec<f64> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = text
        .bytes()
        .filter_map(|byte| ALPHABET.iter().position(|other| *other == byte))
        .fold(Vec::new(), |mut bits, value| {
            bits.extend((0..6).rev().map(|bit| u8::from(value >> bit & 1 == 1)));
            bits
        });
    bits.truncate(bits.len() / 8 * 8);
    let bytes: Vec<u8> = bits
        .chunks(8)
        .map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit))
        .collect();
    let floats = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    floats.map(f64::from).collect()
}

#[test]
fn a_model_that_generates_makes_embeddings_too() {
    let server = Server::start("embeddings = true");
    for model in ["demo-narrator", "demo-reasoner"] {
        let embed = |more: Value| {
            let mut body = json!({ "model": model });
            for (field, value) in more.as_object().unwrap() {
                body[field] = value.clone();
            }
            let (status, body) = server.post(EMBEDDINGS, &body);
            assert_eq!(status, 200, "{body}");
            body
        };
        let texts = [
            "The sea is calm.",
            "The sea is quiet.",
            "7 times 8 is 56",
            "The sea is calm.",
        ];
        let body = embed(json!({ "input": texts }));
        let vectors: Vec<Vec<f64>> = body["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|data| vector(&data["embedding"]))
            .collect();
        assert_eq!(vectors.len(), 4);
        for vector in &vectors {
            assert!((dot(vector, vector) - 1.0).abs() < 1e-4, "{vector:?}");
        }
        assert!(close(&vectors[0], &vectors[3]), "{model}");
        assert!(dot(&vectors[0], &vectors[1]) > dot(&vectors[0], &vectors[2]), "{model}");
        assert_eq!(body["usage"]["prompt_tokens"], body["usage"]["total_tokens"]);
        assert_eq!(
            (&body["object"], &body["data"][2]["index"]),
            (&json!("list"), &json!(2))
        );
        // A text by itself gives what it gives among others, and in other forms.
        let alone = embed(json!({ "input": texts[1] }));
        assert!(close(&vector(&alone["data"][0]["embedding"]), &vectors[1]), "{model}");
        let text = embed(json!({"input": texts[1], "encoding_format": "base64"}));
        assert!(
            close(&base64(text["data"][0]["embedding"].as_str().unwrap()), &vectors[1]),
            "{model}"
        );
        let (_, tokens) = server.post(
            "/tokenize",
            &json!({"model": model, "content": texts[1], "add_special": true}),
        );
        let tokens = embed(json!({"input": tokens["tokens"]}));
        assert!(close(&vector(&tokens["data"][0]["embedding"]), &vectors[1]), "{model}");
        let short = embed(json!({"input": texts[1], "dimensions": 16}));
        let short = vector(&short["data"][0]["embedding"]);
        assert!(short.len() == 16 && (dot(&short, &short) - 1.0).abs() < 1e-4);
        // llama-server's shape.
        let (_, native) = server.post("/embedding", &json!({"model": model, "content": texts[1]}));
        assert!(close(&vector(&native[0]["embedding"][0]), &vectors[1]), "{native}");
        let (_, raw) = server.post(
            "/embeddings",
            &json!({"model": model, "input": texts, "embd_normalize": -1}),
        );
        assert_eq!(raw.as_array().unwrap().len(), 4);
        // While it generates, too.
        let (status, body) = server.post(
            "/v1/completions",
            &json!({"model": model, "prompt": "a", "max_tokens": 4}),
        );
        assert_eq!(status, 200, "{body}");
    }
    for (body, param) in [
        (json!({"input": []}), "input"),
        (json!({"input": ""}), "input"),
        (json!({"input": {"a": 1}}), "input"),
        (json!({"input": [1_000_000]}), "input"),
        (json!({"input": "a", "dimensions": 0}), "dimensions"),
        (json!({"input": "a", "dimensions": 100_000}), "dimensions"),
    ] {
        let (status, answer) = server.post(EMBEDDINGS, &body);
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &json!(param)),
            "{body}: {answer}"
        );
    }
    let (status, answer) = server.post(EMBEDDINGS, &json!({"input": "word ".repeat(20_000)}));
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("context_length_exceeded")),
        "{answer}"
    );
    let (status, answer) = server.post("/v1/rerank", &json!({"query": "a", "documents": ["b"]}));
    assert_eq!(
        (status, &answer["error"]["type"]),
        (501, &json!("not_supported_error")),
        "{answer}"
    );
}

#[test]
fn a_model_may_make_nothing_but_embeddings() {
    let text = "[server]\nport = 0\nshutdown_grace = \"2s\"\n\
        [[model]]\nname = \"vectors\"\nrole = \"embedding\"\npath = \"demo:narrator\"\npooling = \"last\"\n\
        [[model]]\nname = \"texts\"\npath = \"demo:reasoner\"\n";
    let server = Server::configured(text, 1, None);
    // The role finds it.
    let (status, body) = server.post(EMBEDDINGS, &json!({"model": "embedding", "input": ["a", "b"]}));
    assert_eq!((status, &body["model"]), (200, &json!("vectors")), "{body}");
    for (path, body) in [
        (EMBEDDINGS, json!({"model": "texts", "input": "a"})),
        ("/v1/completions", json!({"model": "vectors", "prompt": "a"})),
        (
            "/v1/chat/completions",
            json!({"model": "vectors", "messages": [{"role": "user", "content": "a"}]}),
        ),
    ] {
        let (status, answer) = server.post(path, &body);
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &json!("model")),
            "{path}: {answer}"
        );
    }
    assert!(server.terminate().success());
}
