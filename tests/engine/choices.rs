//! Several choices of one prompt, and seeds.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::{Server, stream};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn texts(body: &Value) -> Vec<String> {
    let choices = body["choices"].as_array().unwrap().iter();
    let text = |choice: &Value| choice.get("text").or(choice["message"].get("content")).cloned();
    choices
        .map(|choice| text(choice).unwrap().as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn choices_share_their_prompt() {
    let server = Server::start("parallel = 4");
    let long = "The sea was calm that night, and nobody had seen the lights. ".repeat(10);
    for model in ["demo-narrator", "demo-reasoner"] {
        let body = json!({"model": model, "prompt": long, "n": 4, "max_tokens": 12, "temperature": 1.0, "seed": 5});
        let (status, whole) = server.post(COMPLETIONS, &body);
        assert_eq!(status, 200, "{whole}");
        let indexes: Vec<&Value> = whole["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|choice| &choice["index"])
            .collect();
        assert_eq!(indexes, [0, 1, 2, 3]);
        let different: BTreeSet<String> = texts(&whole).into_iter().collect();
        assert!(different.len() >= 3, "{model}: {different:?}");
        // The prompt counts once, and was computed once.
        let prompt = whole["usage"]["prompt_tokens"].as_u64().unwrap();
        let (_, single) = server.post(COMPLETIONS, &json!({"model": model, "prompt": long, "max_tokens": 1}));
        assert_eq!(single["usage"]["prompt_tokens"], prompt);
        if model == "demo-narrator" {
            // The three others took it over, whether they came before it was computed or later; so did the single one.
            let cached = server.metric("hearth_prompt_cached_tokens_total", model);
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let computed_once = cached >= 4.0 * (prompt - 1) as f64;
            assert!(computed_once, "{model}: {cached} of {prompt} each");
        }

        // Greedy choices are all the same, and what a request of its own gives.
        let greedy = json!({"model": model, "prompt": long, "n": 3, "max_tokens": 16, "temperature": 0});
        let (_, whole) = server.post(COMPLETIONS, &greedy);
        let alone = json!({"model": model, "prompt": long, "max_tokens": 16, "temperature": 0, "cache_prompt": false});
        let (_, alone) = server.post(COMPLETIONS, &alone);
        let alone = texts(&alone).remove(0);
        assert_eq!(texts(&whole), [alone.as_str(); 3], "{model}");
    }
}

#[test]
fn more_choices_than_slots_are_all_answered() {
    let server = Server::start("parallel = 2");
    let body = json!({
        "model": "demo-narrator", "n": 5, "max_tokens": 6, "temperature": 1.0,
        "messages": [{"role": "user", "content": "Say something."}],
    });
    let (status, whole) = server.post(CHAT, &body);
    assert_eq!((status, texts(&whole).len()), (200, 5), "{whole}");
    let mut streaming = body;
    streaming["stream"] = true.into();
    let lines = stream(server.address, CHAT, &streaming);
    let chunks: Vec<Value> = lines[..lines.len() - 1]
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ended: BTreeSet<u64> = chunks
        .iter()
        .filter(|chunk| !chunk["choices"][0]["finish_reason"].is_null())
        .map(|chunk| chunk["choices"][0]["index"].as_u64().unwrap())
        .collect();
    assert_eq!(ended, (0..5).collect());
    for (path, body) in [
        (COMPLETIONS, json!({"prompt": vec!["a"; 20], "n": 4})),
        (COMPLETIONS, json!({"prompt": "a", "n": 0})),
        ("/api/v1/generate", json!({"prompt": "a", "n": 2})),
    ] {
        let (status, body) = server.post(path, &body);
        assert_eq!((status, &body["error"]["param"]), (400, &json!("n")), "{body}");
    }
}

#[test]
fn a_seed_gives_the_same_answer_again() {
    let server = Server::start("");
    for model in ["demo-narrator", "demo-reasoner"] {
        let body = |seed: u32| json!({"model": model, "prompt": "Once upon a time", "seed": seed, "max_tokens": 60, "temperature": 1.3, "ignore_eos": true});
        let answer = |seed: u32| texts(&server.post(COMPLETIONS, &body(seed)).1).remove(0);
        let first = answer(11);
        for _ in 0..3 {
            assert_eq!(answer(11), first, "{model}");
            assert_ne!(answer(12), first, "{model}");
        }
    }
}

#[test]
fn an_answer_may_begin_with_its_prompt() {
    let server = Server::start("");
    for (prompt, expect) in [
        (json!("Once"), vec!["Once"]),
        (json!(["One", "Two"]), vec!["One", "One", "Two", "Two"]),
    ] {
        let mut body = json!({"model": "demo-narrator", "prompt": prompt, "echo": true, "n": expect.len() / prompt.as_array().map_or(1, Vec::len), "max_tokens": 4});
        let (status, whole) = server.post(COMPLETIONS, &body);
        assert_eq!(status, 200, "{whole}");
        for (text, begin) in texts(&whole).iter().zip(&expect) {
            assert!(text.starts_with(begin), "{text}");
        }
        body["stream"] = true.into();
        let lines = stream(server.address, COMPLETIONS, &body);
        let mut streamed = vec![String::new(); expect.len()];
        for line in &lines[..lines.len() - 1] {
            let chunk: Value = serde_json::from_str(line).unwrap();
            let choice = &chunk["choices"][0];
            if let Some(index) = choice["index"].as_u64() {
                streamed[usize::try_from(index).unwrap()] += choice["text"].as_str().unwrap();
            }
        }
        for (text, begin) in streamed.iter().zip(&expect) {
            assert!(text.starts_with(begin), "{text}");
        }
    }
    for (path, body, param) in [
        (COMPLETIONS, json!({"prompt": "a", "echo": true, "logprobs": 1}), "echo"),
        (
            CHAT,
            json!({"messages": [{"role": "user", "content": "a"}], "echo": true}),
            "echo",
        ),
        // The demo models have no tokens for it.
        (COMPLETIONS, json!({"prompt": "a", "suffix": "b"}), "suffix"),
        (COMPLETIONS, json!({"prompt": ["a", "b"], "suffix": "b"}), "suffix"),
    ] {
        let (status, answer) = server.post(path, &body);
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &json!(param)),
            "{body}: {answer}"
        );
    }
    // Mirostat takes the place of the chain.
    for version in [1, 2] {
        let body = json!({"model": "demo-narrator", "prompt": "Once", "mirostat": version, "mirostat_tau": 3, "seed": 3, "max_tokens": 20});
        let (status, first) = server.post(COMPLETIONS, &body);
        assert_eq!(status, 200, "{first}");
        assert_eq!(texts(&server.post(COMPLETIONS, &body).1), texts(&first));
    }
}
