//! Bodies that are too large, or wrong.

use std::io::Write;

use serde_json::json;

use crate::scripted::{Api, BODY_LIMIT, CHAT, chat, client, read_until};

#[test]
fn bodies_are_bounded() {
    let api = Api::start();
    let mut socket = api.connect();
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    // Refused by its announcement: nothing of it needs to be sent.
    let answer = read_until(&mut socket, "body_limit");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut socket = api.connect();
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    let part = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..=BODY_LIMIT / 0x10000 {
        socket.write_all(part.as_bytes()).unwrap();
    }
    let answer = read_until(&mut socket, "body_limit");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    // Large, but within the limit: parsed and rendered away from the workers.
    let (status, body) = api.post(CHAT, &chat(&format!("say {}", "x".repeat(500_000))));
    assert_eq!(status, 200, "{body}");
    let (status, body) = api.post(CHAT, &json!({"messages": "x".repeat(500_000)}));
    assert_eq!((status, &body["error"]["param"]), (400, &json!("messages")));
}

#[test]
fn bad_bodies_name_the_place() {
    let api = Api::start();
    let check = |body: &[u8], expect: &str| {
        let response = client().post(api.url(CHAT)).body(body.to_vec()).send().unwrap();
        let status = response.status();
        let text = response.text().unwrap();
        assert!(status == 400 && text.contains(expect), "{status} {text}, not {expect}");
    };
    check(b"", "not valid JSON");
    check(b"{\"model\": \"x\",\n \"messages\" []}", "line 2 column 13");
    check(b"{\"model\": \"\xFF\"}", "not valid UTF-8 at byte 11");
    check(&b"[".repeat(100_000), "not valid JSON");
    check(b"null", "must be a JSON object");
    check(b"{\"temperature\": 1e999}", "not valid JSON");
    check(b"{\"temperature\": \"hot\", \"messages\": []}", "`temperature`");
    check(
        b"{\"stream_options\": {\"include_usage\": 3}}",
        "`stream_options.include_usage`",
    );
    check(b"{\"model\": 5, \"messages\": []}", "`model`");
    let (status, body) = api.post("/tokenize", &json!({"content": "x", "model": 5}));
    assert_eq!((status, &body["error"]["param"]), (400, &json!("model")));
    let (status, body) = api.post("/tokenize", &json!({}));
    assert!(
        status == 400 && body["error"]["message"] == "missing field `content`",
        "{body}"
    );
}
