//! The HTTP layer over a scripted engine: what a real one shows too rarely, or at moments that a test cannot choose.
//!
//! The first word of the prompt is the script, see [`Scripted::play`].

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hearth::api::{State, bind};
use hearth::config::ServerConfig;
use hearth::engine::{
    Engine, EngineError, Event, EventStream, FinishReason, GenerateRequest, Health, ModelCard, PrefillProgress, Prompt,
    SamplingOverrides, SlotCounts, Timings, Token, Usage,
};
use hearth::telemetry::Metrics;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// The time in which a client that left must be noticed, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(2);
const BODY_LIMIT: usize = 1 << 20;

struct Scripted {
    card: ModelCard,
    health: Health,
    /// Hears when the API let go of a request.
    left: Sender<Instant>,
}

/// Tells when a future is dropped.
struct Guard(Sender<Instant>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(Instant::now());
    }
}

fn delta(text: &str) -> Event {
    Event::Delta {
        text: text.into(),
        tokens: vec![1],
    }
}

fn finished(reason: FinishReason) -> Event {
    Event::Finished {
        reason,
        usage: Usage {
            prompt_tokens: 7,
            completion_tokens: 3,
            cached_tokens: 4,
        },
        timings: Timings {
            queue: Duration::from_millis(1),
            prefill: Duration::from_millis(10),
            decode: Duration::from_millis(20),
        },
    }
}

impl Scripted {
    fn play(&self, text: &str, events: &UnboundedSender<Event>) -> Result<(), EngineError> {
        let model = self.card.name.clone();
        let send = |event| {
            let _ = events.send(event);
        };
        match text.split_whitespace().next().unwrap_or_default() {
            "full" => {
                return Err(EngineError::QueueFull {
                    model,
                    limit: 1,
                    retry_after: Duration::from_millis(1200),
                });
            }
            "loading" => return Err(EngineError::Loading { model, progress: 0.5 }),
            "long" => {
                return Err(EngineError::ContextExceeded {
                    model,
                    prompt_tokens: 9000,
                    context: 4096,
                });
            }
            "broken" => {
                send(delta("begun"));
                let reason = "out of luck".into();
                send(Event::Failed(EngineError::Compute { model, reason }));
            }
            "vanishes" => send(delta("begun")),
            #[expect(clippy::panic, reason = "the API must survive it")]
            "panics" => panic!("as the script says"),
            // Nothing comes, as in the queue.
            "waits" => self.every(events, |_| None),
            "prefills" => self.every(events, |step| {
                Some(Event::Progress(PrefillProgress {
                    total: 1_000_000,
                    cached: 0,
                    processed: step,
                    elapsed: Duration::from_millis(1),
                }))
            }),
            "decodes" => self.every(events, |step| Some(delta(&format!("{step} ")))),
            "bursts" => {
                for step in 0..20_000 {
                    send(delta(&format!("{step} ")));
                }
                send(finished(FinishReason::Length));
            }
            "progresses" => {
                send(Event::Progress(PrefillProgress {
                    total: 7,
                    cached: 4,
                    processed: 7,
                    elapsed: Duration::from_millis(5),
                }));
                send(finished(FinishReason::EndOfText));
            }
            _ => {
                for text in ["Hello", ", \"wörld\"", "\n🦙"] {
                    send(delta(text));
                }
                send(finished(FinishReason::EndOfText));
            }
        }
        Ok(())
    }

    /// Sends events until the receiver is gone, and tells when that was.
    fn every(&self, events: &UnboundedSender<Event>, mut event: impl FnMut(u32) -> Option<Event> + Send + 'static) {
        let (events, left) = (events.clone(), self.left.clone());
        std::thread::spawn(move || {
            for step in 0.. {
                if events.is_closed() {
                    let _ = left.send(Instant::now());
                    return;
                }
                if let Some(event) = event(step) {
                    let _ = events.send(event);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
    }
}

impl Engine for Scripted {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn health(&self) -> Health {
        self.health.clone()
    }

    fn slots(&self) -> SlotCounts {
        SlotCounts::default()
    }

    fn submit(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, EngineError>> {
        async move {
            let text = match &request.prompt {
                // The conversation's first message, without ChatML's header.
                Prompt::Text { text, .. } => text.trim_start_matches("<|im_start|>user\n").replace("<|im_end|>", " "),
                Prompt::Tokens(tokens) => format!("{tokens:?}"),
            };
            if text.starts_with("pending") {
                let _guard = Guard(self.left.clone());
                std::future::pending::<()>().await;
            }
            let (sender, receiver) = unbounded_channel();
            self.play(&text, &sender)?;
            Ok(EventStream::new(receiver))
        }
        .boxed()
    }

    fn tokenize(&self, text: String, _: bool, _: bool) -> BoxFuture<'_, Result<Vec<Token>, EngineError>> {
        async move { Ok(text.bytes().map(Token::from).collect()) }.boxed()
    }

    fn token_pieces(&self, tokens: Vec<Token>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, EngineError>> {
        async move {
            let piece = |token| vec![u8::try_from(token).unwrap_or(b'?')];
            Ok(tokens.into_iter().map(piece).collect())
        }
        .boxed()
    }

    fn shutdown(&self, _: Duration) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

fn engine(name: &str, health: Health, left: Sender<Instant>) -> Arc<dyn Engine> {
    let card = ModelCard {
        name: name.into(),
        role: Some(format!("{name}-role")),
        aliases: vec![format!("{name}-alias")],
        architecture: "scripted".into(),
        context: 4096,
        context_train: 8192,
        parallel: 1,
        vocabulary: 256,
        parameters: 1,
        size_bytes: 1,
        chat_template: None,
        bos_token: String::new(),
        eos_token: String::new(),
        sampling: SamplingOverrides::default(),
        created: 1,
    };
    Arc::new(Scripted { card, health, left })
}

/// The API on a free port, with two models of which the second has a port of its own.
struct Api {
    address: SocketAddr,
    own: SocketAddr,
    left: Receiver<Instant>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Api {
    fn start() -> Self {
        Self::with(Health::Ready)
    }

    fn with(second: Health) -> Self {
        let (sender, left) = channel();
        let engines = vec![
            engine("first", Health::Ready, sender.clone()),
            engine("second", second, sender),
        ];
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let config = ServerConfig {
            host,
            port: 0,
            http_threads: 1,
            body_limit: BODY_LIMIT,
            shutdown_grace: Duration::from_secs(20),
        };
        let bound = bind(host, 0, &[(1, 0)]).unwrap();
        let (address, own) = (bound.address, bound.own[0].1);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let servers = bound.start(&State::new(engines, Metrics::new()), &config).unwrap();
                let handles: Vec<_> = servers.iter().map(actix_web::dev::Server::handle).collect();
                let running = actix_web::rt::spawn(futures_util::future::join_all(servers));
                let _ = stopped.await;
                futures_util::future::join_all(handles.iter().map(|handle| handle.stop(true))).await;
                let _ = running.await;
            });
        });
        Self {
            address,
            own,
            left,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let response = client().get(self.url(path)).send().unwrap();
        (response.status().as_u16(), response.json().unwrap())
    }

    fn send(&self, path: &str, body: &Value) -> reqwest::blocking::Response {
        client().post(self.url(path)).body(body.to_string()).send().unwrap()
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.send(path, body);
        let status = response.status().as_u16();
        (status, response.json().unwrap())
    }

    /// The payloads of a stream's events.
    fn stream(&self, path: &str, mut body: Value) -> Vec<String> {
        body["stream"] = true.into();
        let response = self.send(path, &body);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = response.text().unwrap();
        let events = text.strip_suffix("\n\n").expect("ends with an event").split("\n\n");
        events
            .map(|event| event.strip_prefix("data: ").expect("one field").to_owned())
            .collect()
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    /// Ends it, and tells how long that took.
    fn stop(mut self) -> Duration {
        let started = Instant::now();
        let _ = self.stop.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
        started.elapsed()
    }
}

fn client() -> reqwest::blocking::Client {
    reqwest::blocking::Client::builder()
        .timeout(Duration::from_secs(60))
        .build()
        .unwrap()
}

fn chat(script: &str) -> Value {
    json!({"messages": [{"role": "user", "content": script}]})
}

fn request(path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads until the text appears.
fn read_until(socket: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    let mut part = [0; 4096];
    loop {
        let count = socket.read(&mut part).unwrap();
        all.extend_from_slice(&part[..count]);
        let found = String::from_utf8_lossy(&all);
        if found.contains(text) {
            return found.into_owned();
        }
        assert!(count > 0, "the connection ended before {text:?}:\n{found}");
    }
}

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "Hello, \"wörld\"\n🦙";

#[test]
fn whole_answers_are_what_openai_sends() {
    use async_openai::types::{chat, completions, models};
    let api = Api::start();
    let (status, body) = api.post(CHAT, &self::chat("say"));
    assert_eq!(status, 200, "{body}");
    let answer: chat::CreateChatCompletionResponse = serde_json::from_value(body.clone()).unwrap();
    assert_eq!(answer.choices[0].message.content.as_deref(), Some(TEXT));
    assert_eq!(answer.choices[0].finish_reason, Some(chat::FinishReason::Stop));
    assert!(answer.id.starts_with("chatcmpl-"));
    assert_eq!(answer.model, "first");
    let usage = answer.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.total_tokens), (7, 10));
    assert_eq!(usage.prompt_tokens_details.unwrap().cached_tokens, Some(4));
    let timings = &body["timings"];
    assert_eq!(
        (&timings["prompt_n"], &timings["cache_n"], &timings["predicted_n"]),
        (&json!(3), &json!(4), &json!(3))
    );
    for name in ["prompt_ms", "prompt_per_second", "predicted_ms", "predicted_per_second"] {
        assert!(timings[name].as_f64().unwrap() > 0.0, "{name}");
    }

    for prompt in [json!("say"), json!(["say"]), json!([1, 2])] {
        let (_, body) = api.post("/v1/completions", &json!({ "prompt": prompt }));
        let answer: completions::CreateCompletionResponse = serde_json::from_value(body).unwrap();
        assert_eq!(answer.choices[0].text, TEXT);
    }
    let (_, body) = api.get("/v1/models");
    let list: models::ListModelResponse = serde_json::from_value(body).unwrap();
    assert_eq!(list.data.len(), 2);
    let (_, body) = api.post(
        "/api/v1/generate",
        &json!({"prompt": "say", "max_tokens": 3, "temperature": 0}),
    );
    assert_eq!((&body["text"], &body["finish_reason"]), (&json!(TEXT), &json!("stop")));
}

#[test]
fn streams_are_what_openai_sends() {
    use async_openai::types::chat::CreateChatCompletionStreamResponse as Chunk;
    let api = Api::start();
    for include_usage in [false, true] {
        let mut body = chat("say");
        body["stream_options"] = json!({ "include_usage": include_usage });
        let lines = api.stream(CHAT, body);
        let (done, lines) = lines.split_last().unwrap();
        assert_eq!(done, "[DONE]");
        let raw: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let chunks: Vec<Chunk> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            raw[0]["choices"][0]["delta"],
            json!({"role": "assistant", "content": null})
        );
        let text: String = chunks
            .iter()
            .flat_map(|chunk| &chunk.choices)
            .filter_map(|choice| choice.delta.content.as_deref())
            .collect();
        assert_eq!(text, TEXT);
        assert!(chunks.iter().all(|chunk| {
            (&chunk.id, chunk.created, &chunk.model) == (&chunks[0].id, chunks[0].created, &chunks[0].model)
        }));
        let choices: Vec<&Value> = raw.iter().filter_map(|chunk| chunk["choices"].get(0)).collect();
        assert_eq!(choices.last().unwrap()["finish_reason"], "stop");
        assert_eq!(choices.last().unwrap()["delta"], json!({}));
        assert!(
            choices[..choices.len() - 1]
                .iter()
                .all(|choice| choice["finish_reason"].is_null())
        );
        assert!(choices[1..].iter().all(|choice| choice["delta"].get("role").is_none()));
        let last = raw.last().unwrap();
        assert_eq!(last["timings"]["predicted_n"], 3);
        if include_usage {
            assert_eq!(
                (&last["choices"], &last["usage"]["total_tokens"]),
                (&json!([]), &json!(10))
            );
            assert!(raw[..raw.len() - 1].iter().all(|chunk| chunk["usage"] == Value::Null));
        } else {
            assert!(raw.iter().all(|chunk| chunk.get("usage").is_none()));
        }
    }
    for path in ["/v1/completions", "/api/v1/generate"] {
        let lines = api.stream(path, json!({"prompt": "say"}));
        let text: String = lines[..lines.len() - 1]
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|chunk| {
                let text = chunk.get("text").unwrap_or(&chunk["choices"][0]["text"]);
                text.as_str().unwrap_or_default().to_owned()
            })
            .collect();
        assert_eq!(text, TEXT);
    }
    let mut body = chat("progresses");
    body["return_progress"] = true.into();
    let lines = api.stream(CHAT, body);
    let chunks = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let progress = chunks.filter_map(|chunk| chunk.get("prompt_progress").cloned()).next();
    assert_eq!(
        progress,
        Some(json!({"total": 7, "cache": 4, "processed": 7, "time_ms": 5.0}))
    );
}

#[test]
fn a_burst_arrives_complete_and_in_order() {
    let api = Api::start();
    let expect: String = (0..20_000).map(|step| format!("{step} ")).collect();
    let started = Instant::now();
    let lines = api.stream(CHAT, chat("bursts"));
    eprintln!(
        "{:.0} tokens/s through HTTP",
        20_000.0 / started.elapsed().as_secs_f64()
    );
    let text: String = lines[..lines.len() - 1]
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, expect);
    assert_eq!(lines.len(), 20_003);
}

#[test]
fn who_leaves_is_noticed_soon() {
    let api = Api::start();
    for script in ["pending", "waits", "prefills", "decodes"] {
        for (path, mut body) in [
            (CHAT, chat(script)),
            ("/v1/completions", json!({ "prompt": script })),
            ("/api/v1/generate", json!({ "prompt": script })),
        ] {
            for streams in [false, true] {
                body["stream"] = streams.into();
                body["return_progress"] = true.into();
                let mut socket = api.connect();
                socket.write_all(request(path, &body).as_bytes()).unwrap();
                if streams && script != "pending" {
                    let sign = if script == "waits" { "\r\n\r\n" } else { "data: " };
                    read_until(&mut socket, sign);
                } else {
                    std::thread::sleep(Duration::from_millis(50));
                }
                assert!(api.left.try_recv().is_err(), "{script}: ended by itself");
                let gone = Instant::now();
                drop(socket);
                let noticed = api.left.recv_timeout(Duration::from_secs(10));
                let noticed = noticed.unwrap_or_else(|_| panic!("{script} at {path}, stream {streams}: never noticed"));
                let took = noticed - gone;
                assert!(took < SOON, "{script} at {path}, stream {streams}: {took:?}");
            }
        }
    }
}

/// A client that pipelines, or is still sending, must be noticed just as well.
#[test]
fn who_leaves_with_more_to_say_is_noticed_soon() {
    let api = Api::start();
    let mut socket = api.connect();
    let two = request(CHAT, &chat("waits")) + &request(CHAT, &chat("say"));
    socket.write_all(two.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let gone = Instant::now();
    drop(socket);
    let noticed = api.left.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(noticed - gone < SOON);
}

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

#[test]
fn bodies_are_bounded() {
    let api = Api::start();
    let mut socket = api.connect();
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    // Refused by its announcement: nothing of it needs to be sent.
    let answer = read_until(&mut socket, "body_limit");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut socket = api.connect();
    let head = format!("POST {CHAT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
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

#[test]
fn models_are_found_by_name_alias_role_and_port() {
    let api = Api::start();
    for (asked, answers) in [
        ("", "first"),
        ("second", "second"),
        ("second-alias", "second"),
        ("second-role", "second"),
        ("openai:second", "second"),
    ] {
        let mut body = chat("say");
        body["model"] = asked.into();
        assert_eq!(api.post(CHAT, &body).1["model"], answers);
    }
    let mut body = chat("say");
    body["model"] = "third".into();
    let (status, error) = api.post(CHAT, &body);
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
    assert!(error["error"]["message"].as_str().unwrap().contains("first, second"));
    let own = |body: &Value| {
        let url = format!("http://{}{CHAT}", api.own);
        let response = client().post(url).body(body.to_string()).send().unwrap();
        (response.status().as_u16(), response.json::<Value>().unwrap())
    };
    assert_eq!(own(&chat("say")).1["model"], "second");
    body["model"] = "first".into();
    assert_eq!(own(&body).0, 404);
    assert_eq!(api.get("/v1/models/second-alias").1["id"], "second");
    assert_eq!(api.get("/v1/models/third").0, 404);
}

#[test]
fn health_is_that_of_all_models() {
    let api = Api::with(Health::Loading { progress: 0.25 });
    for path in ["/health", "/readyz"] {
        let (status, body) = api.get(path);
        assert_eq!(status, 503);
        assert_eq!(body["error"]["message"], "Loading model");
        assert_eq!(
            (&body["error"]["code"], &body["error"]["type"]),
            (&json!(503), &json!("unavailable_error"))
        );
        assert_eq!(body["models"][0]["status"]["value"], "ready");
        assert_eq!(body["models"][1]["status"]["progress"], 0.25);
    }
    assert_eq!(api.get("/livez").0, 200);
    assert_eq!(Api::start().get("/health"), (200, json!({"status": "ok"})));
}

#[test]
fn a_final_message_can_be_continued() {
    let api = Api::start();
    // "im" is also in what the template puts behind the message.
    for content in ["im", "", "two words", "ends with a space "] {
        let body = json!({
            "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": content}],
            "continue_final_message": true,
        });
        let (status, answer) = api.post("/apply-template", &body);
        let expect = format!("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n{content}");
        assert_eq!((status, &answer["prompt"]), (200, &json!(expect)));
    }
}

#[test]
fn responses_carry_a_request_id_and_unknown_paths_are_told() {
    let api = Api::start();
    let response = client()
        .get(api.url("/livez"))
        .header("x-request-id", "mine-1")
        .send()
        .unwrap();
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    let response = client().get(api.url("/nothing")).send().unwrap();
    assert_eq!(response.status(), 404);
    assert!(!response.headers()["x-request-id"].is_empty());
    assert_eq!(
        response.json::<Value>().unwrap()["error"]["type"],
        "invalid_request_error"
    );
    assert_eq!(api.get(CHAT).0, 405);
    let text = client().get(api.url("/metrics")).send().unwrap().text().unwrap();
    assert!(
        text.contains("hearth_http_requests_total{route=\"/livez\",status=\"200\"} 1")
            && text.contains("hearth_http_requests_total{route=\"other\",status=\"404\"} 1"),
        "{text}"
    );
}

#[test]
fn an_idle_connection_does_not_hold_the_end_up() {
    let api = Api::start();
    let mut idle = api.connect();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_until(&mut idle, "ok");
    let took = api.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
}
