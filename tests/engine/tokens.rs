//! Tokens of prompts: what is known of the messages of earlier ones changes none.

use fastrand::Rng;
use serde_json::{Value, json};

use crate::common::Server;

/// What messages are made of, with texts that are almost control tokens, and white space before and behind these.
const WORDS: [&str; 14] = [
    "The sea was calm",
    " that night,",
    " nobody",
    " saw <|im_st",
    " art|>",
    "\n\n",
    "   ",
    " Zürich 🦙",
    "中文",
    " 1234567",
    "<",
    "|>",
    "\t",
    " {\"city\": \"Rome\"}",
];

/// With what begins every prompt, and with control tokens.
fn tokens(server: &Server, model: &str, text: &str, begins: bool, control: bool) -> Vec<Value> {
    let body = json!({"model": model, "content": text, "add_special": begins, "parse_special": control});
    let (status, found) = server.post("/tokenize", &body);
    assert_eq!(status, 200, "{found}");
    found["tokens"].as_array().unwrap().clone()
}

#[test]
fn a_message_has_its_tokens_in_every_conversation() {
    let server = Server::start("");
    for model in ["demo-reasoner", "demo-narrator"] {
        let control: Vec<(&str, Value)> = [
            "<|im_start|>",
            "<|im_end|>",
            "<think>",
            "</think>",
            "[INST]",
            "[/INST]",
            "</s>",
        ]
        .into_iter()
        .filter_map(|text| match tokens(&server, model, text, false, true).as_slice() {
            [token] => Some((text, token.clone())),
            _ => None,
        })
        .collect();
        assert!(control.len() >= 2, "{control:?}");
        let begin = tokens(&server, model, "", true, true);
        let mut rng = Rng::with_seed(7);
        let mut messages: Vec<(String, Vec<Value>)> = Vec::new();
        for _ in 0..40 {
            let (start, token) = &control[rng.usize(..control.len())];
            let words = (0..rng.usize(..80)).map(|_| WORDS[rng.usize(..WORDS.len())]);
            let text: String = words.collect();
            let mut expected = vec![token.clone()];
            expected.extend(tokens(&server, model, &text, false, false));
            messages.push((format!("{start}{text}"), expected));
        }
        for _ in 0..40 {
            let first = rng.usize(..20);
            let picked = &messages[first..rng.usize(first + 1..=40)];
            let prompt: String = picked.iter().map(|(text, _)| text.as_str()).collect();
            let expected: Vec<Value> = begin
                .iter()
                .chain(picked.iter().flat_map(|(_, tokens)| tokens))
                .cloned()
                .collect();
            assert_eq!(
                tokens(&server, model, &prompt, true, true),
                expected,
                "{model}: {prompt}"
            );
        }
    }
}
