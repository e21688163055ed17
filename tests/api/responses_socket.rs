//! Responses over a WebSocket.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::events::names;
use crate::scripted::{Api, BODY_LIMIT, SOON, TEXT};

/// A client with as little of the protocol as a test needs.
struct Client(TcpStream);

const TEXT_FRAME: u8 = 1;
const BINARY_FRAME: u8 = 2;
const CLOSE_FRAME: u8 = 8;
const PING_FRAME: u8 = 9;
const PONG_FRAME: u8 = 10;

impl Client {
    fn connect(api: &Api) -> Self {
        let (client, head) = Self::try_connect(api, "");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        client
    }

    /// With further headers.
    fn try_connect(api: &Api, headers: &str) -> (Self, String) {
        let mut socket = api.connect();
        let request = format!(
            "GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        (Self(socket), String::from_utf8(head).unwrap())
    }

    fn send(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | kind];
        match u16::try_from(payload.len()) {
            Ok(length @ 0..126) => frame.push(0x80 | u8::try_from(length).unwrap()),
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend((payload.len() as u64).to_be_bytes());
            }
        }
        // A mask of zeros changes nothing.
        frame.extend([0; 4]);
        frame.extend(payload);
        // The server need not read what is too large.
        let _ = self.0.write_all(&frame);
    }

    fn ask(&mut self, mut body: Value) {
        body["type"] = "response.create".into();
        self.send(TEXT_FRAME, body.to_string().as_bytes());
    }

    /// The next frame: its kind and what is in it.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.0.read_exact(&mut length).unwrap();
                usize::try_from(u64::from_be_bytes(length)).unwrap()
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).unwrap();
        (head[0] & 0x0f, payload)
    }

    /// The next frame that is no ping.
    fn frame_behind_ping(&mut self) -> (u8, Vec<u8>) {
        loop {
            match self.frame() {
                (PING_FRAME, _) => {}
                frame => return frame,
            }
        }
    }

    /// The next message.
    fn event(&mut self) -> Value {
        loop {
            let (kind, payload) = self.frame();
            match kind {
                PING_FRAME => self.send(PONG_FRAME, &payload),
                TEXT_FRAME => return serde_json::from_slice(&payload).unwrap(),
                kind => panic!("a frame of kind {kind}: {}", String::from_utf8_lossy(&payload)),
            }
        }
    }

    /// All events of an answer.
    fn events(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.event();
            let name = event["type"].as_str().unwrap().to_owned();
            events.push(event);
            let ends = ["response.completed", "response.incomplete", "response.failed", "error"];
            if ends.contains(&name.as_str()) {
                return events;
            }
        }
    }
}

#[test]
fn a_socket_answers_one_request_after_the_other() {
    let api = Api::start();
    let mut client = Client::connect(&api);
    client.ask(json!({"input": "say"}));
    client.ask(json!({"input": "say", "stream_id": "lane"}));
    for lane in [json!(null), json!("lane")] {
        let events = client.events();
        assert_eq!((names(&events)[0], names(&events).len()), ("response.created", 9));
        for (number, event) in events.iter().enumerate() {
            assert_eq!(
                (&event["sequence_number"], &event["stream_id"]),
                (&json!(number), &lane)
            );
        }
        let response = &events[events.len() - 1]["response"];
        assert_eq!(response["output"][0]["content"][0]["text"], TEXT);
        let id = response["id"].as_str().unwrap();
        assert_eq!(api.get(&format!("/v1/responses/{id}")).0, 200);
    }
}

#[test]
fn a_socket_remembers_its_latest_response() {
    let api = Api::start();
    let mut client = Client::connect(&api);
    client.ask(json!({"input": "tells", "store": false}));
    let first = client.events().pop().unwrap()["response"].take();
    let continued = json!({"input": "more", "store": false, "previous_response_id": first["id"]});
    client.ask(continued.clone());
    let second = client.events().pop().unwrap()["response"].take();
    let text = second["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("tells") && text.contains("more"), "{text}");
    // Only the latest one, and nobody else does.
    client.ask(continued.clone());
    assert_eq!(client.event()["error"]["code"], "previous_response_not_found");
    assert_eq!(api.post("/v1/responses", &continued).0, 400);
    // A request that wants no answer prepares one.
    client.ask(json!({"input": "tells", "generate": false}));
    let events = client.events();
    assert_eq!(
        names(&events),
        ["response.created", "response.in_progress", "response.completed"]
    );
    client.ask(json!({"input": "more", "previous_response_id": events[2]["response"]["id"]}));
    let text = client.events().pop().unwrap()["response"]["output"][0]["content"][0]["text"].take();
    assert!(text.as_str().unwrap().contains("tells"), "{text}");
}

#[test]
fn mistakes_are_told_and_the_socket_stays() {
    let api = Api::start();
    let mut client = Client::connect(&api);
    for (message, status, param) in [
        ("{", 400, json!(null)),
        ("[]", 400, json!(null)),
        ("{\"type\":\"response.steer\"}", 400, json!("type")),
        ("{\"type\":\"response.create\"}", 400, json!("input")),
        (
            "{\"type\":\"response.create\",\"input\":\"say\",\"model\":\"third\"}",
            404,
            json!("model"),
        ),
        ("{\"type\":\"response.create\",\"input\":\"full\"}", 429, json!(null)),
    ] {
        client.send(TEXT_FRAME, message.as_bytes());
        let event = client.event();
        assert_eq!(
            (&event["type"], &event["status"]),
            (&json!("error"), &json!(status)),
            "{event}"
        );
        assert_eq!(event["error"]["param"], param, "{event}");
    }
    client.send(BINARY_FRAME, b"{}");
    assert_eq!(client.event()["error"]["message"], "messages must be text");
    client.ask(json!({"input": "broken"}));
    assert_eq!(client.events().pop().unwrap()["type"], "response.failed");
    client.ask(json!({"input": "waits"}));
    assert_eq!(client.event()["type"], "response.created");
    assert_eq!(client.event()["type"], "response.in_progress");
    for _ in 0..17 {
        client.ask(json!({"input": "say"}));
    }
    let refused = client.event();
    assert!(
        refused["error"]["message"].as_str().unwrap().contains("too many"),
        "{refused}"
    );
}

#[test]
fn a_client_that_leaves_ends_its_answer() {
    let api = Api::start();
    for closes in [false, true] {
        let mut client = Client::connect(&api);
        client.ask(json!({"input": "decodes"}));
        while client.event()["type"] != "response.output_text.delta" {}
        if closes {
            client.send(CLOSE_FRAME, &1000_u16.to_be_bytes());
        } else {
            drop(client);
        }
        api.left.recv_timeout(SOON).expect("the answer ends");
    }
}

#[test]
fn foreign_pages_and_large_messages_are_refused() {
    let api = Api::start();
    let (_, head) = Client::try_connect(&api, "Origin: http://evil.com\r\n");
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let (_, head) = Client::try_connect(&api, "Origin: http://localhost\r\n");
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let mut client = Client::connect(&api);
    client.send(TEXT_FRAME, &vec![b' '; BODY_LIMIT + 1]);
    let (kind, reason) = client.frame_behind_ping();
    assert_eq!((kind, &reason[..2]), (CLOSE_FRAME, &1009_u16.to_be_bytes()[..]));
    client = Client::connect(&api);
    client.send(PING_FRAME, b"hello");
    assert_eq!(client.frame_behind_ping(), (PONG_FRAME, b"hello".to_vec()));
}
