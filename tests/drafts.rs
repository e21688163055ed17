//! Drafts change nothing but the speed: the same texts with and without, whatever happens beside.
#![cfg(feature = "demo")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::Server;
use common::command::{hearth, stderr};
use hearth::config::{ModelConfig, ModelSource};
use hearth::demo::DemoModel;
use hearth::engine::local::{DraftSource, DraftSpec, LoadSpec, LocalEngine, Placement};
use hearth::engine::{Event, GenerateRequest, Prompt, SamplingOverrides, TokenEngine};
use hearth::gguf::Gguf;
use hearth::models::describe;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use hearth::telemetry::Metrics;
use serde_json::{Value, json};

/// One test at a time: servers that compute at once on few cores mostly wait for each other.
static ALONE: Mutex<()> = Mutex::new(());

/// A built-in model with so many slots and these drafts.
fn model(name: &str, path: &str, slots: u32, draft: &str) -> String {
    format!(
        "[[model]]\nname = \"{name}\"\npath = \"demo:{path}\"\ncontext = 2048\nparallel = {slots}\ndraft = {draft}\n"
    )
}

/// Serves models on one port.
fn serve(models: &[String]) -> Server {
    Server::configured(&format!("[server]\nport = 0\n{}", models.concat()), 1, None)
}

/// The built-in reasoner.
fn server(slots: u32, draft: &str) -> Server {
    serve(&[model("demo-reasoner", "reasoner", slots, draft)])
}

/// Chats of every kind that the built-in reasoner knows.
fn chats(count: usize) -> Vec<Value> {
    let names = ["Anna", "Peter", "Lena", "Simon", "Mara"];
    let cities = ["Paris", "Rome", "Oslo", "Cairo", "Lima", "Bonn", "Riga"];
    let tools = json!([{"type": "function", "function": {"name": "get_weather", "parameters":
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]);
    (0..count)
        .map(|index| {
            let (name, city) = (names[index % 5], cities[index % 7]);
            let (a, b, c) = (index * 7 % 61, index * 11 % 53, index % 9 + 1);
            let text = match index % 6 {
                0 => format!("What is {a} + {b}?"),
                1 => format!("What is the weather in {city}?"),
                2 => format!("Extract the person and place as JSON: {name} lives in {city}."),
                3 => format!("({} + {}) * {c}", a % 9, b % 7),
                4 => format!("Repeat after me: {name} {city} {a} {name} {city} {b} {name} {city}"),
                _ => format!(
                    "{name} has {} apples, buys {} and gives away {c}. How many are left?",
                    a % 20 + 9,
                    b % 12
                ),
            };
            let mut chat = json!({"model": "demo-reasoner", "messages": [{"role": "user", "content": text}],
                "temperature": 0, "max_tokens": 160});
            if index % 6 == 1 {
                chat["tools"] = tools.clone();
            }
            chat
        })
        .collect()
}

/// Answers to all requests, so many at once: the message with everything in it, tokens, guesses, and right guesses.
fn answers(server: &Server, path: &str, requests: &[Value], at_once: usize) -> Vec<(Value, [u64; 3])> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut answers = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = requests.get(index) else {
                return answers;
            };
            let (status, mut answer) = server.post(path, request);
            assert_eq!(status, 200, "{request}: {answer}");
            let count = |of: &str| answer["timings"][of].as_u64().unwrap_or(0);
            let counts = [count("predicted_n"), count("draft_n"), count("draft_n_accepted")];
            let mut choice = answer["choices"][0].take();
            // Made up for each call.
            for call in choice["message"]["tool_calls"].as_array_mut().into_iter().flatten() {
                call["id"] = Value::Null;
            }
            // The last bits of logits depend on what else is in a pass, drafts or not.
            for token in choice["logprobs"]["content"].as_array_mut().into_iter().flatten() {
                token["logprob"] = Value::Null;
            }
            answers.push((index, (choice, counts)));
        }
    };
    let all: BTreeMap<usize, _> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    all.into_values().collect()
}

fn same(plain: &[(Value, [u64; 3])], drafted: &[(Value, [u64; 3])], requests: &[Value]) {
    for ((plain, drafted), request) in plain.iter().zip(drafted).zip(requests) {
        assert_eq!((&plain.0, plain.1[0]), (&drafted.0, drafted.1[0]), "{request}");
    }
}

fn sum(answers: &[(Value, [u64; 3])], which: usize) -> u64 {
    answers.iter().map(|(_, counts)| counts[which]).sum()
}

const CHAT: &str = "/v1/chat/completions";

#[test]
fn greedy_texts_are_the_same() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let chats = chats(60);
    let plain = answers(&server(8, r#"{ kind = "none" }"#), CHAT, &chats, 8);
    assert_eq!(sum(&plain, 1), 0);
    // One guess; several in a row, as the head learned them; and from the text.
    for (slots, draft) in [
        (1, r#"{ kind = "mtp", max = 1 }"#),
        (4, r#"{ kind = "mtp", max = 3, min_probability = 0.3 }"#),
        (8, r#"{ kind = "mtp", max = 2 }"#),
        (2, r#"{ kind = "ngram", max = 4 }"#),
        (
            2,
            "{ kind = \"mtp\" }\nexperts = { placement = \"cache\", device = \"cpu\", cache = \"50%\" }",
        ),
    ] {
        let server = server(slots, draft);
        let drafted = answers(&server, CHAT, &chats, slots as usize);
        same(&plain, &drafted, &chats);
        let (made, right) = (sum(&drafted, 1), sum(&drafted, 2));
        assert!(right > 0 && right <= made, "{draft}: {right} of {made}");
        if draft.contains("mtp") {
            assert!(right * 100 >= made * 85, "{draft}: {right} of {made}");
        }
        let metric = |name: &str| server.metric(name, "demo-reasoner");
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let counted = (made as f64, right as f64);
        let metrics = (
            metric("hearth_spec_decode_num_draft_tokens_total"),
            metric("hearth_spec_decode_num_accepted_tokens_total"),
        );
        assert_eq!(metrics, counted);
    }
}

/// With a seed the same random numbers choose the same tokens: guesses take none. So the distribution is the same, too.
#[test]
fn sampled_texts_are_the_same() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut requests = chats(24);
    for (index, request) in requests.iter_mut().enumerate() {
        request["temperature"] = json!(1.0);
        request["seed"] = json!(index);
        match index % 8 {
            1 => request["logprobs"] = json!(true),
            2 => request["response_format"] = json!({"type": "json_object"}),
            3 => request["repeat_penalty"] = json!(1.3),
            4 => request["stop"] = json!(["a"]),
            5 => request["mirostat"] = json!(2),
            6 => request["reasoning_budget_tokens"] = json!(5),
            7 => request["max_tokens"] = json!(index),
            _ => {}
        }
    }
    let plain = answers(&server(4, r#"{ kind = "none" }"#), CHAT, &requests, 4);
    for draft in [r#"{ kind = "mtp" }"#, r#"{ kind = "ngram", max = 3 }"#] {
        let drafted = answers(&server(4, draft), CHAT, &requests, 4);
        assert!(sum(&drafted, 2) > 0);
        same(&plain, &drafted, &requests);
    }
}

/// A model without recurrent layers drops wrong guesses instead of computing tokens again.
#[test]
fn a_plain_model_looks_up() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let prompt = "The lamp is red. The door is blue. The lamp is red. The door is blue. The lamp is";
    let requests: Vec<Value> = (1..30)
        .map(|index| json!({"model": "demo-narrator", "prompt": prompt, "temperature": 0, "max_tokens": index * 3}))
        .collect();
    let server = |draft: &str| serve(&[model("demo-narrator", "narrator", 2, draft)]);
    let plain = answers(&server(r#"{ kind = "none" }"#), "/v1/completions", &requests, 2);
    let drafted = answers(
        &server(r#"{ kind = "ngram", max = 5 }"#),
        "/v1/completions",
        &requests,
        2,
    );
    same(&plain, &drafted, &requests);
    assert!(sum(&drafted, 1) > 0);
}

/// Stories of several lengths, in slots that go on from each other's beginnings.
fn stories(name: &str) -> Vec<Value> {
    (1..25)
        .map(|index| {
            let prompt = format!(
                "{}The lamp is {}",
                "The door is blue. ".repeat(index % 7),
                ["red", "lit"][index % 2]
            );
            json!({"model": name, "prompt": prompt, "temperature": 0, "max_tokens": index * 3})
        })
        .collect()
}

/// The narrator is its own small model: nearly all guesses are right.
#[test]
fn a_small_model_guesses() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let requests = stories("demo-narrator");
    let server = |draft: &str| serve(&[model("demo-narrator", "narrator", 3, draft)]);
    let plain = answers(&server(r#"{ kind = "none" }"#), "/v1/completions", &requests, 3);
    let small = server(r#"{ kind = "model", path = "demo:narrator", max = 3 }"#);
    for at_once in [1, 3] {
        let drafted = answers(&small, "/v1/completions", &requests, at_once);
        same(&plain, &drafted, &requests);
        assert!(
            sum(&drafted, 2) * 100 >= sum(&drafted, 1) * 95 && sum(&drafted, 1) > 300,
            "{} of {}",
            sum(&drafted, 2),
            sum(&drafted, 1)
        );
    }
}

/// Two models of random weights: nearly no guess is right, and the large one has states that cannot be cut.
#[test]
fn wrong_guesses_of_a_small_model_change_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let [large, small] = [Arch::Qwen3next, Arch::Llama].map(|arch| {
        let path = folder.path().join(format!("{}.gguf", arch.as_str()));
        let shape = Shape::preset(arch, "tiny").unwrap();
        let file = Synthetic::new(shape, Mix::from_name("q8_0").unwrap());
        file.write(&path, |_, _| ()).unwrap();
        path.display().to_string()
    });
    let server = |draft: &str| {
        let text =
            format!("[[model]]\nname = \"random\"\npath = {large:?}\ncontext = 1024\nparallel = 2\ndraft = {draft}\n");
        serve(&[text])
    };
    let requests: Vec<Value> = (0..12)
        .map(|index| {
            let prompt: Vec<u32> = (0..20 + index * 9)
                .map(|token| 300 + token * (index % 3 + 1) % 200)
                .collect();
            json!({"model": "random", "prompt": prompt, "temperature": 0, "max_tokens": 12, "ignore_eos": true})
        })
        .collect();
    let plain = answers(&server(r#"{ kind = "none" }"#), "/v1/completions", &requests, 1);
    let drafted = server(&format!("{{ kind = \"model\", path = {small:?}, max = 2 }}"));
    let drafted = answers(&drafted, "/v1/completions", &requests, 1);
    same(&plain, &drafted, &requests);
    assert!(sum(&drafted, 1) > 100 && sum(&drafted, 2) < sum(&drafted, 1) / 2);
}

#[test]
fn small_models_that_cannot_guess_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("models.toml");
    for (large, draft, message) in [
        ("narrator", r#"{ kind = "model" }"#, "does not say which"),
        (
            "narrator",
            r#"{ kind = "model", path = "demo:reasoner" }"#,
            "recurrent layers",
        ),
        (
            "reasoner",
            r#"{ kind = "model", path = "demo:narrator" }"#,
            "vocabulary is another one",
        ),
        ("narrator", r#"{ path = "none.gguf" }"#, "none.gguf"),
    ] {
        std::fs::write(&config, model("m", large, 1, draft)).unwrap();
        let refused = hearth(&["generate", "--config", config.to_str().unwrap(), "Hello"])
            .assert()
            .code(1);
        assert!(stderr(&refused).contains(message), "{message}: {}", stderr(&refused));
    }
}

/// Conversations that go on, part, are asked for several times at once, and are given up at any moment, while slots are saved,
/// restored and erased, and there is room for few states: each answer is that of a lone run, and memory stays in its budget.
/// `HEARTH_TEST_ROUNDS` asks for more of them, `HEARTH_TEST_SEED` for others.
#[test]
fn nothing_beside_changes_an_answer() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let alone = server(1, r#"{ kind = "none" }"#);
    let folder = tempfile::tempdir().unwrap();
    let cached = "experts = { placement = \"cache\", device = \"cpu\", cache = \"50%\" }\n";
    let busy = Server::configured(
        &format!(
            "[server]\nport = 0\nslot_save_path = {:?}\n[memory]\nprompt_cache = \"{BUDGET}B\"\n{}{}{cached}",
            folder.path(),
            model("ngram", "reasoner", 2, "{ kind = \"ngram\" }\nkv = \"pool\""),
            model("demo-reasoner", "reasoner", 3, r#"{ kind = "mtp", max = 3 }"#),
        ),
        1,
        None,
    );
    let mut rng = fastrand::Rng::with_seed(number("HEARTH_TEST_SEED", 7));
    let requests = conversations(&mut rng, number("HEARTH_TEST_ROUNDS", 30));
    let lone = answers(&alone, CHAT, &requests, 1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| give_up(&busy, &requests));
        scope.spawn(|| {
            let mut most = 0.0_f64;
            while !done.load(Ordering::Relaxed) {
                disturb(&busy, &mut rng);
                let kept = ["demo-reasoner", "ngram"].map(|model| busy.metric("hearth_prompt_cache_bytes", model));
                assert!(kept.iter().all(|bytes| *bytes <= f64::from(BUDGET)), "{kept:?}");
                most = kept.into_iter().fold(most, f64::max);
                std::thread::sleep(Duration::from_millis(20));
            }
            // A budget that nobody reaches shows nothing.
            assert!(most > f64::from(BUDGET) / 2.0, "{most}");
        });
        for model in ["demo-reasoner", "ngram"] {
            let mut requests = requests.clone();
            for request in &mut requests {
                request["model"] = json!(model);
            }
            same(&lone, &answers(&busy, CHAT, &requests, 5), &requests);
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Bytes for saved states: a few of them.
const BUDGET: u32 = 1 << 20;

/// Questions in conversations with common beginnings of many lengths.
fn conversations(rng: &mut fastrand::Rng, count: u64) -> Vec<Value> {
    let questions = [
        "What is 12 + 30?",
        "And plus 5?",
        "Say hello Peter",
        "Hello",
        "7 times 8",
        "Who are you?",
    ];
    let one = |rng: &mut fastrand::Rng| {
        let mut messages = Vec::new();
        if rng.bool() {
            let tail = "Be brief. ".repeat(rng.usize(1..30));
            messages.push(json!({"role": "system", "content": format!("You are a helpful assistant. {tail}")}));
        }
        for turn in 0..rng.usize(1..4) {
            if turn > 0 {
                messages.push(json!({"role": "assistant", "content": "42"}));
            }
            let question = questions[rng.usize(0..questions.len())];
            messages.push(json!({"role": "user", "content": question}));
        }
        json!({"model": "demo-reasoner", "messages": messages, "temperature": 0,
            "max_tokens": rng.u32(1..60), "n": if rng.u32(0..5) == 0 { 2 } else { 1 }})
    };
    (0..count).map(|_| one(rng)).collect()
}

/// Asks, and does not wait for the end.
fn give_up(server: &Server, requests: &[Value]) {
    let client = reqwest::blocking::Client::new();
    for (index, request) in requests.iter().enumerate() {
        let mut request = request.clone();
        (request["stream"], request["max_tokens"]) = (json!(true), json!(300));
        let url = format!("http://{}{CHAT}", server.address);
        let patience = Duration::from_millis(5 + index as u64 % 7 * 20);
        // A timeout is what it is about.
        let _ = client
            .post(url)
            .json(&request)
            .timeout(patience)
            .send()
            .and_then(|answer| answer.bytes());
    }
}

/// Saves, restores or erases a slot, whoever had it.
fn disturb(server: &Server, rng: &mut fastrand::Rng) {
    let (model, slots) = [("demo-reasoner", 3), ("ngram", 2)][rng.usize(0..2)];
    let action = ["save", "restore", "erase"][rng.usize(0..3)];
    let (slot, file) = (rng.u32(0..slots), format!("{model}-{}.bin", rng.u32(0..3)));
    let path = format!("/slots/{slot}?action={action}&model={model}");
    let (status, answer) = server.post(&path, &json!({"filename": file}));
    // A file that was not written yet is not found.
    assert!(matches!(status, 200 | 400 | 404), "{action}: {status} {answer}");
}

/// The built-in reasoner with drafts where they pay, and passes that take so much longer than they do.
fn engine(pass_price: Duration, source: DraftSource) -> LocalEngine {
    let path = DemoModel::Reasoner.unpack().unwrap();
    let config = ModelConfig::new("drafts", ModelSource::File(path.clone()));
    let info = describe(&config, &Gguf::open(&path).unwrap()).unwrap();
    let spec = LoadSpec {
        path,
        context: 1024,
        parallel: 2,
        batch: 512,
        pool: false,
        yarn: None,
        draft_model: None,
        threads: 1.into(),
        max_pause: Duration::from_millis(500),
        prepares: false,
        prompt_cache: 1 << 20,
        saved: None,
        placement: Placement::default(),
        experts: None,
        embedding: None,
        draft: Some(DraftSpec {
            source,
            most: 2,
            least_probability: 0.0,
            always: false,
            pass_price,
        }),
    };
    let engine = LocalEngine::start(info, spec, 8, Metrics::new().model("drafts")).unwrap();
    engine.wait_until_loaded(|_| ()).unwrap();
    engine
}

/// Guesses in an answer of so many tokens, and those that were right.
fn guesses(engine: &LocalEngine, text: &str, tokens: u32) -> (u32, u32) {
    let prompt = Prompt::Text {
        text: text.to_owned(),
        add_special: true,
    };
    let greedy = SamplingOverrides {
        temperature: Some(0.0),
        ..SamplingOverrides::default()
    };
    let mut request = GenerateRequest::new(prompt, greedy.resolve(vec![]).unwrap());
    request.max_tokens = Some(tokens);
    request.ignore_eos = true;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut events = engine.submit(request).await.unwrap();
        while let Some(event) = events.next().await {
            if let Event::Finished { usage, .. } = event {
                return (usage.draft_tokens, usage.accepted_tokens);
            }
        }
        panic!("no end");
    })
}

/// On a processor each token of a pass costs about as much as the first: there, drafts switch themselves off.
#[test]
fn drafts_switch_themselves_on_where_a_pass_is_dear() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let text = "<|im_start|>user\nRepeat after me: red green blue red green blue red green blue<|im_end|>\n<|im_start|>assistant\n";
    let dear = Duration::from_millis(40);
    for source in [DraftSource::Mtp, DraftSource::Lookup] {
        let (made, right) = guesses(&engine(dear, source), text, 80);
        assert!(right >= 10 && made >= right, "{source:?}: {right} of {made}");
    }
}
