//! Other models answer where one cannot.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use hearth::gguf::Gguf;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use serde_json::{Value, json};

use crate::common::{Server, client, raw_post};

const CHAT: &str = "/v1/chat/completions";

fn hello(model: &str, streams: bool) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "stream": streams})
}

/// The status, who answered by the header, and the body.
fn ask(server: &Server, path: &str, body: &Value) -> (u16, Option<String>, String) {
    let url = format!("http://{}{path}", server.address);
    let response = client().post(url).body(body.to_string()).send().unwrap();
    let by = response.headers().get("x-hearth-served-by");
    let by = by.map(|by| by.to_str().unwrap().to_owned());
    (response.status().as_u16(), by, response.text().unwrap())
}

const SPARE: &str = "[[model]]\nname = \"spare\"\npath = \"demo:narrator\"\nparallel = 8\n";

/// A model that loads, and whose every answer fails: its numbers are none.
fn failing(path: &Path) {
    let shape = Shape::preset(Arch::Llama, "tiny").unwrap();
    Synthetic::new(shape, Mix::from_name("f16").unwrap())
        .write(path, |_, _| ())
        .unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let norm = gguf
        .tensors()
        .iter()
        .find(|tensor| tensor.name == "output_norm.weight")
        .unwrap();
    let data = gguf.data(norm);
    // The data are a part of the map of the same bytes.
    let start = bytes.windows(data.len()).rposition(|window| window == data).unwrap();
    let nan = f32::NAN.to_le_bytes();
    bytes[start..start + data.len()].as_chunks_mut::<4>().0.fill(nan);
    drop(gguf);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_missing_file_is_no_reason_to_end() {
    let text = format!(
        "[server]\nport = 0\n[[model]]\nname = \"main\"\nrole = \"reasoning\"\npath = \"no-such-file.gguf\"\nfallback = [\"spare\"]\n{SPARE}\
         [[preset]]\nname = \"stubborn\"\nmodel = \"main\"\nfallback = [\"spare\"]\nfallback_on = [\"overloaded\"]\n\
         [[preset]]\nname = \"kind\"\nmodel = \"main\"\nsystem = \"Be kind.\"\n"
    );
    let server = Server::begin(&text, 1, None);
    // The others stand in: the server is ready.
    server.wait_until_ready();
    let named = |answer: &str| serde_json::from_str::<Value>(answer).unwrap()["model"].clone();
    for model in ["main", "reasoning", "kind"] {
        let (status, by, answer) = ask(&server, CHAT, &hello(model, false));
        assert_eq!((status, by.as_deref()), (200, Some("spare")), "{answer}");
        assert_eq!(named(&answer), "spare");
    }
    let (status, by, answer) = ask(&server, CHAT, &hello("main", true));
    assert_eq!((status, by.as_deref()), (200, Some("spare")), "{answer}");
    assert!(
        answer.contains("\"model\":\"spare\"") && answer.contains("[DONE]"),
        "{answer}"
    );
    for (path, body) in [
        (
            "/v1/responses",
            json!({"model": "main", "input": "hello", "max_output_tokens": 8}),
        ),
        ("/v1/messages", hello("main", false)),
        (
            "/v1/completions",
            json!({"model": "main", "prompt": "hello", "max_tokens": 8}),
        ),
        (
            "/api/v1/generate",
            json!({"model": "main", "prompt": "hello", "max_tokens": 8}),
        ),
        (
            "/completion",
            json!({"model": "main", "prompt": "hello", "n_predict": 8}),
        ),
    ] {
        let (status, by, answer) = ask(&server, path, &body);
        assert_eq!((status, by.as_deref()), (200, Some("spare")), "{path}: {answer}");
        assert_eq!(named(&answer), "spare", "{path}");
    }
    // Where the reason is not one of those that were named, nobody else answers; nor for tokens, which are another model's.
    let (status, by, answer) = ask(&server, CHAT, &hello("stubborn", false));
    assert_eq!((status, by), (503, None), "{answer}");
    assert!(answer.contains("no-such-file.gguf"), "{answer}");
    let tokens = json!({"model": "main", "prompt": [1, 2, 3], "max_tokens": 8});
    assert_eq!(ask(&server, "/v1/completions", &tokens).0, 503);
    // The model itself needs nobody.
    let (_, by, _) = ask(&server, CHAT, &hello("spare", false));
    assert_eq!(by, None);
    let (_, models) = server.get("/v1/models");
    assert_eq!(models["data"][0]["status"]["value"], "failed");
    assert!((server.metric("hearth_fallbacks_total", "main") - 9.0).abs() < 0.5);
}

/// What a key is not for does not answer either, and is not loaded.
#[test]
fn who_may_not_use_a_model_is_not_answered_by_it() {
    let text = "[server]\nport = 0\n[[model]]\nname = \"main\"\npath = \"no-such-file.gguf\"\nfallback = [\"spare\"]\n\
        [[model]]\nname = \"spare\"\npath = \"demo:narrator\"\nload = \"demand\"\n\
        [[key]]\nname = \"one\"\nkey = \"one\"\nmodels = [\"main\"]\n\
        [[key]]\nname = \"both\"\nkey = \"both\"\nmodels = [\"main\", \"spare\"]\n";
    let server = Server::begin(text, 1, None);
    server.wait_until_ready();
    let with = |key: &str, path: &str, body: Option<&Value>| {
        let url = format!("http://{}{path}", server.address);
        let request = match body {
            Some(body) => client().post(url).body(body.to_string()),
            None => client().get(url),
        };
        let response = request.bearer_auth(key).send().unwrap();
        (response.status().as_u16(), response.text().unwrap())
    };
    let (status, answer) = with("one", CHAT, Some(&hello("main", false)));
    assert_eq!(status, 503, "{answer}");
    let (_, models) = with("both", "/v1/models", None);
    assert!(models.contains("\"value\":\"unloaded\""), "{models}");
    let (status, answer) = with("both", CHAT, Some(&hello("main", false)));
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn an_engine_that_fails_before_the_first_piece_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nan.gguf");
    failing(&path);
    let text = format!(
        "[server]\nport = 0\ntry_files = false\n[[model]]\nname = \"main\"\npath = {:?}\ncontext = 512\nfallback = [\"spare\"]\n{SPARE}",
        path.to_str().unwrap()
    );
    let server = Server::begin(&text, 1, None);
    server.wait_until_ready();
    let prompt = |streams: bool| json!({"model": "main", "prompt": "hello", "max_tokens": 8, "stream": streams});
    for streams in [false, true] {
        let (status, by, answer) = ask(&server, "/v1/completions", &prompt(streams));
        assert_eq!((status, by.as_deref()), (200, Some("spare")), "{answer}");
    }
    // Under load.
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|number| {
                let (server, body) = (&server, prompt(number % 2 == 0));
                scope.spawn(move || ask(server, "/v1/completions", &body))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (status, by, answer) in answers {
        assert_eq!((status, by.as_deref()), (200, Some("spare")), "{answer}");
    }
    let metrics = client()
        .get(format!("http://{}/metrics", server.address))
        .send()
        .unwrap()
        .text()
        .unwrap();
    let line = "hearth_fallbacks_total{model=\"main\",reason=\"engine_error\",to=\"spare\"} 18";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn a_full_queue_overflows_into_another_model() {
    let text = format!(
        "[server]\nport = 0\n[[model]]\nname = \"main\"\npath = \"demo:reasoner\"\nparallel = 1\nqueue = 1\nfallback = [\"spare\"]\n{SPARE}"
    );
    let server = Server::configured(&text, 1, None);
    let body = json!({"model": "main", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 32, "ignore_eos": true, "stream": true});
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..24).map(|_| scope.spawn(|| ask(&server, CHAT, &body))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut elsewhere = 0;
    for (status, by, answer) in &answers {
        assert_eq!(*status, 200, "{answer}");
        assert!(answer.contains("[DONE]") && !answer.contains("\"error\""), "{answer}");
        let model = by.as_deref().unwrap_or("main");
        assert!(answer.contains(&format!("\"model\":\"{model}\"")), "{answer}");
        elsewhere += usize::from(by.is_some());
    }
    assert!((1..24).contains(&elsewhere), "{elsewhere} of 24");
    assert!(
        (server.metric("hearth_fallbacks_total", "main") - f64::from(u32::try_from(elsewhere).unwrap())).abs() < 0.5
    );
}

/// An engine in a process of its own is killed while it computes and while requests wait: those that had not begun to stream
/// are answered by another model.
#[test]
fn who_had_not_begun_to_stream_loses_nothing() {
    let engine = "[server]\nport = 0\n[[model]]\nname = \"main\"\npath = \"demo:reasoner\"\nparallel = 2\n";
    let engine = Server::configured(engine, 1, None);
    let text = format!(
        "[server]\nport = 0\n[[model]]\nname = \"main\"\nupstream = {{ base_url = \"http://{}/v1\", retries = 0 }}\nfallback = [\"spare\"]\n{SPARE}",
        engine.address
    );
    let front = Server::configured(&text, 1, None);
    let body = json!({"model": "main", "prompt": "Once", "max_tokens": 300, "ignore_eos": true, "stream": true});
    let (began, begins) = channel();
    let streams: Vec<_> = (0..20)
        .map(|_| {
            let (socket, began) = (raw_post(front.address, "/v1/completions", &body), began.clone());
            std::thread::spawn(move || {
                let (mut by, mut data) = (None, Vec::new());
                for line in BufReader::new(socket).lines().map_while(Result::ok) {
                    by = by.or(line.strip_prefix("x-hearth-served-by: ").map(str::to_owned));
                    let Some(event) = line.strip_prefix("data: ") else {
                        continue;
                    };
                    if data.is_empty() {
                        began.send(()).unwrap();
                    }
                    data.push(event.to_owned());
                    if event == "[DONE]" || event.contains("\"error\"") {
                        break;
                    }
                }
                (by, data)
            })
        })
        .collect();
    // Two compute, 18 wait.
    for _ in 0..2 {
        begins.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    engine.wait_for("hearth_requests_waiting", "main", 18.0, Duration::from_secs(10));
    engine.signal("KILL");
    let (mut broken, mut saved) = (0, 0);
    for stream in streams {
        let (by, data) = stream.join().unwrap();
        let last = data.last().map(String::as_str).unwrap_or_default();
        match by.as_deref() {
            Some("spare") => {
                assert_eq!(last, "[DONE]");
                saved += 1;
            }
            _ => {
                // It had begun: an error, and no text of another model.
                assert!(last.contains("upstream_error"), "{last}");
                assert!(data.iter().all(|event| !event.contains("spare")));
                broken += 1;
            }
        }
    }
    assert_eq!((broken, saved), (2, 18));
}
