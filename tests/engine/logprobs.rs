//! How likely tokens were.

use serde_json::{Value, json};

use crate::common::{Server, stream};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn chunks(server: &Server, path: &str, body: &Value) -> Vec<Value> {
    let mut body = body.clone();
    body["stream"] = true.into();
    let lines = stream(server.address, path, &body);
    lines[..lines.len() - 1]
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn bytes(tokens: &[Value]) -> Vec<u8> {
    let bytes = tokens.iter().flat_map(|token| token["bytes"].as_array().unwrap());
    bytes
        .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
        .collect()
}

/// Checks one token of a chat's probabilities.
#[track_caller]
fn check(token: &Value, top: usize, greedy: bool) {
    let logprob = token["logprob"].as_f64().unwrap();
    assert!(logprob <= 0.0 && logprob > -100.0, "{token}");
    let others = token["top_logprobs"].as_array().unwrap();
    assert_eq!(others.len(), top);
    let values: Vec<f64> = others.iter().map(|other| other["logprob"].as_f64().unwrap()).collect();
    assert!(values.windows(2).all(|pair| pair[0] >= pair[1]), "{token}");
    assert!(values.iter().map(|value| value.exp()).sum::<f64>() <= 1.0001, "{token}");
    // A token is cut where a stop string begins in it.
    let begins = |other: &Value| {
        let (other, token) = (other["bytes"].as_array().unwrap(), token["bytes"].as_array().unwrap());
        other.starts_with(token)
    };
    assert!(
        values.iter().all(|value| *value >= logprob) || others.iter().any(begins),
        "{token}"
    );
    if greedy && top > 0 {
        assert_eq!((&others[0]["bytes"], values[0]), (&token["bytes"], logprob), "{token}");
    }
}

#[test]
fn chats_tell_how_likely_their_tokens_were() {
    let server = Server::start("");
    for (temperature, stop) in [(0.0, json!(null)), (1.2, json!("e"))] {
        let body = json!({
            "model": "demo-narrator", "temperature": temperature, "max_tokens": 40, "seed": 7, "stop": stop,
            "logprobs": true, "top_logprobs": 3, "messages": [{"role": "user", "content": "Tell me of the sea."}],
        });
        let (status, whole) = server.post(CHAT, &body);
        assert_eq!(status, 200, "{whole}");
        let parsed: async_openai::types::chat::CreateChatCompletionResponse =
            serde_json::from_value(whole.clone()).unwrap();
        assert!(parsed.choices[0].logprobs.is_some());
        let choice = &whole["choices"][0];
        let tokens = choice["logprobs"]["content"].as_array().unwrap();
        assert_eq!(
            String::from_utf8(bytes(tokens)).unwrap().trim(),
            choice["message"]["content"].as_str().unwrap().trim()
        );
        tokens.iter().for_each(|token| check(token, 3, temperature == 0.0));

        let chunks = chunks(&server, CHAT, &body);
        let streamed: Vec<Value> = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array())
            .flatten()
            .cloned()
            .collect();
        assert_eq!(streamed.len(), tokens.len());
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(String::from_utf8(bytes(&streamed)).unwrap().trim(), text.trim());
    }
    let silent = json!({"model": "demo-narrator", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(server.post(CHAT, &silent).1["choices"][0]["logprobs"], Value::Null);
}

#[test]
fn completions_tell_it_in_lists() {
    let server = Server::start("");
    let body = json!({"model": "demo-narrator", "prompt": "Once upon", "temperature": 0, "max_tokens": 20, "ignore_eos": true, "logprobs": 2});
    let (status, whole) = server.post(COMPLETIONS, &body);
    assert_eq!(status, 200, "{whole}");
    let parsed: async_openai::types::completions::CreateCompletionResponse =
        serde_json::from_value(whole.clone()).unwrap();
    let logprobs = parsed.choices[0].logprobs.clone().unwrap();
    assert_eq!(logprobs.tokens.concat(), parsed.choices[0].text);
    assert_eq!(logprobs.tokens.len(), 20);
    assert_eq!(logprobs.text_offset[0], 0);
    let chunks = chunks(&server, COMPLETIONS, &body);
    let lists = |name: &str| -> Vec<Value> {
        let lists = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["logprobs"][name].as_array());
        lists.flatten().cloned().collect()
    };
    let expect = &whole["choices"][0]["logprobs"];
    for name in ["tokens", "text_offset"] {
        assert_eq!(json!(lists(name)), expect[name], "{name}");
    }
    for (field, value) in [
        ("logprobs", json!(21)),
        ("top_logprobs", json!(2)),
        ("n_probs", json!(1000)),
    ] {
        let (status, body) = server.post(COMPLETIONS, &json!({"prompt": "x", (field): value}));
        assert_eq!((status, &body["error"]["param"]), (400, &json!(field)), "{body}");
    }
}
