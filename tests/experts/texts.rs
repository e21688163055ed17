//! The same tokens from the real server: in one stream and in eight, with drafts and without, whatever has a copy, and while
//! size and policy change.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hearth::experts::Device;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use serde_json::{Value, json};

use super::cached::cache_device;
use super::common::Server;

const NO_DRAFTS: &str = r#"kind = "none""#;
/// Of eight streams, as many tokens as are computed with copies at most.
const HEAD: &str = r#"kind = "mtp", max = 1"#;

/// A model, and what it is asked.
struct Case {
    path: String,
    requests: Vec<Value>,
}

/// The built-in reasoner: it was trained, so that rounding does not change what it says, and most guesses are right.
fn reasoner() -> Case {
    let questions = [
        "What is 12 + 30?",
        "Repeat after me: red green blue red green blue",
        "(3 + 4) * 5",
        "Extract the person and place as JSON: Anna lives in Rome.",
        "Peter has 12 apples, buys 5 and gives away 3. How many are left?",
        "Who are you?",
        "7 times 8",
        "Repeat after me: Lena Oslo 17 Lena Oslo 17",
        "What is 41 + 17?",
        "Simon has 20 apples, buys 2 and gives away 9. How many are left?",
    ];
    let prompt = |text| format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n");
    let request = |text| json!({"prompt": prompt(text), "temperature": 0, "max_tokens": 64});
    Case {
        path: "demo:reasoner".into(),
        requests: questions.iter().map(request).collect(),
    }
}

/// Random weights in single precision, which all devices compute with alike; hardly a guess is right.
fn random(folder: &Path) -> Case {
    let mut shape = Shape::preset(Arch::Qwen3next, "tiny").unwrap();
    shape.mtp = true;
    let path = folder.join("random.gguf");
    let synthetic = Synthetic {
        skew: 0.5,
        ..Synthetic::new(shape, Mix::from_name("f32").unwrap())
    };
    synthetic.write(&path, |_, _| ()).unwrap();
    let prompt = |index: u32| {
        (0..3 + index * 7)
            .map(|token| 300 + token * (index % 3 + 1) % 200)
            .collect()
    };
    let request = |prompt: Vec<u32>| json!({"prompt": prompt, "temperature": 0, "max_tokens": 24, "ignore_eos": true});
    Case {
        path: path.display().to_string(),
        requests: (0..10).map(prompt).map(request).collect(),
    }
}

/// A device in software says that its memory is the machine's, where the plan makes no cache: it is told that it is not.
fn server(case: &Case, slots: usize, experts: &str, draft: &str) -> Server {
    let text = format!(
        "[server]\nport = 0\n[memory]\nunified = false\n[[model]]\nname = \"m\"\npath = {:?}\ncontext = 512\nparallel = {slots}\n\
         experts = {{ {experts} }}\ndraft = {{ {draft} }}\n",
        case.path
    );
    Server::configured(&text, 1, None)
}

/// Copies of so many of the experts.
fn copies(share: &str) -> String {
    let device = match cache_device() {
        Device::Cpu => "cpu",
        Device::Gpu(_) => "auto",
    };
    format!(r#"placement = "cache", device = "{device}", cache = "{share}""#)
}

/// The texts of all answers, so many streams at once.
fn answers(server: &Server, case: &Case, at_once: usize) -> BTreeMap<usize, String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut answers = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = case.requests.get(index) else {
                return answers;
            };
            let (status, answer) = server.post("/v1/completions", request);
            assert_eq!(status, 200, "{answer}");
            answers.push((index, answer["choices"][0]["text"].as_str().unwrap().to_owned()));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// Streams at once, drafts, and the share of the experts that has a copy: on the CPU, where other tests look too, one
/// way.
fn ways() -> Vec<(usize, &'static str, &'static str)> {
    if cache_device() == Device::Cpu {
        return vec![(8, HEAD, "10%")];
    }
    let shares = ["0%", "10%", "50%", "100%"];
    let streams = [(1, NO_DRAFTS), (1, HEAD), (8, NO_DRAFTS), (8, HEAD)];
    let ways = |share| streams.map(|(at_once, draft)| (at_once, draft, share));
    shares.into_iter().flat_map(ways).collect()
}

fn same(case: &Case) {
    let expected = answers(&server(case, 1, r#"placement = "cpu""#, NO_DRAFTS), case, 1);
    for (at_once, draft, share) in ways() {
        let begin = std::time::Instant::now();
        let server = server(case, at_once, &copies(share), draft);
        let what = format!("{} streams, {draft}, {share} of {}", at_once, case.path);
        assert_eq!(answers(&server, case, at_once), expected, "{what}");
        let (status, stats) = server.get("/api/v1/expert-stats");
        assert_eq!(status, 200, "{stats}");
        let used = stats["models"][0]["cache"]["since_start"]["computed"].as_u64().unwrap();
        assert_eq!(used > 0, share != "0%", "{what}: {stats}");
        let guesses = server.metric("hearth_spec_decode_num_draft_tokens_total", "m");
        assert_eq!(guesses > 0.0, draft == HEAD, "{what}: {guesses} guesses");
        println!(
            "{what}: {used} computed with copies, {guesses} guesses, {:?}",
            begin.elapsed()
        );
    }
}

#[test]
#[ignore = "scripts/test-gpu-path runs it; on the CPU tests/drafts.rs does the same"]
fn the_same_texts_of_the_built_in_reasoner() {
    same(&reasoner());
}

#[test]
fn the_same_tokens_of_random_weights() {
    let folder = tempfile::tempdir().unwrap();
    same(&random(folder.path()));
}

/// Size, policy and pinned experts change several times within each answer.
#[test]
fn changes_do_not_show_in_texts() {
    let folder = tempfile::tempdir().unwrap();
    let cases = match cache_device() {
        Device::Cpu => vec![reasoner()],
        Device::Gpu(_) => vec![reasoner(), random(folder.path())],
    };
    for case in cases {
        let expected = answers(&server(&case, 1, r#"placement = "cpu""#, NO_DRAFTS), &case, 1);
        let server = server(&case, 8, &copies("25%"), HEAD);
        let (done, changes) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let number = changes.fetch_add(1, Ordering::Relaxed);
                    let size = ["100%", "0%", "10%", "50%"][number % 4];
                    let policy = ["lru", "static", "predictive", "lfu-decay"][number / 2 % 4];
                    let change = json!({"size": size, "policy": policy, "reset": number % 7 == 6});
                    let (status, answer) = server.post("/api/v1/expert-cache", &change);
                    assert_eq!(status, 200, "{answer}");
                    std::thread::sleep(Duration::from_millis(30));
                }
            });
            // A quick machine answers before much has changed.
            while changes.load(Ordering::Relaxed) < 10 {
                let found = answers(&server, &case, 8);
                if found != expected {
                    // The other thread must end before this one tells.
                    done.store(true, Ordering::Relaxed);
                }
                assert_eq!(found, expected, "{}", case.path);
            }
            done.store(true, Ordering::Relaxed);
        });
        let changes = changes.into_inner();
        println!("{}: {changes} changes", case.path);
    }
}
