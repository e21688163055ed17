//! Generation over a WebSocket.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Error, Message, WebSocket};

use crate::scripted::{Api, BODY_LIMIT, SOON, TEXT, chat, client};

type Socket = WebSocket<TcpStream>;

fn connect_from(api: &Api, origin: Option<&str>) -> Result<Socket, Box<Error>> {
    let mut request = format!("ws://{}/api/v1/stream", api.address)
        .into_client_request()
        .unwrap();
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    match tungstenite::client(request, api.connect()) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(error)) => Err(Box::new(error)),
        Err(error) => panic!("{error}"),
    }
}

fn connect(api: &Api) -> Socket {
    connect_from(api, None).unwrap()
}

fn send(socket: &mut Socket, body: &Value) {
    socket.send(Message::text(body.to_string())).unwrap();
}

/// The next event.
fn event(socket: &mut Socket) -> Value {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The text of an answer, and how it ends.
fn answer(socket: &mut Socket) -> (String, Value) {
    let mut text = String::new();
    loop {
        let event = event(socket);
        match event["delta"]["content"].as_str() {
            Some(more) => text += more,
            None => return (text, event),
        }
    }
}

#[test]
fn answers_come_in_pieces_one_after_the_other() {
    let api = Api::start();
    let mut socket = connect(&api);
    for body in [
        chat("say"),
        json!({"prompt": "say"}),
        json!({"prompt": "say", "raw": true, "type": "generate"}),
    ] {
        send(&mut socket, &body);
        let (text, end) = answer(&mut socket);
        assert_eq!(text, TEXT);
        let done = &end["done"];
        assert_eq!(
            (&done["model"], &done["finish_reason"]),
            (&json!("first"), &json!("stop"))
        );
        assert_eq!(done["usage"]["total_tokens"], 10);
        assert_eq!(done["timings"]["predicted_n"], 3);
    }
    let mut body = chat("progresses");
    body["return_progress"] = true.into();
    body["model"] = "second-alias".into();
    send(&mut socket, &body);
    assert_eq!(event(&mut socket)["prompt_progress"]["processed"], 7);
    assert_eq!(event(&mut socket)["done"]["model"], "second");
    let expect: String = (0..20_000).map(|step| format!("{step} ")).collect();
    send(&mut socket, &chat("bursts"));
    assert_eq!(answer(&mut socket).0, expect);
}

#[test]
fn mistakes_are_told_and_the_socket_stays() {
    let api = Api::start();
    let mut socket = connect(&api);
    for (body, code, param) in [
        (json!({"prompt": 5}), json!(null), json!("prompt")),
        (json!({}), json!(null), json!("prompt")),
        (json!({"type": "sing"}), json!(null), json!("type")),
        (json!({"messages": [{}]}), json!(null), json!("messages[0].role")),
        (json!({"messages": [], "prompt": "x"}), json!(null), json!("prompt")),
        (
            json!({"prompt": "say", "temperature": "hot"}),
            json!(null),
            json!("temperature"),
        ),
        (
            json!({"prompt": "say", "model": "nobody"}),
            json!("model_not_found"),
            json!("model"),
        ),
        (json!({"prompt": "full"}), json!("queue_full"), json!(null)),
    ] {
        send(&mut socket, &body);
        let error = event(&mut socket)["error"].clone();
        assert_eq!((&error["code"], &error["param"]), (&code, &param), "{body}: {error}");
    }
    for text in ["", "no JSON", "[]"] {
        socket.send(Message::text(text)).unwrap();
        assert_eq!(event(&mut socket)["error"]["type"], "invalid_request_error");
    }
    for script in ["broken", "vanishes"] {
        send(&mut socket, &json!({"prompt": script, "raw": true}));
        let (text, end) = answer(&mut socket);
        assert_eq!(
            (text.as_str(), &end["error"]["type"]),
            ("begun", &json!("server_error"))
        );
    }
    send(&mut socket, &chat("say"));
    assert_eq!(answer(&mut socket).0, TEXT);
}

/// That the API let go of a request soon.
#[track_caller]
fn was_let_go(api: &Api) {
    api.left.recv_timeout(SOON).expect("the request is let go");
}

#[test]
fn one_answer_at_a_time_until_it_is_cancelled() {
    let api = Api::start();
    let mut socket = connect(&api);
    // Where there is nothing to cancel, nothing happens.
    send(&mut socket, &json!({"type": "cancel"}));
    for script in ["decodes", "waits", "pending"] {
        send(&mut socket, &chat(script));
        // Until it has reached the engine.
        std::thread::sleep(Duration::from_millis(100));
        send(&mut socket, &chat("say"));
        let busy = loop {
            let event = event(&mut socket);
            if event.get("delta").is_none() {
                break event;
            }
        };
        assert_eq!(busy["error"]["code"], "busy", "{busy}");
        send(&mut socket, &json!({"type": "cancel"}));
        let (_, end) = answer(&mut socket);
        assert_eq!(
            end["done"],
            json!({"model": "first", "finish_reason": null, "usage": null, "timings": null})
        );
        was_let_go(&api);
    }
    send(&mut socket, &chat("say"));
    assert_eq!(answer(&mut socket).0, TEXT);
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let api = Api::start();
    for script in ["decodes", "prefills", "waits", "pending"] {
        for politely in [false, true] {
            let mut socket = connect(&api);
            let mut body = chat(script);
            body["return_progress"] = true.into();
            send(&mut socket, &body);
            if ["decodes", "prefills"].contains(&script) {
                event(&mut socket);
            } else {
                std::thread::sleep(Duration::from_millis(50));
            }
            if politely {
                socket.close(None).unwrap();
                let _ = socket.flush();
            }
            drop(socket);
            was_let_go(&api);
        }
    }
}

#[test]
fn pages_of_others_get_no_socket() {
    let api = Api::start();
    let own = format!("http://localhost:{}", api.address.port());
    for origin in ["http://evil.com", "http://localhost:3000", "null", &own] {
        let Err(error) = connect_from(&api, Some(origin)) else {
            panic!("{origin}")
        };
        assert!(
            matches!(*error, Error::Http(response) if response.status() == 403),
            "{origin}"
        );
    }
    // The page of the very address that is asked.
    let own = format!("http://{}", api.address);
    assert!(connect_from(&api, Some(&own)).is_ok());
    let answer = client().get(api.url("/api/v1/stream")).send().unwrap();
    assert_eq!(answer.status(), 426);
}

#[test]
fn messages_are_bounded_texts() {
    let api = Api::start();
    let mut socket = connect(&api);
    let whole = chat(&format!("say {}", "x".repeat(BODY_LIMIT / 2)));
    send(&mut socket, &whole);
    assert_eq!(answer(&mut socket).0, TEXT);
    let ended = |socket: &mut Socket| loop {
        match socket.read() {
            Ok(Message::Close(_)) | Err(_) => return,
            Ok(_) => {}
        }
    };
    let _ = socket.send(Message::text("x".repeat(BODY_LIMIT + 1)));
    ended(&mut socket);
    let mut socket = connect(&api);
    socket.send(Message::binary(vec![1, 2])).unwrap();
    ended(&mut socket);
    // A ping is answered.
    let mut socket = connect(&api);
    socket.send(Message::Ping("hi".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("hi".into()));
}

#[test]
fn an_idle_socket_does_not_hold_up_the_end() {
    let api = Api::with(hearth::engine::Health::ShuttingDown);
    let mut socket = connect(&api);
    let started = Instant::now();
    while socket.read().is_ok() {}
    assert!(started.elapsed() < Duration::from_secs(10));
    drop(socket);
    assert!(api.stop() < Duration::from_secs(15));
}
