//! Errors before and in the middle of an answer.

use std::io::Write;

use serde_json::{Value, json};

use crate::scripted::{Api, CHAT, chat, read_until, request};

#[test]
fn errors_become_statuses_before_the_first_byte() {
    let api = Api::start();
    for streams in [false, true] {
        let send = |script: &str| {
            let mut body = chat(script);
            body["stream"] = streams.into();
            let response = api.send(CHAT, &body);
            let retry = response.headers().get("retry-after").cloned();
            let retry = retry.map(|retry| retry.to_str().unwrap().parse::<u32>().unwrap());
            let status = response.status().as_u16();
            (status, retry, response.json::<Value>().unwrap()["error"].clone())
        };
        let (status, retry, error) = send("full");
        assert_eq!((status, retry, &error["code"]), (429, Some(2), &json!("queue_full")));
        let (status, retry, error) = send("loading");
        assert_eq!((status, &error["type"]), (503, &json!("unavailable_error")));
        assert!(retry.is_some_and(|retry| retry >= 1));
        let (status, _, error) = send("long");
        assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
        assert_eq!(
            (&error["n_prompt_tokens"], &error["n_ctx"]),
            (&json!(9000), &json!(4096))
        );
        assert_eq!(error["param"], "messages");
        for name in ["message", "type", "param", "code"] {
            assert!(error.get(name).is_some(), "{name}");
        }
    }
    let (_, body) = api.post("/v1/completions", &json!({"prompt": "long"}));
    assert_eq!(body["error"]["param"], "prompt");
}

#[test]
fn failures_in_mid_answer_are_told() {
    let api = Api::start();
    for script in ["broken", "vanishes"] {
        let lines = api.stream(CHAT, chat(script));
        let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
        assert_eq!(last["error"]["type"], "server_error", "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("begun")));
        let (status, body) = api.post(CHAT, &chat(script));
        assert_eq!((status, &body["error"]["type"]), (500, &json!("server_error")));
    }
}

#[test]
fn a_panic_is_a_500_and_the_connection_stays() {
    let api = Api::start();
    let mut socket = api.connect();
    socket.write_all(request(CHAT, &chat("panics")).as_bytes()).unwrap();
    let head = read_until(&mut socket, "\"server_error\"");
    assert!(
        head.starts_with("HTTP/1.1 500") && head.contains("x-request-id: "),
        "{head}"
    );
    socket.write_all(request(CHAT, &chat("say")).as_bytes()).unwrap();
    read_until(&mut socket, "HTTP/1.1 200");
}
