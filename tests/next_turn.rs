//! The beginning of the next turn, computed while nobody asks: what it saves, and that answers stay the same.

mod common;

use std::time::Duration;

use common::{Server, raw_post};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const PREPARED: &str = "hearth_prompt_prepared_tokens_total";
const REASONER: &str = "demo-reasoner";

/// Both built-in models in one process, with these keys of `[server]` and of the reasoner.
fn serve(server: &str, reasoner: &str) -> Server {
    let text = format!(
        "[server]\nport = 0\nshutdown_grace = \"2s\"\n{server}\n\
         [[model]]\nname = \"{REASONER}\"\npath = \"demo:reasoner\"\nparallel = 2\n{reasoner}\n\
         [[model]]\nname = \"demo-narrator\"\npath = \"demo:narrator\"\ncontext = 16384\n"
    );
    Server::configured(&text, 1, None)
}

fn message(role: &str, text: &str) -> Value {
    json!({"role": role, "content": text})
}

/// Behind a system prompt that is worth keeping.
fn conversation(question: &str) -> Vec<Value> {
    let system = "You are a helpful assistant. Keep to the facts and be brief. ".repeat(8);
    vec![message("system", &system), message("user", question)]
}

struct Answer {
    message: Value,
    /// Tokens of the prompt that were computed for it, after it came.
    computed: u64,
}

fn ask(server: &Server, messages: &[Value]) -> Answer {
    let body = json!({"model": REASONER, "messages": messages, "temperature": 0, "max_tokens": 200});
    let (status, mut answer) = server.post(CHAT, &body);
    assert_eq!(status, 200, "{answer}");
    let usage = &answer["usage"];
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    Answer {
        computed: usage["prompt_tokens"].as_u64().unwrap() - cached,
        message: answer["choices"][0]["message"].take(),
    }
}

/// Adds an answer without its thoughts, as most clients do.
fn go_on(messages: &mut Vec<Value>, answer: &Answer, question: &str) {
    let content = answer.message["content"].as_str().unwrap();
    messages.extend([message("assistant", content), message("user", question)]);
}

/// Tokens of a user's message and of the header of its answer.
fn tokens_of(server: &Server, question: &str) -> u64 {
    let text = format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
    let body = json!({"model": REASONER, "content": text, "parse_special": true, "add_special": false});
    let (status, tokens) = server.post("/tokenize", &body);
    assert_eq!(status, 200, "{tokens}");
    tokens["tokens"].as_array().unwrap().len() as u64
}

/// Waits until something more was prepared; returns how much was by then.
fn wait_for_more(server: &Server, than: f64) -> f64 {
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let prepared = server.metric(PREPARED, REASONER);
        if prepared > than {
            return prepared;
        }
        assert!(std::time::Instant::now() < limit, "nothing was prepared");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn only_the_message_of_the_user_is_left() {
    let (server, reference) = (serve("", ""), serve("prepare_next_turn = false", ""));
    let mut messages = conversation("What is 17 + 25?");
    let mut prepared = 0.0;
    for question in ["What is 12 + 30?", "What is 40 + 11?", "Hello!"] {
        let answer = ask(&server, &messages);
        assert!(answer.message["reasoning_content"].is_string(), "{}", answer.message);
        prepared = wait_for_more(&server, prepared);
        assert_eq!(answer.message, ask(&reference, &messages).message);
        go_on(&mut messages, &answer, question);
        let (ours, theirs) = (ask(&server, &messages), ask(&reference, &messages));
        assert_eq!(ours.message, theirs.message, "{messages:?}");
        assert_eq!(ours.computed, tokens_of(&server, question), "{messages:?}");
        assert!(
            ours.computed < theirs.computed,
            "{} of {}",
            ours.computed,
            theirs.computed
        );
        if ours.message["reasoning_content"].is_string() {
            prepared = wait_for_more(&server, prepared);
        }
        // Another message in its place begins at the same point.
        let other = "What is 21 + 6?";
        let edited = [&messages[..messages.len() - 1], &[message("user", other)]].concat();
        let (ours, theirs) = (ask(&server, &edited), ask(&reference, &edited));
        assert_eq!(ours.message, theirs.message, "{edited:?}");
        assert_eq!(ours.computed, tokens_of(&server, other), "{edited:?}");
        prepared = wait_for_more(&server, prepared);
    }
    assert!(reference.metric(PREPARED, REASONER).abs() < 0.5);
}

/// Who asks again at once, after a moment, or in between: answers are those of a server that prepares nothing.
#[test]
fn whenever_the_next_turn_comes_answers_are_the_same() {
    let cached = "draft = { kind = \"none\" }\nexperts = { placement = \"cache\", device = \"cpu\", cache = \"25%\" }";
    for keys in ["draft = { kind = \"none\" }", "draft = { kind = \"mtp\" }", cached] {
        let (server, reference) = (serve("", keys), serve("prepare_next_turn = false", keys));
        let mut numbers = fastrand::Rng::with_seed(5);
        let mut talks = [conversation("What is 8 + 9?"), conversation("What is 31 + 5?")];
        for turn in 0..16 {
            let talk = &mut talks[numbers.usize(..2)];
            let ours = ask(&server, talk);
            assert_eq!(
                ours.message,
                ask(&reference, talk).message,
                "{keys}, turn {turn}: {talk:?}"
            );
            let (one, other) = (numbers.u8(1..60), numbers.u8(1..40));
            let question = format!("What is {one} + {other}?");
            match numbers.u8(..4) {
                // Edited, or begun anew.
                0 => *talk.last_mut().unwrap() = message("user", &question),
                1 if talk.len() > 6 => *talk = conversation(&question),
                _ => go_on(talk, &ours, &question),
            }
            std::thread::sleep(Duration::from_millis(numbers.u64(..500)));
        }
        assert!(server.metric(PREPARED, REASONER) > 0.0, "{keys}");
    }
}

#[test]
fn models_that_answer_have_the_machine_for_themselves() {
    let server = serve("", "");
    let story = json!({"model": "demo-narrator", "prompt": "Once upon a time", "stream": true, "max_tokens": 16000, "ignore_eos": true});
    let reader = raw_post(server.address, "/v1/completions", &story);
    server.wait_for("hearth_requests_running", "demo-narrator", 1.0, Duration::from_secs(30));
    ask(&server, &conversation("What is 17 + 25?"));
    std::thread::sleep(Duration::from_millis(700));
    let prepared = server.metric(PREPARED, REASONER);
    server.wait_for("hearth_requests_running", "demo-narrator", 1.0, Duration::ZERO);
    assert!(prepared.abs() < 0.5, "{prepared}");
    drop(reader);
    wait_for_more(&server, 0.0);
}

/// Where the thoughts stay in the prompt if the client gives them back, it is not known what comes next. Nor is it after a
/// call, which the client answers at once.
#[test]
fn nothing_is_prepared_for_a_turn_that_is_not_known() {
    let template = "{%- for m in messages -%}<|im_start|>{{ m.role }}\n{%- if m.reasoning_content -%}<think>\n\
                    {{ m.reasoning_content }}\n</think>\n\n{%- endif -%}{{ m.content }}<|im_end|>\n{%- endfor -%}\
                    {%- if add_generation_prompt -%}<|im_start|>assistant\n{%- endif -%}";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keeps-thoughts.jinja");
    std::fs::write(&path, template).unwrap();
    let server = serve("", &format!("chat_template = {path:?}"));
    let answer = ask(&server, &conversation("What is 17 + 25?"));
    assert!(answer.message["reasoning_content"].is_string(), "{}", answer.message);
    std::thread::sleep(Duration::from_millis(700));
    assert!(server.metric(PREPARED, REASONER).abs() < 0.5);
}
