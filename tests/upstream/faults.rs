//! Servers that misbehave in every way, and what clients see of it.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Server, client, stream};
use crate::scripted::{CONTEXT, Request, Scripted, done, ends, head, put, refuse, says, whole};

pub const KEY: &str = "sk-very-secret-0815";

/// hearth before such a server; its log is kept.
pub fn before(upstream: &Scripted, settings: &str) -> Server {
    let defaults = [
        ("first_byte_timeout", "\"1s\""),
        ("idle_timeout", "\"1s\""),
        ("retries", "1"),
    ];
    let defaults = defaults.iter().filter(|(name, _)| !settings.contains(name));
    let defaults: String = defaults.map(|(name, value)| format!("{name} = {value}, ")).collect();
    let text = format!(
        "[server]\nport = 0\n[[model]]\nname = \"m\"\nupstream = {{ base_url = \"http://{}/v1\", model = \"there\", \
         api_key_env = \"UPSTREAM_KEY_OF_TEST\", {defaults}{settings} }}\n",
        upstream.address
    );
    let server = Server::logged(&text, &[("UPSTREAM_KEY_OF_TEST", KEY.into())]);
    server.wait_until_ready();
    server
}

fn hello(streams: bool) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": streams})
}

/// Asks, and gives back the status, what `Retry-After` says, and the body.
fn ask(server: &Server, body: &Value) -> (u16, Option<String>, Value) {
    let url = format!("http://{}/v1/chat/completions", server.address);
    let response = client().post(url).body(body.to_string()).send().unwrap();
    let status = response.status().as_u16();
    let after = response.headers().get("retry-after");
    let after = after.map(|after| after.to_str().unwrap().to_owned());
    (status, after, response.json().unwrap())
}

fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap_or_default()
}

#[test]
fn what_is_asked_and_answered_is_passed_on() {
    let delta = |delta: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    let upstream = Scripted::streaming(&[
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"reasoning": "so"})),
        delta(json!({"content": "yes"})),
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}}),
    ]);
    let server = before(&upstream, "");
    let mut body = hello(false);
    body["top_k"] = 5.into();
    let (status, _, answer) = ask(&server, &body);
    assert_eq!(status, 200, "{answer}");
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["reasoning_content"]),
        (&json!("yes"), &json!("so"))
    );
    assert_eq!(answer["model"], "m");
    let usage = &answer["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"]),
        (&json!(10), &json!(5))
    );
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 4);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 2);
    let Request {
        path: asked, key, body, ..
    } = upstream.requests().remove(0);
    assert_eq!(
        (asked.as_str(), key.as_deref()),
        ("/v1/chat/completions", Some(format!("Bearer {KEY}").as_str()))
    );
    assert_eq!(
        (&body["model"], &body["top_k"], &body["stream"]),
        (&json!("there"), &json!(5), &json!(true))
    );

    // Anthropic's form of the same.
    let request = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]});
    let (status, answer) = server.post("/v1/messages", &request);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["content"][0]["thinking"], "so");
    assert_eq!(
        (&answer["content"][1]["text"], &answer["stop_sequence"]),
        (&json!("yes"), &json!("END"))
    );

    // What the server tells of its model, what only tokens could do, and no key anywhere.
    let (_, models) = server.get("/v1/models");
    assert_eq!(models["data"][0]["max_model_len"], CONTEXT);
    for (path, request) in [
        ("/tokenize", json!({"content": "a"})),
        (
            "/apply-template",
            json!({"messages": [{"role": "user", "content": "a"}]}),
        ),
        (
            "/v1/messages/count_tokens",
            json!({"messages": [{"role": "user", "content": "a"}]}),
        ),
    ] {
        let (status, answer) = server.post(path, &request);
        assert_eq!(status, 501, "{path}: {answer}");
        assert!(answer.to_string().contains("another server"), "{answer}");
    }
    assert!((server.metric("hearth_upstream_requests_total", "m") - 2.0).abs() < 0.5);
    assert!((server.metric("hearth_generation_tokens_total", "m") - 10.0).abs() < 0.5);
    for path in ["/props", "/slots", "/v1/models", "/readyz"] {
        assert!(!server.get(path).1.to_string().contains(KEY), "{path}");
    }
    let metrics = client()
        .get(format!("http://{}/metrics", server.address))
        .send()
        .unwrap()
        .text()
        .unwrap();
    assert!(!metrics.contains(KEY));
    assert!(!server.log().contains(KEY));
}

#[test]
fn refusals_become_errors_that_say_what_to_do() {
    let elsewhere = Scripted::streaming(&[says("stolen"), ends()]);
    let target = elsewhere.address;
    // By what the client writes.
    let upstream = Scripted::start(move |request, socket| {
        let asked = request.body["messages"][0]["content"].as_str().unwrap_or_default();
        match asked {
            "401" => refuse(
                socket,
                "401 Unauthorized",
                "",
                &format!("Incorrect API key provided: {KEY}"),
            ),
            "400" => refuse(socket, "400 Bad Request", "", &format!("temperature is odd, {KEY}")),
            "404" => refuse(socket, "404 Not Found", "", "no such model"),
            "429" => refuse(socket, "429 Too Many Requests", "Retry-After: 1200\r\n", "slow down"),
            "500" => refuse(socket, "500 Internal Server Error", "", "I died"),
            "long" => refuse(
                socket,
                "400 Bad Request",
                "",
                "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4900 in the messages, 100 in the completion).",
            ),
            "302" => whole(
                socket,
                "302 Found",
                "text/html",
                &format!("Location: http://{target}/v1/chat/completions\r\n"),
                "",
            ),
            "page" => whole(socket, "200 OK", "text/html", "", "<html>Welcome</html>"),
            "502" => whole(socket, "502 Bad Gateway", "text/html", "", "<html>nginx</html>"),
            "json" => whole(socket, "200 OK", "application/json", "", "{\"choices\": []}"),
            "told" => {
                head(socket);
                put(socket, &json!({"error": {"message": "out of memory", "code": 500}}));
            }
            "empty" => {
                head(socket);
                done(socket);
            }
            _ => unreachable!("{asked}"),
        }
    });
    // The breaker must not hide what is tried here.
    let server = before(&upstream, "breaker_failures = 1000");
    for (asked, status, says, requests) in [
        ("401", 502, "refuses the API key", 1),
        ("400", 400, "temperature is odd, [key]", 1),
        ("404", 502, "no such model", 1),
        ("long", 400, "context", 1),
        ("302", 502, "redirect", 1),
        ("page", 502, "text/html", 1),
        ("json", 502, "application/json", 1),
        // These may pass: one more try.
        ("500", 502, "I died", 2),
        ("502", 502, "502", 2),
        ("told", 502, "out of memory", 2),
        ("empty", 502, "before the answer began", 2),
    ] {
        for streams in [false, true] {
            let before = upstream.requests().len();
            let mut body = hello(streams);
            body["messages"][0]["content"] = asked.into();
            let (found, _, answer) = ask(&server, &body);
            assert_eq!(found, status, "{asked}: {answer}");
            assert!(message(&answer).contains(says), "{asked}: {answer}");
            assert!(!answer.to_string().contains(KEY), "{asked}: {answer}");
            assert!(!answer.to_string().contains("<html>"), "{asked}: {answer}");
            assert_eq!(upstream.requests().len() - before, requests, "{asked}");
        }
    }
    let mut body = hello(false);
    body["messages"][0]["content"] = "long".into();
    let (_, _, answer) = ask(&server, &body);
    assert_eq!(answer["error"]["code"], "context_length_exceeded");
    assert_eq!(
        (&answer["error"]["n_prompt_tokens"], &answer["error"]["n_ctx"]),
        (&json!(4900), &json!(4096))
    );
    // Nobody waits for 20 minutes, and the client is told how long it takes. Until then the server is left alone.
    body["messages"][0]["content"] = "429".into();
    let before = upstream.requests().len();
    let (status, after, answer) = ask(&server, &body);
    assert_eq!((status, after.as_deref()), (429, Some("1200")), "{answer}");
    let (status, after, answer) = ask(&server, &body);
    assert_eq!(status, 429, "{answer}");
    assert!(after.unwrap().parse::<u32>().unwrap() <= 60);
    assert_eq!(upstream.requests().len() - before, 1);
    assert!(elsewhere.requests().is_empty());
    assert!(!server.log().contains(KEY));
}

#[test]
fn what_may_pass_is_tried_again() {
    let upstream = Scripted::start(|request, socket| match request.number {
        0 => refuse(socket, "500 Internal Server Error", "", "once"),
        2 => refuse(socket, "429 Too Many Requests", "Retry-After: 1\r\n", "soon"),
        // Gone before anything came.
        4 => {}
        6 => head(socket),
        _ => {
            head(socket);
            put(socket, &says("yes"));
            put(socket, &ends());
            // Neither counts nor [DONE] come.
        }
    });
    let server = before(&upstream, "");
    for round in 0..4 {
        let start = Instant::now();
        let (status, _, answer) = ask(&server, &hello(false));
        assert_eq!(status, 200, "round {round}: {answer}");
        assert_eq!(answer["choices"][0]["message"]["content"], "yes");
        if round == 1 {
            assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After is kept");
        }
    }
    assert_eq!(upstream.requests().len(), 8);
}

/// Streams that go wrong after they began.
fn broken(upstream: impl Fn(&mut TcpStream) + Send + Sync + 'static, settings: &str, expect: &str) {
    let upstream = Scripted::start(move |_, socket| {
        head(socket);
        put(socket, &says("Once"));
        upstream(socket);
    });
    let server = before(&upstream, settings);
    let lines = stream(server.address, "/v1/chat/completions", &hello(true));
    let chunks: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<&str> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(texts, ["Once"], "{chunks:?}");
    let last = chunks.last().unwrap();
    assert!(message(last).contains(expect), "{expect}: {last}");
    // No second try after the first byte.
    assert_eq!(upstream.requests().len(), 1);
    // As a whole it is an error, not half an answer.
    let (status, _, answer) = ask(&server, &hello(false));
    assert!(status >= 500, "{status}: {answer}");
    assert!(message(&answer).contains(expect), "{expect}: {answer}");
}

#[test]
fn streams_that_break_say_so() {
    broken(|_| {}, "", "in the middle of the answer");
    broken(
        |socket| put(socket, &json!({"error": {"message": "out of memory"}})),
        "",
        "out of memory",
    );
    broken(
        |socket| socket.write_all(b"data: {\"choices\": [\n\n").unwrap(),
        "",
        "not valid JSON",
    );
    broken(|socket| socket.write_all(b"data: \xff\n\n").unwrap(), "", "not text");
    broken(
        |socket| {
            // hearth hangs up in the middle.
            let line = vec![b'x'; 1 << 20];
            let _ = (0..64).try_for_each(|_| socket.write_all(&line));
        },
        "",
        "more than 4194304 bytes",
    );
    broken(
        |socket| put(socket, &json!({"choices": [{"index": 7, "delta": {"content": "x"}}]})),
        "",
        "not asked for",
    );
}

#[test]
fn lies_about_the_length_are_found_out() {
    for (length, expect) in [(1_000_000, "broke"), (60, "in the middle")] {
        let upstream = Scripted::start(move |_, socket| {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).unwrap();
            put(socket, &says("Once"));
            put(socket, &says(" upon a time"));
        });
        let server = before(&upstream, "retries = 0");
        let (status, _, answer) = ask(&server, &hello(false));
        assert_eq!(status, 502, "{answer}");
        assert!(
            message(&answer).contains(expect) || message(&answer).contains("before the answer began"),
            "{answer}"
        );
    }
}

#[test]
fn silence_has_an_end_and_slowness_is_none() {
    let wait = Duration::from_secs(20);
    // Nothing at all.
    let upstream = Scripted::start(move |_, _| std::thread::sleep(wait));
    let server = before(&upstream, "");
    let start = Instant::now();
    let (status, _, answer) = ask(&server, &hello(true));
    assert_eq!(
        (status, &answer["error"]["code"]),
        (504, &json!("upstream_timeout")),
        "{answer}"
    );
    assert!(start.elapsed() < wait / 2);
    // A head, and nothing behind it.
    let upstream = Scripted::start(move |_, socket| {
        head(socket);
        std::thread::sleep(wait);
    });
    let server = before(&upstream, "");
    assert_eq!(ask(&server, &hello(true)).0, 504);
    // In the middle.
    broken(move |_| std::thread::sleep(wait), "", "idle_timeout");
    // Without end.
    broken(
        |socket| {
            while socket.write_all(b": ping\n\n").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        },
        "total_timeout = \"2s\"",
        "total_timeout",
    );
    // Slower than the pause between two events, in pieces of a byte, but never silent.
    let upstream = Scripted::start(|_, socket| {
        head(socket);
        let answer = format!("data: {}\n\ndata: {}\n\ndata: [DONE]\n\n", says("slow"), ends());
        for byte in answer.bytes() {
            socket.write_all(&[byte]).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let server = before(&upstream, "first_byte_timeout = \"30s\"");
    let (status, _, answer) = ask(&server, &hello(false));
    assert_eq!(
        (status, &answer["choices"][0]["message"]["content"]),
        (200, &json!("slow")),
        "{answer}"
    );
}

#[test]
fn a_server_that_is_not_there_is_no_reason_to_end() {
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let text = format!(
        "[server]\nport = 0\n[[model]]\nname = \"m\"\nupstream = {{ base_url = \"http://{free}/v1\", breaker_failures = 2, \
         breaker_pause = \"30s\", retries = 0 }}\n"
    );
    let server = Server::begin(&text, 1, None);
    for _ in 0..2 {
        let (status, _, answer) = ask(&server, &hello(false));
        assert_eq!(status, 502, "{answer}");
        assert!(message(&answer).contains(&free.to_string()), "{answer}");
    }
    // The breaker is open: the answer comes at once, and says when to come back.
    let (status, after, answer) = ask(&server, &hello(false));
    assert_eq!(status, 503, "{answer}");
    assert!((1..=30).contains(&after.unwrap().parse::<u32>().unwrap()));
    assert!((server.metric("hearth_upstream_breaker_state", "m") - 2.0).abs() < 0.5);
    assert_eq!(server.get("/readyz").0, 503);
    assert_eq!(server.get("/livez").0, 200);
}
