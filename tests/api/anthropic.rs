//! Anthropic's Messages API.

use std::io::Write;

use serde_json::{Value, json};

use crate::events::{events, names};
use crate::scripted::{Api, BODY_LIMIT, TEXT, client, read_until, request};

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

fn ask(script: &str) -> Value {
    json!({"max_tokens": 9, "messages": [{"role": "user", "content": script}]})
}

#[test]
fn whole_messages_are_what_anthropic_sends() {
    let api = Api::start();
    let (status, mut answer) = api.post(MESSAGES, &ask("say"));
    assert_eq!(status, 200, "{answer}");
    let id = answer["id"].take();
    assert!(id.as_str().unwrap().starts_with("msg_"));
    assert_eq!(
        answer,
        json!({
            "id": null, "type": "message", "role": "assistant", "model": "first",
            "content": [{"type": "text", "text": TEXT}],
            "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {
                "input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 3,
                "output_tokens_details": {"thinking_tokens": 0},
            },
        })
    );
    // Headers that its clients send.
    let response = client()
        .post(api.url(MESSAGES))
        .header("x-api-key", "any")
        .header("anthropic-version", "2023-06-01")
        .header("x-request-id", "mine")
        .body(ask("say").to_string())
        .send()
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["request-id"]),
        (200, &"mine".parse().unwrap())
    );
}

#[test]
fn streams_are_what_anthropic_sends() {
    let api = Api::start();
    let stream = events(&api, MESSAGES, ask("say"));
    assert_eq!(
        names(&stream),
        [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let text: String = stream
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str())
        .collect();
    assert_eq!(text, TEXT);
    assert_eq!(stream[0]["message"]["stop_reason"], Value::Null);
    let end = &stream[stream.len() - 2];
    assert_eq!(end["delta"], json!({"stop_reason": "end_turn", "stop_sequence": null}));
    assert_eq!(end["usage"]["cache_read_input_tokens"], 4);
    // The prompt's length is known at the start where the engine tells it.
    let stream = events(&api, MESSAGES, ask("progresses"));
    let usage = &stream[0]["message"]["usage"];
    assert_eq!(
        (&usage["input_tokens"], &usage["cache_read_input_tokens"]),
        (&json!(3), &json!(4))
    );
    // What breaks off in the middle.
    for script in ["broken", "vanishes"] {
        let stream = events(&api, MESSAGES, ask(script));
        let last = stream.last().unwrap();
        assert_eq!(
            (&last["type"], &last["error"]["type"]),
            (&json!("error"), &json!("api_error"))
        );
        assert!(names(&stream).contains(&"content_block_delta"));
    }
}

#[test]
fn requests_reach_the_model() {
    let api = Api::start();
    let told = |body: &Value| -> Value {
        let (status, answer) = api.post(MESSAGES, body);
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(answer["content"][0]["text"].as_str().unwrap()).unwrap()
    };
    let mut body = ask("tells");
    body["temperature"] = 0.5.into();
    assert_eq!(
        (&told(&body)["max_tokens"], &told(&body)["temperature"]),
        (&json!(9), &json!(0.5))
    );
    body["messages"] = json!([
        {"role": "user", "content": [{"type": "text", "text": "tells me"}]},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": [{"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]},
    ]);
    assert_eq!(
        told(&body)["prompt"],
        "<|im_start|>user\ntells me<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nb<|im_end|>\n\
         <|im_start|>assistant\n"
    );
}

#[test]
fn tokens_are_counted() {
    let api = Api::start();
    let body = json!({"system": "s", "messages": [{"role": "user", "content": "x"}]});
    let prompt = "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n";
    // Tokens are bytes here.
    assert_eq!(api.post(COUNT, &body), (200, json!({"input_tokens": prompt.len()})));
    assert_eq!(api.post(COUNT, &json!({})).1["error"]["type"], "invalid_request_error");
}

/// Whoever refuses a request: the error has Anthropic's envelope.
#[test]
fn all_errors_have_the_envelope() {
    let api = Api::start();
    let check = |response: reqwest::blocking::Response, status: u16, kind: &str, message: &str| {
        assert_eq!(response.status(), status);
        let id = response.headers()["request-id"].to_str().unwrap().to_owned();
        let body: Value = response.json().unwrap();
        assert_eq!(
            (&body["type"], &body["error"]["type"]),
            (&json!("error"), &json!(kind)),
            "{body}"
        );
        assert_eq!(body["request_id"], id);
        let told = body["error"]["message"].as_str().unwrap();
        assert!(told.contains(message), "{told}");
    };
    let post = |body: &Value| api.send(MESSAGES, body);
    let with = |field: &str, value: Value| {
        let mut body = ask("say");
        body[field] = value;
        body
    };
    let invalid = "invalid_request_error";
    check(
        post(&with("model", "third".into())),
        404,
        "not_found_error",
        "no model `third`",
    );
    check(
        post(&with("max_tokens", Value::Null)),
        400,
        invalid,
        "`max_tokens` is missing",
    );
    let image = json!([{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}]);
    check(post(&with("messages", image)), 400, invalid, "is of type `image`");
    check(
        post(&ask("long")),
        400,
        invalid,
        "prompt is too long: 9000 tokens > 4096 maximum",
    );
    check(
        post(&with("x", "x".repeat(BODY_LIMIT).into())),
        413,
        "request_too_large",
        "larger than",
    );
    check(post(&ask("loading")), 503, "overloaded_error", "loading");
    check(post(&ask("broken")), 500, "api_error", "out of luck");
    let full = post(&ask("full"));
    assert_eq!(full.headers()["retry-after"], "2");
    check(full, 429, "rate_limit_error", "queue");
    let raw = client().post(api.url(MESSAGES)).body("{").send().unwrap();
    check(raw, 400, invalid, "not valid JSON");
    check(
        client().get(api.url(MESSAGES)).send().unwrap(),
        405,
        invalid,
        "does not answer to GET",
    );
    check(
        client().get(api.url("/v1/messages/x")).send().unwrap(),
        404,
        "not_found_error",
        "nothing at",
    );
    let foreign = client().post(api.url(MESSAGES)).header("origin", "http://evil.com");
    check(
        foreign.body(ask("say").to_string()).send().unwrap(),
        403,
        "permission_error",
        "evil.com",
    );
    let mut socket = api.connect();
    socket.write_all(request(MESSAGES, &ask("panics")).as_bytes()).unwrap();
    let answer = read_until(&mut socket, "request_id");
    assert!(
        answer.starts_with("HTTP/1.1 500") && answer.contains("\"api_error\""),
        "{answer}"
    );
    // Elsewhere errors are OpenAI's.
    assert!(api.post("/v1/chat/completions", &json!({})).1.get("type").is_none());
}
