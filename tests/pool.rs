//! `kv = "pool"`: slots that share one memory.
#![cfg(feature = "demo")]

mod common;

use std::time::Duration;

use common::Server;
use serde_json::{Value, json};

fn server(more: &str) -> Server {
    let model = |name: &str| {
        format!("[[model]]\nname = \"{name}\"\npath = \"demo:{name}\"\ncontext = 1024\nparallel = 4\n{more}\n")
    };
    let text = format!("[server]\nport = 0\n{}{}", model("reasoner"), model("narrator"));
    Server::configured(&text, 1, None)
}

/// Answers to requests that are sent at once.
fn at_once(server: &Server, path: &str, requests: &[Value]) -> Vec<Value> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = requests
            .iter()
            .map(|request| {
                scope.spawn(move || {
                    let (status, answer) = server.post(path, request);
                    assert_eq!(status, 200, "{request}: {answer}");
                    answer
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn request(model: &str, prompt: &str, tokens: u32) -> Value {
    json!({"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true})
}

/// In little memory answers are those of slots of their own, with guesses that are taken back, and whatever beginnings slots
/// have in common.
#[test]
fn answers_are_the_same() {
    let apart = server("kv = \"slots\"\ndraft = { kind = \"none\" }");
    let shared = server("kv = \"pool\"\ndraft = { kind = \"ngram\", max = 3 }");
    let kv = |server: &Server| {
        let (_, memory) = server.get("/api/v1/memory");
        memory["models"][0]["planned"]["ram"]["kv"].as_u64().unwrap()
    };
    assert_eq!(kv(&apart), 4 * kv(&shared));
    let questions = [
        "What is 12 + 30?",
        "7 times 8",
        "Who are you?",
        "Say hello Peter",
        "Hello",
    ];
    let requests: Vec<Value> = (0..20)
        .map(|index| {
            let system = format!("You are a helpful assistant. {}", "Be brief. ".repeat(index % 7 * 4));
            let messages =
                json!([{"role": "system", "content": system}, {"role": "user", "content": questions[index % 5]}]);
            json!({"model": "reasoner", "messages": messages, "max_tokens": 40, "temperature": 0})
        })
        .collect();
    for some in requests.chunks(4) {
        let text = |server: &Server| -> Vec<Value> {
            let answers = at_once(server, "/v1/chat/completions", some);
            answers
                .into_iter()
                .map(|mut answer| answer["choices"][0]["message"].take())
                .collect()
        };
        assert_eq!(text(&apart), text(&shared));
    }
}

/// Prompts that do not fit beside each other wait; what idle slots hold gives way.
#[test]
fn prompts_wait_for_room() {
    let server = server("kv = \"pool\"");
    // 600 tokens or more: none fits beside another one.
    let requests: Vec<Value> = (0..5)
        .map(|index| request("narrator", &format!("{index} {}", "The door is blue. ".repeat(110)), 16))
        .collect();
    for answer in at_once(&server, "/v1/completions", &requests) {
        assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 512, "{answer}");
        assert_eq!(answer["usage"]["completion_tokens"], 16);
    }
    assert_eq!(
        server.metric("hearth_requests_running", "narrator").to_bits(),
        0.0_f64.to_bits()
    );
}

/// When answers have grown until nothing is left, the longest one ends as at its limit, and the others go on.
#[test]
fn the_longest_answer_gives_way() {
    for draft in ["none", "ngram"] {
        let server = server(&format!("kv = \"pool\"\ndraft = {{ kind = \"{draft}\" }}"));
        for model in ["reasoner", "narrator"] {
            let requests: Vec<Value> = [("A", 900), ("B and C", 700), ("D", 100)]
                .map(|(prompt, tokens)| request(model, prompt, tokens))
                .into();
            let answers = at_once(&server, "/v1/completions", &requests);
            let tokens: Vec<u64> = answers
                .iter()
                .map(|answer| answer["usage"]["completion_tokens"].as_u64().unwrap())
                .collect();
            assert!(
                answers
                    .iter()
                    .all(|answer| answer["choices"][0]["finish_reason"] == "length")
            );
            // One of the two long ones is cut where all is full, and then the other one has room.
            assert_eq!(tokens[2], 100);
            let (cut, whole) = (tokens[0].min(tokens[1]), [tokens[0] == 900, tokens[1] == 700]);
            assert!(
                whole.iter().filter(|whole| **whole).count() == 1 && cut > 250,
                "{model}: {tokens:?}"
            );
        }
        server.wait_for("hearth_requests_running", "narrator", 0.0, Duration::from_secs(5));
    }
}

/// An answer alone fills the memory to the last token, with guesses or without.
#[test]
fn a_lone_answer_has_all_of_it() {
    let tokens = |more: &str| {
        let request = json!({"model": "narrator", "prompt": "A", "temperature": 0, "ignore_eos": true});
        let (status, answer) = server(more).post("/completion", &request);
        assert_eq!(status, 200, "{answer}");
        answer["tokens_predicted"].as_u64().unwrap()
    };
    let apart = tokens("kv = \"slots\"");
    assert!(apart > 1000, "{apart}");
    assert_eq!(tokens("kv = \"pool\"\ndraft = { kind = \"none\" }"), apart);
    assert_eq!(tokens("kv = \"pool\"\ndraft = { kind = \"ngram\", max = 5 }"), apart);
}
