//! The real server with the built-in pair, seen from outside.
#![cfg(feature = "demo")]

mod common;

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use common::{Server, post, raw_post, stream, streamed_text};
use serde_json::{Value, json};

fn chat(model: &str, text: &str) -> Value {
    json!({
        "model": model, "temperature": 0, "max_tokens": 48,
        "messages": [{"role": "user", "content": text}],
    })
}

fn endless(model: &str, max_tokens: u32) -> Value {
    json!({"model": model, "prompt": "Once", "max_tokens": max_tokens, "ignore_eos": true, "stream": true})
}

#[test]
fn answers_whole_and_streamed() {
    let server = Server::start("");
    let request = chat("demo-reasoner", "What is hearth?");
    let (status, whole) = server.post("/v1/chat/completions", &request);
    assert_eq!(status, 200, "{whole}");
    let parsed: async_openai::types::chat::CreateChatCompletionResponse =
        serde_json::from_value(whole.clone()).unwrap();
    let text = parsed.choices[0].message.content.clone().unwrap();
    assert!(!text.is_empty());
    let usage = parsed.usage.unwrap();
    assert_eq!(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
    assert_eq!(whole["timings"]["predicted_n"], usage.completion_tokens);

    let mut streaming = request.clone();
    streaming["stream"] = true.into();
    let lines = stream(server.address, "/v1/chat/completions", &streaming);
    for line in &lines[..lines.len() - 1] {
        let chunk: Value = serde_json::from_str(line).unwrap();
        assert!(chunk.get("usage").is_none());
    }
    assert_eq!(streamed_text(&lines), text);

    streaming["stream_options"] = json!({"include_usage": true});
    let lines = stream(server.address, "/v1/chat/completions", &streaming);
    let last: Value = serde_json::from_str(&lines[lines.len() - 2]).unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], usage.completion_tokens);
    let first: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(first["usage"], Value::Null);

    let (status, same) = server.post("/api/v1/chat/completions", &request);
    assert_eq!(
        (status, &same["choices"][0]["message"]),
        (200, &whole["choices"][0]["message"])
    );
}

#[test]
fn other_endpoints_answer() {
    let server = Server::start("context = 1024");
    let (status, models) = server.get("/v1/models");
    assert_eq!((status, models["data"].as_array().unwrap().len()), (200, 2));
    assert_eq!(models["data"][0]["context_length"], 1024);
    assert_eq!(server.get("/v1/models/narrator").1["id"], "demo-narrator");
    assert_eq!(server.get("/v1/models/unknown").0, 404);
    assert_eq!(server.get("/health"), (200, json!({"status": "ok"})));
    assert_eq!(server.get("/livez").0, 200);
    assert!(server.get("/version").1["version"].is_string());

    let (status, tokens) = server.post("/tokenize", &json!({"content": "Hello wörld <|im_end|>"}));
    assert_eq!(status, 200);
    let (_, text) = server.post("/detokenize", &tokens);
    assert_eq!(text["content"], "Hello wörld <|im_end|>");
    let (_, plain) = server.post("/tokenize", &json!({"content": "<|im_end|>", "parse_special": false}));
    assert!(plain["tokens"].as_array().unwrap().len() > 1);

    let messages = json!([{"role": "user", "content": "hi"}]);
    let (_, prompt) = server.post("/apply-template", &json!({ "messages": messages }));
    assert_eq!(
        prompt["prompt"],
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    );
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"x": "<&>"}}});
    let (_, prompt) = server.post("/apply-template", &json!({"messages": messages, "tools": [tool]}));
    assert!(
        prompt["prompt"]
            .as_str()
            .unwrap()
            .contains(r#""parameters": {"x": "<&>"}"#)
    );

    let (status, text) = server.post(
        "/api/v1/generate",
        &json!({"prompt": "The", "max_tokens": 3, "temperature": 0}),
    );
    assert_eq!(status, 200, "{text}");
    assert!(text["text"].is_string());
    let (_, completion) = server.post(
        "/v1/completions",
        &json!({"prompt": "The", "max_tokens": 3, "ignore_eos": true}),
    );
    assert_eq!(completion["usage"]["completion_tokens"], 3);
    assert_eq!(completion["choices"][0]["finish_reason"], "length");
    assert!(server.metric("hearth_requests_total", "demo-reasoner") >= 2.0);
}

#[test]
fn a_port_of_its_own_serves_one_model() {
    let server = Server::start("");
    let (status, answer) = post(server.own[1], "/v1/chat/completions", &chat("", "hello"));
    assert_eq!((status, &answer["model"]), (200, &json!("demo-narrator")));
    let (status, error) = post(server.own[1], "/v1/chat/completions", &chat("demo-reasoner", "hello"));
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
    for name in ["narrator", "openai:demo-narrator"] {
        let (status, answer) = server.post("/v1/chat/completions", &chat(name, "hello"));
        assert_eq!((status, &answer["model"]), (200, &json!("demo-narrator")));
    }
}

#[test]
fn many_streams_give_the_same_texts_as_one_after_the_other() {
    let server = Server::start("parallel = 4");
    // Texts of which the models are sure: where several are equally likely, as in most of the narrator's scenes, the rounding of
    // another batch decides, as in every engine that batches.
    let asked = [
        "hello",
        "What is hearth?",
        "Who are you?",
        "What can you do?",
        "What is 3 + 4 - 2?",
        "thanks",
        "bye",
        "Tell me a joke",
    ];
    let reasoner = asked.map(|text| {
        let request = json!({"messages": [{"role": "user", "content": text}]});
        let (_, prompt) = post(server.own[0], "/apply-template", &request);
        ("demo-reasoner", prompt["prompt"].as_str().unwrap().to_owned(), 48)
    });
    // The name of the speaker comes next.
    let names = ["Alice", "Boris", "Clara", "Diana", "Edith", "Felix", "Gustav", "Helga"];
    let narrator = names.map(|name| {
        let request = json!({"messages": [
            {"role": "system", "content": format!("You are {name}. You speak in a gruff voice.")},
            {"role": "user", "content": "I look around."},
        ]});
        let (_, prompt) = post(server.own[1], "/apply-template", &request);
        let begun =
            "You see a silver key on the ground, half hidden in the shadows. \"Listen well. Beware of the grey wolf.\"";
        (
            "demo-narrator",
            format!("{}{begun}", prompt["prompt"].as_str().unwrap()),
            5,
        )
    });
    let requests: Vec<Value> = reasoner
        .into_iter()
        .chain(narrator)
        .map(
            |(model, prompt, tokens)| json!({"model": model, "prompt": prompt, "temperature": 0, "max_tokens": tokens}),
        )
        .collect();
    let alone: Vec<String> = requests
        .iter()
        .map(|request| {
            let mut request = request.clone();
            request["cache_prompt"] = false.into();
            let (status, answer) = server.post("/v1/completions", &request);
            assert_eq!(status, 200, "{answer}");
            answer["choices"][0]["text"].as_str().unwrap().to_owned()
        })
        .collect();
    for (name, text) in names.iter().zip(&alone[8..]) {
        assert!(text.contains(name), "{name}: {text}");
    }
    let together: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = requests
            .iter()
            .map(|request| {
                let (mut request, address) = (request.clone(), server.address);
                request["stream"] = true.into();
                scope.spawn(move || {
                    let lines = stream(address, "/v1/completions", &request);
                    let text = |line: &String| {
                        serde_json::from_str::<Value>(line).ok()?["choices"][0]["text"]
                            .as_str()
                            .map(str::to_owned)
                    };
                    lines.iter().filter_map(text).collect::<String>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn who_came_first_is_served_first() {
    let server = Server::start("parallel = 4");
    for model in ["demo-reasoner", "demo-narrator"] {
        let address = server.address;
        let mut ends: Vec<(Instant, usize)> = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..16)
                .map(|number| {
                    let socket = raw_post(address, "/v1/completions", &endless(model, 100));
                    // Requests on different connections arrive in no order but that of time.
                    std::thread::sleep(Duration::from_millis(20));
                    scope.spawn(move || {
                        let lines = BufReader::new(socket).lines().map_while(Result::ok);
                        let deltas = lines
                            .take_while(|line| line != "data: [DONE]")
                            .filter(|line| line.starts_with("data: "))
                            .count();
                        assert!(deltas > 1);
                        (Instant::now(), number)
                    })
                })
                .collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        ends.sort();
        let order: Vec<usize> = ends.into_iter().map(|(_, number)| number).collect();
        // Four at once end in any order among themselves.
        let fair = order
            .iter()
            .enumerate()
            .all(|(place, number)| place.abs_diff(*number) <= 4);
        assert!(fair, "{model}: {order:?}");
    }
}

#[test]
fn an_extended_prompt_is_not_computed_again() {
    let server = Server::start("");
    let prompt = "one two three four five six seven eight nine ten";
    let first = json!({"prompt": prompt, "max_tokens": 1, "ignore_eos": true});
    server.post("/v1/completions", &first);
    let longer = json!({"prompt": format!("{prompt} eleven twelve"), "max_tokens": 1, "ignore_eos": true});
    let (_, answer) = server.post("/v1/completions", &longer);
    let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        .unwrap();
    assert!(cached > 5, "{answer}");
    let mut fresh = longer;
    fresh["cache_prompt"] = false.into();
    let (_, answer) = server.post("/v1/completions", &fresh);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

#[test]
fn a_cache_of_experts_says_what_it_did() {
    let server = Server::start("experts = { placement = \"cache\", cache = \"25%\", device = \"cpu\" }");
    for text in ["What is hearth?", "Who are you?"] {
        server.post("/v1/chat/completions", &chat("demo-reasoner", text));
    }
    let (status, stats) = server.get("/api/v1/expert-stats?detail=layers");
    assert_eq!(status, 200, "{stats}");
    assert_eq!(stats["models"][1], json!({"model": "demo-narrator", "cache": null}));
    let cache = &stats["models"][0]["cache"];
    let number = |name: &str| cache["since_start"][name].as_u64().unwrap();
    assert_eq!(number("hits") + number("misses"), number("selections"));
    assert!(number("hits") > 0 && number("uploads") > 0, "{stats}");
    let layers = cache["layers"].as_array().unwrap();
    assert!(
        layers.len() > 1
            && layers
                .iter()
                .all(|layer| layer["capacity"] == 8 && layer["experts"] == 32),
        "{stats}"
    );
    // The cache sees each selected expert of each token that was decoded.
    assert_eq!(
        layers[0]["selections"],
        json!(4 * layers[0]["tokens"].as_u64().unwrap())
    );
    assert_eq!(
        server.get("/api/v1/expert-stats?model=narrator").1["models"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(server.get("/api/v1/expert-stats?model=nobody").0, 404);
    assert_eq!(server.get("/api/v1/expert-stats?detail=all").0, 400);
}

#[test]
fn who_leaves_frees_the_slot() {
    let server = Server::start("parallel = 1");
    let soon = Duration::from_secs(5);
    for model in ["demo-reasoner", "demo-narrator"] {
        // While decoding, streamed and not.
        for streams in [true, false] {
            let mut request = endless(model, 4000);
            request["stream"] = streams.into();
            let socket = raw_post(server.address, "/v1/completions", &request);
            server.wait_for("hearth_requests_running", model, 1.0, soon);
            drop(socket);
            server.wait_for("hearth_requests_running", model, 0.0, soon);
        }
        // During the prefill of a long prompt.
        let mut request = endless(model, 100);
        request["prompt"] = "word ".repeat(1200).into();
        let socket = raw_post(server.address, "/v1/completions", &request);
        server.wait_for("hearth_requests_running", model, 1.0, soon);
        drop(socket);
        server.wait_for("hearth_requests_running", model, 0.0, soon);
    }
    assert!(server.metric("hearth_requests_total", "demo-reasoner") >= 3.0);
}

#[test]
fn a_full_queue_says_so() {
    let server = Server::start("parallel = 1\nqueue = 1");
    let model = "demo-narrator";
    let _running = raw_post(server.address, "/v1/completions", &endless(model, 4000));
    server.wait_for("hearth_requests_running", model, 1.0, Duration::from_secs(5));
    let _waiting = raw_post(server.address, "/v1/completions", &endless(model, 4000));
    let response = (0..200)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            let body = json!({"model": model, "prompt": "x", "max_tokens": 1}).to_string();
            common::client()
                .post(format!("http://{}/v1/completions", server.address))
                .body(body)
                .send()
                .unwrap()
        })
        .find(|response| response.status() == 429)
        .expect("the third request is refused");
    assert!(
        response.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    let body: Value = response.json().unwrap();
    assert_eq!(body["error"]["code"], "queue_full");
}

#[test]
fn bad_requests_are_named_and_hurt_nobody() {
    let server = Server::start("context = 512");
    let victim = endless("demo-narrator", 400);
    let address = server.address;
    let stream = std::thread::spawn(move || stream(address, "/v1/completions", &victim));
    let check = |body: Value, status: u16, expect: &str| {
        let (found, error) = server.post("/v1/chat/completions", &body);
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert!(
            found == status && message.contains(expect),
            "{found} {error}\nfor {body:.200}"
        );
    };
    let with = |field: &str, value: Value| {
        let mut request = chat("demo-reasoner", "hello");
        request[field] = value;
        request
    };
    check(with("model", json!("nobody")), 404, "there is no model `nobody`");
    check(with("messages", json!([{"role": 1}])), 400, "messages[0].role");
    check(
        with("messages", json!(vec![json!({"role": "user", "content": "x"}); 10_000])),
        400,
        "at most 4096",
    );
    check(
        with("messages", json!([{"role": "user", "content": "word ".repeat(2000)}])),
        400,
        "context of 512 tokens",
    );
    check(with("temperature", json!(1e30)), 400, "`temperature`");
    check(with("temperature", json!("hot")), 400, "temperature");
    check(with("max_tokens", json!(-2)), 400, "max_tokens");
    check(with("max_tokens", json!(0)), 400, "max_tokens");
    check(with("n", json!(0)), 400, "`n`");
    check(with("top_logprobs", json!(2)), 400, "`logprobs`");
    check(with("stop", json!([""])), 400, "stop string");
    check(
        with("logit_bias", json!({"999999": 1})),
        400,
        "not in the model's vocabulary",
    );
    check(
        with("stop_token_ids", json!([-5])),
        400,
        "not in the model's vocabulary",
    );
    check(with("response_format", json!({"type": "yaml"})), 400, "response_format");
    check(with("tool_choice", json!("required")), 400, "tool_choice");
    check(json!([1, 2]), 400, "must be a JSON object");

    let raw = |body: Vec<u8>| {
        let response = common::client()
            .post(format!("http://{address}/v1/chat/completions"))
            .body(body)
            .send()
            .unwrap();
        (response.status().as_u16(), response.text().unwrap())
    };
    assert_eq!(raw(b"{\"model\": ".to_vec()).0, 400);
    let (status, text) = raw(b"{\"model\": \"\xFF\"}".to_vec());
    assert!(status == 400 && text.contains("not valid UTF-8 at byte 11"), "{text}");
    assert_eq!(raw(b"{\"temperature\": 1e999, \"messages\": []}".to_vec()).0, 400);
    assert_eq!(raw("[".repeat(100_000).into_bytes()).0, 400);
    // The server may close before the client has sent it all.
    let huge = common::client()
        .post(format!("http://{address}/v1/chat/completions"))
        .body(vec![b' '; 100 << 20])
        .send();
    assert!(huge.is_err() || huge.is_ok_and(|response| response.status() == 413));
    assert_eq!(server.get("/nothing").0, 404);
    assert_eq!(server.get("/v1/chat/completions").0, 405);
    assert_eq!(
        server.post("/v1/completions", &json!({"prompt": [1, 99_999_999]})).0,
        400
    );

    let lines = stream.join().unwrap();
    assert_eq!(lines.last().unwrap(), "[DONE]");
    let end: Value = serde_json::from_str(&lines[lines.len() - 2]).unwrap();
    assert_eq!(end["timings"]["predicted_n"], 400);
}

/// Counting the tokens of such a text would take ten seconds and more.
#[test]
fn endless_texts_are_refused_before_they_are_tokenized() {
    let server = Server::start("context = 512");
    for text in [" ".repeat(7 << 20), "word ".repeat(1 << 20)] {
        let begin = Instant::now();
        let messages = json!([{"role": "user", "content": text}]);
        for (path, body) in [
            ("/v1/completions", json!({ "prompt": text })),
            ("/v1/chat/completions", json!({ "messages": messages })),
        ] {
            let (status, error) = server.post(path, &body);
            let error = &error["error"];
            assert_eq!(
                (status, &error["code"]),
                (400, &json!("context_length_exceeded")),
                "{error}"
            );
            assert!(error["n_prompt_tokens"].as_u64().unwrap() > 512, "{error}");
            assert!(error["message"].as_str().unwrap().contains("at least"), "{error}");
        }
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(8), "{took:?}");
    }
    let (status, error) = server.post("/tokenize", &json!({"content": " ".repeat(3 << 20)}));
    assert_eq!((status, &error["error"]["param"]), (400, &json!("content")), "{error}");
    let (status, error) = server.post("/detokenize", &json!({"tokens": vec![1; 1_100_000]}));
    assert_eq!((status, &error["error"]["param"]), (400, &json!("tokens")), "{error}");
}

/// Many tokens are neither held as JSON nor kept as memory, and nobody waits for them.
#[cfg(target_os = "linux")]
#[test]
fn many_tokens_take_little_memory() {
    let resident = |id: u32| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    let server = Server::start("context = 512");
    let (address, before) = (server.address, resident(server.id()));
    let text = "Zq?".repeat(340_000);
    let attack = std::thread::spawn(move || {
        let mut tokens = 0;
        for _ in 0..3 {
            let (status, answer) = post(address, "/tokenize", &json!({"content": text, "with_pieces": true}));
            assert_eq!(status, 200);
            tokens = answer["tokens"].as_array().unwrap().len();
            let ids: Vec<&Value> = answer["tokens"]
                .as_array()
                .unwrap()
                .iter()
                .map(|token| &token["id"])
                .collect();
            let (status, answer) = post(address, "/detokenize", &json!({ "tokens": ids }));
            assert_eq!(status, 200);
            assert!(answer["content"] == text);
        }
        tokens
    });
    let mut waits = Vec::new();
    let mut most = 0;
    while !attack.is_finished() {
        let begin = Instant::now();
        assert_eq!(server.get("/health").0, 200);
        waits.push(begin.elapsed());
        most = most.max(resident(server.id()));
        std::thread::sleep(Duration::from_millis(10));
    }
    let tokens = attack.join().unwrap();
    let after = resident(server.id());
    waits.sort();
    // Of a busy machine a few may be late.
    let (median, slowest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
    eprintln!("{tokens} tokens; {before} MiB before, {most} at most, {after} after; /health {median:?}, {slowest:?}");
    assert!(most < before + 400, "{before} MiB became {most}");
    assert!(after < before + 200, "{before} MiB became {after}");
    assert!(median < Duration::from_secs(1), "{median:?}");
}

#[test]
fn other_samplers_choose_other_tokens() {
    let server = Server::start("");
    let text = |fields: Value| {
        let mut body = json!({"prompt": "Once upon a time", "max_tokens": 24, "seed": 1, "temperature": 5, "min_p": 0,
            "top_p": 1, "top_k": 0, "ignore_eos": true, "cache_prompt": false});
        body.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let (status, answer) = server.post("/v1/completions", &body);
        assert_eq!(status, 200, "{answer}");
        answer["choices"][0]["text"].as_str().unwrap().to_owned()
    };
    let likeliest = text(json!({"temperature": 0}));
    let hot = text(json!({}));
    assert_ne!(likeliest, hot);
    assert_eq!(hot, text(json!({})), "the seed decides");
    // What leaves one candidate leaves no choice, whatever the temperature.
    assert_eq!(likeliest, text(json!({"top_n_sigma": 0.0001})));
    assert_eq!(
        likeliest,
        text(json!({"samplers": ["top_k", "temperature"], "top_k": 1}))
    );
    // A sampler that is not in the chain does nothing.
    assert_eq!(hot, text(json!({"samplers": ["temperature"], "top_k": 1})));
    // From 0 to 10, by the entropy, is not the same as 5.
    assert_ne!(hot, text(json!({"dynatemp_range": 5})));
    // Texts that may not come.
    let first: String = likeliest.chars().take(6).collect();
    let banned = text(json!({"temperature": 0, "logit_bias": [[first, false]]}));
    assert!(!banned.starts_with(&first), "{banned}");
}

#[test]
fn a_stop_signal_ends_it_cleanly() {
    let server = Server::start("");
    let _socket = raw_post(server.address, "/v1/completions", &endless("demo-narrator", 4000));
    assert!(server.terminate().success());
}
