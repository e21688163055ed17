//! Long contexts: positions beyond those of the training, and prompts of tens of thousands of tokens.
#![cfg(feature = "demo")]

mod common;

use common::Server;
use common::command::hearth;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use serde_json::{Value, json};

fn server(model: &str, path: &str, more: &str) -> Server {
    let text = format!("[server]\nport = 0\n[[model]]\nname = \"{model}\"\npath = {path:?}\nparallel = 1\n{more}\n");
    Server::configured(&text, 1, None)
}

fn complete(server: &Server, prompt: &Value, tokens: u32) -> Value {
    let body = json!({"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": true, "n_probs": 1});
    let (status, answer) = server.post("/completion", &body);
    assert_eq!(status, 200, "{answer}");
    answer
}

/// So many tokens of a vocabulary of at least 512.
fn prompt(tokens: u32) -> Vec<u32> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..tokens).map(|_| random.u32(300..512)).collect()
}

/// The factor reaches all contexts of a model: answers change with it, but not by drafts of the head, which has positions of
/// its own.
#[test]
fn stretched_positions_are_the_same_for_the_head() {
    let text = json!("user: 12 + 30?\nassistant: 12 + 30 = 42\nuser: 7 + 8?\nassistant:");
    let answer = |more: &str| complete(&server("demo-reasoner", "demo:reasoner", more), &text, 48);
    let plain = answer("draft = { kind = \"none\" }");
    let stretched = answer("draft = { kind = \"none\" }\nrope = { yarn = 4.0 }");
    let sure = |answer: &Value| -> Vec<f64> {
        let tokens = answer["completion_probabilities"].as_array().unwrap();
        tokens.iter().map(|token| token["logprob"].as_f64().unwrap()).collect()
    };
    let pairs = sure(&plain).into_iter().zip(sure(&stretched));
    let difference: f64 = pairs.map(|(plain, stretched)| (plain - stretched).abs()).sum();
    assert!(difference > 0.01, "{difference}");
    let drafted = answer("draft = { kind = \"mtp\", max = 1 }\nrope = { yarn = 4.0 }");
    assert_eq!(drafted["content"], stretched["content"]);
    let timings = &drafted["timings"];
    assert!(timings["draft_n"].as_u64().unwrap() > 0, "{timings}");
}

/// Without a context in the configuration there is more of it, and no warning.
#[test]
fn a_stretched_model_has_a_longer_context() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("models.toml");
    let listed = |more: &str| {
        let text = format!("[[model]]\nname = \"narrator\"\npath = \"demo:narrator\"\n{more}\n");
        std::fs::write(&config, text).unwrap();
        let args = ["models", "--json", "--config", config.to_str().unwrap()];
        let printed = hearth(&args).assert().success();
        let list: Value = serde_json::from_slice(&printed.get_output().stdout).unwrap();
        list[0]["context"].as_u64().unwrap()
    };
    assert_eq!([listed(""), listed("rope = { yarn = 2.5 }")], [4096, 10_240]);

    let narrator = server("narrator", "demo:narrator", "context = 10240\nrope = { yarn = 2.5 }");
    let answer = complete(&narrator, &json!(prompt(10_000)), 8);
    assert_eq!(
        (&answer["tokens_evaluated"], &answer["tokens_predicted"]),
        (&json!(10_000), &json!(8))
    );
}

/// A hybrid model of random weights: a long prompt is computed once, also by another slot's beginning, and states are saved
/// on the way.
#[test]
fn a_long_prompt_is_computed_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut shape = Shape::preset(Arch::Qwen3next, "tiny").unwrap();
    shape.context = 262_144;
    Synthetic::new(shape, Mix::from_name("q4_0").unwrap())
        .write(&path, |_, _| ())
        .unwrap();
    let server = server(
        "random",
        path.to_str().unwrap(),
        "context = 262144\nkv_type = \"q8_0/q4_0\"\nthreads = 2",
    );
    let long = prompt(8_000);
    let first = complete(&server, &json!(long), 4);
    assert_eq!(
        (&first["tokens_evaluated"], &first["tokens_cached"]),
        (&json!(8_000), &json!(8_003))
    );
    let again = complete(&server, &json!(long), 4);
    assert_eq!(again["content"], first["content"]);
    assert!(again["timings"]["prompt_n"].as_u64().unwrap() < 1000, "{again}");
    // What does not fit is refused before anything is computed.
    let (status, answer) = server.post("/completion", &json!({"prompt": prompt(262_145), "n_predict": 4}));
    assert_eq!(
        (status, &answer["error"]["type"]),
        (400, &json!("exceed_context_size_error")),
        "{answer}"
    );
}
