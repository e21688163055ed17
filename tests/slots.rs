//! What slots hold, saved to files: by request, and over restarts.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::Server;
use serde_json::{Value, json};

/// The built-in pair with one slot each, saving to this folder.
fn start(folder: &Path, extra: &str) -> Server {
    let mut text = format!("[server]\nport = 0\nslot_save_path = {folder:?}\n");
    for name in ["reasoner", "narrator"] {
        text += &format!("[[model]]\nname = \"demo-{name}\"\npath = \"demo:{name}\"\nparallel = 1\n{extra}\n");
    }
    Server::configured(&text, 1, None)
}

fn act(server: &Server, model: &str, action: &str, file: &str) -> (u16, Value) {
    server.post(
        &format!("/slots/0?action={action}&model={model}"),
        &json!({"filename": file}),
    )
}

/// Continues a prompt; the text, and how many tokens of the prompt were there already.
fn complete(server: &Server, model: &str, prompt: &str, cache: bool) -> (String, u64) {
    let body = json!({"model": model, "prompt": prompt, "temperature": 0, "n_predict": 12, "cache_prompt": cache});
    let (status, answer) = server.post("/completion", &body);
    assert_eq!(status, 200, "{answer}");
    (
        answer["content"].as_str().unwrap().to_owned(),
        answer["timings"]["cache_n"].as_u64().unwrap(),
    )
}

#[test]
fn a_slot_comes_back_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(&folder.path().join("slots"), "");
    for model in ["demo-reasoner", "demo-narrator"] {
        let prompt = "The weather in Paris is sunny. ".repeat(20);
        let (text, _) = complete(&server, model, &prompt, true);
        let longer = format!("{prompt}{text} And then");
        let (wanted, _) = complete(&server, model, &longer, false);
        complete(&server, model, &prompt, true);
        let (status, saved) = act(&server, model, "save", "a.bin");
        assert_eq!(
            (status, &saved["id_slot"], &saved["filename"]),
            (200, &json!(0), &json!("a.bin"))
        );
        let bytes = fs::metadata(folder.path().join("slots/a.bin")).unwrap().len();
        assert_eq!(saved["n_written"], bytes);
        assert!(saved["timings"]["save_ms"].as_f64().unwrap() > 0.0);
        let (_, erased) = act(&server, model, "erase", "");
        assert_eq!((&erased["n_erased"], &saved["id_slot"]), (&saved["n_saved"], &json!(0)));
        let (_, read) = act(&server, model, "restore", "a.bin");
        assert_eq!(
            (&read["n_restored"], &read["n_read"]),
            (&saved["n_saved"], &json!(bytes))
        );
        assert!(read["timings"]["restore_ms"].as_f64().unwrap() > 0.0);
        let (text, cached) = complete(&server, model, &longer, true);
        assert_eq!(text, wanted, "{model}");
        assert!(cached > 100, "{model}: {cached}");
    }
}

#[test]
fn files_that_cannot_be_used_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "");
    let model = "demo-narrator";
    complete(&server, model, "Once upon a time", true);
    assert_eq!(act(&server, model, "save", "a").0, 200);
    for name in [
        "",
        "..",
        "../a",
        "/tmp/a",
        "a/b",
        "a\\b",
        ".a",
        "a.",
        " a",
        "a\n",
        &"a".repeat(201),
    ] {
        for action in ["save", "restore"] {
            let (status, error) = act(&server, model, action, name);
            assert_eq!(
                (status, &error["error"]["param"]),
                (400, &json!("filename")),
                "{name:?}"
            );
        }
    }
    let sound = fs::read(folder.path().join("a")).unwrap();
    let damaged = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("short", sound[..100].to_vec()),
        ("cut", sound[..sound.len() - 1].to_vec()),
        ("count", damaged(8)),
        ("state", damaged(sound.len() / 2)),
        ("seal", damaged(sound.len() - 60)),
    ] {
        fs::write(folder.path().join("b"), bytes).unwrap();
        let (status, error) = act(&server, model, "restore", "b");
        assert_eq!(
            (status, &error["error"]["type"]),
            (400, &json!("invalid_request_error")),
            "{what}: {error}"
        );
    }
    for (model, file, word) in [(model, "c", "No such file"), ("demo-reasoner", "a", "another model")] {
        let (status, error) = act(&server, model, "restore", file);
        assert_eq!(status, 400);
        assert!(error["error"]["message"].as_str().unwrap().contains(word), "{error}");
    }
    for (path, param) in [
        ("/slots/1?action=erase", "slot"),
        ("/slots/x?action=erase", "slot"),
        ("/slots/0?action=fly", "action"),
    ] {
        let (status, error) = server.post(path, &json!({"filename": "a"}));
        assert_eq!((status, &error["error"]["param"]), (400, &json!(param)), "{path}");
    }
    // Nothing of it did any harm.
    assert_eq!(act(&server, model, "restore", "a").0, 200);
    assert_eq!(
        fs::read_dir(folder.path())
            .unwrap()
            .filter(|file| {
                let name = file.as_ref().unwrap().file_name();
                name.to_string_lossy().starts_with(".sequence-") && name != ".sequence-lock"
            })
            .count(),
        0
    );
}

/// Who asks for a slot that computes waits until it is free.
#[test]
fn a_busy_slot_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), "");
    let model = "demo-narrator";
    let address = server.address;
    std::thread::scope(|scope| {
        let body = json!({"model": model, "prompt": "Once", "n_predict": 1500, "ignore_eos": true, "stream": true});
        let long = scope.spawn(move || common::stream(address, "/completion", &body));
        server.wait_for("hearth_requests_running", model, 1.0, Duration::from_secs(20));
        let (status, saved) = act(&server, model, "save", "a");
        assert_eq!(status, 200, "{saved}");
        assert!(saved["n_saved"].as_u64().unwrap() >= 1500, "{saved}");
        long.join().unwrap();
    });
}

#[test]
fn without_a_folder_nothing_is_saved() {
    let server = Server::start("parallel = 1");
    for action in ["save", "restore"] {
        let (status, error) = act(&server, "demo-narrator", action, "a");
        assert_eq!((status, &error["error"]["type"]), (501, &json!("not_supported_error")));
    }
    assert_eq!(act(&server, "demo-narrator", "erase", "a").0, 200);
}

/// The next question of a conversation, after a restart, finds what was computed before.
#[test]
fn conversations_go_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |server: &Server, model: &str, messages: &[Value], cache: bool| {
        let body =
            json!({"model": model, "messages": messages, "temperature": 0, "max_tokens": 30, "cache_prompt": cache});
        let (status, answer) = server.post("/v1/chat/completions", &body);
        assert_eq!(status, 200, "{answer}");
        let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
        (text.to_owned(), cached)
    };
    let begin = |name: &str| {
        let system = format!("You are {name}. ").repeat(20);
        vec![
            json!({"role": "system", "content": system}),
            json!({"role": "user", "content": "Hello!"}),
        ]
    };
    let next = |name: &str, answer: &str| {
        let mut messages = begin(name);
        messages.push(json!({"role": "assistant", "content": answer}));
        messages.push(json!({"role": "user", "content": "Who are you?"}));
        messages
    };
    let models = ["demo-reasoner", "demo-narrator"];
    let server = start(folder.path(), "");
    let mut answers = Vec::new();
    for model in models {
        // One of them loses the slot to the other, and is kept in main memory.
        let names = ["Mira", "Tom"];
        answers.push(names.map(|name| (name, ask(&server, model, &begin(name), true).0)));
    }
    assert!(server.terminate().success());
    let files = || fs::read_dir(folder.path().join("restart")).unwrap().count();
    assert!(files() >= 4, "{}", files());

    let server = start(folder.path(), "");
    for (model, answers) in models.iter().zip(&answers) {
        for (name, answer) in answers {
            let messages = next(name, answer);
            let (text, cached) = ask(&server, model, &messages, true);
            assert!(cached > 80, "{model}, {name}: {cached}");
            assert_eq!(text, ask(&server, model, &messages, false).0, "{model}, {name}");
        }
    }
    assert!(server.terminate().success());

    // Another context may be too short for it, and a damaged file is passed over.
    for file in fs::read_dir(folder.path().join("restart")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if let Some(byte) = bytes.get_mut(50) {
            *byte ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let server = start(folder.path(), "context = 64");
    let (_, cached) = ask(
        &server,
        "demo-narrator",
        &[json!({"role": "user", "content": "Hello!"})],
        true,
    );
    assert_eq!(cached, 0);
}
