//! Models that come and go while the server answers.
#![cfg(feature = "demo")]

mod common;

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{Server, stream};
use serde_json::{Value, json};

const PAIR: [&str; 2] = ["reasoner", "narrator"];

/// The pair with further keys for each.
fn pair(server: &str, keys: [&str; 2]) -> String {
    let mut text = format!("{server}\n[server]\nport = 0\nshutdown_grace = \"10s\"\n");
    for (name, keys) in PAIR.iter().zip(keys) {
        let _ = writeln!(
            text,
            "[[model]]\nname = \"{name}\"\npath = \"demo:{name}\"\ncontext = 1024\nparallel = 2\nthreads = 1\n{keys}"
        );
    }
    text
}

fn chat(model: &str) -> Value {
    json!({"model": model, "max_tokens": 6, "temperature": 0, "messages": [{"role": "user", "content": "Hello"}]})
}

fn endless(model: &str, tokens: u32) -> Value {
    json!({"model": model, "prompt": "Once", "max_tokens": tokens, "ignore_eos": true, "stream": true, "temperature": 0})
}

fn status(server: &Server, model: &str) -> Value {
    let (status, models) = server.get("/models");
    assert_eq!(status, 200);
    let models = models["data"].as_array().unwrap();
    let found = models.iter().find(|entry| entry["id"] == model);
    found.unwrap_or_else(|| panic!("{model} is listed"))["status"].clone()
}

fn wait_for(server: &Server, model: &str, value: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while status(server, model)["value"] != value {
        assert!(
            Instant::now() < deadline,
            "{model} is {}, not {value}",
            status(server, model)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_model_is_loaded_by_a_request_and_unloaded_when_idle() {
    let config = pair("", ["", "load = \"demand\"\nidle = \"400ms\""]);
    let server = Server::configured(&config, 1, None);
    assert_eq!(status(&server, "reasoner")["value"], "loaded");
    assert_eq!(status(&server, "narrator")["value"], "unloaded");
    let (code, refused) = server.post("/v1/chat/completions?autoload=false", &chat("narrator"));
    assert_eq!(code, 503, "{refused}");
    assert!(
        refused["error"]["message"].as_str().unwrap().contains("not loaded"),
        "{refused}"
    );
    // Ten at once: one load.
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(server.post("/v1/chat/completions", &chat("narrator")).0, 200));
        }
    });
    assert!(server.metric("hearth_memory_bytes", "narrator") > 0.0);
    // A long answer is use, however little is asked meanwhile.
    let lines = stream(server.address, "/v1/completions", &endless("narrator", 600));
    assert_eq!(lines.last().unwrap(), "[DONE]");
    wait_for(&server, "narrator", "unloaded");
    assert_eq!(server.metric("hearth_memory_bytes", "narrator"), 0.0);
    assert_eq!(status(&server, "reasoner")["value"], "loaded");
    assert_eq!(server.get("/readyz").0, 200);
    assert_eq!(server.post("/v1/chat/completions", &chat("narrator")).0, 200);
}

#[test]
fn models_give_way_by_bytes_and_after_their_answers() {
    // Either fits, both do not.
    let config =
        pair("[memory]\nram = \"26MiB\"", ["load = \"demand\"\nparallel = 1"; 2]).replace("parallel = 2\n", "");
    let server = Server::configured(&config, 1, None);
    assert_eq!(server.post("/v1/chat/completions", &chat("reasoner")).0, 200);
    assert_eq!(server.post("/v1/chat/completions", &chat("narrator")).0, 200);
    assert_eq!(status(&server, "reasoner")["value"], "unloaded");
    // Who waits for memory gets it when the other one has answered; that answer is whole.
    std::thread::scope(|scope| {
        let address = server.address;
        let long = scope.spawn(move || stream(address, "/v1/completions", &endless("narrator", 900)));
        server.wait_for("hearth_requests_running", "narrator", 1.0, Duration::from_secs(10));
        assert_eq!(server.post("/v1/chat/completions", &chat("reasoner")).0, 200);
        let lines = long.join().unwrap();
        assert_eq!(lines.last().unwrap(), "[DONE]");
        let last: Value = serde_json::from_str(&lines[lines.len() - 2]).unwrap();
        assert_eq!(last["choices"][0]["finish_reason"], "length");
    });
    assert_eq!(status(&server, "narrator")["value"], "unloaded");
}

#[test]
fn a_model_that_stays_does_not_give_way() {
    let config =
        pair("[memory]\nram = \"26MiB\"", ["", "load = \"demand\""]).replace("parallel = 2\n", "parallel = 1\n");
    let server = Server::configured(&config, 1, None);
    let (code, error) = server.post("/v1/chat/completions", &chat("narrator"));
    assert_eq!(code, 503, "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("fit"), "{error}");
    assert_eq!(server.post("/v1/chat/completions", &chat("reasoner")).0, 200);
    assert_eq!(status(&server, "narrator")["value"], "failed");
}

#[test]
fn loading_and_unloading_loses_no_request_and_no_memory() {
    let rounds = std::env::var("HEARTH_TEST_ROUNDS").map_or(8, |rounds| rounds.parse().unwrap());
    let server = Server::configured(&pair("", [""; 2]), 1, None);
    let expected =
        PAIR.map(|model| server.post("/v1/chat/completions", &chat(model)).1["choices"][0]["message"].clone());
    let done = AtomicBool::new(false);
    let answered = AtomicU32::new(0);
    let (mut warm, mut last) = (0, 0);
    std::thread::scope(|scope| {
        for (model, expected) in PAIR.iter().zip(&expected) {
            for _ in 0..2 {
                let (server, done, answered) = (&server, &done, &answered);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let (code, answer) = server.post("/v1/chat/completions", &chat(model));
                        assert_eq!(code, 200, "{answer}");
                        assert_eq!(&answer["choices"][0]["message"], expected);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        let _end = End(&done);
        for round in 0..rounds {
            for model in PAIR {
                let before = answered.load(Ordering::Relaxed);
                let (code, body) = server.post("/models/unload", &json!({"model": model}));
                // Requests load it again at once; it may be on its way.
                assert!(
                    code == 200 || body["error"]["message"] == "model is not loaded",
                    "{body}"
                );
                let deadline = Instant::now() + Duration::from_secs(60);
                while answered.load(Ordering::Relaxed) < before + 4 {
                    assert!(Instant::now() < deadline, "requests are answered");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            last = resident(&server);
            if round == rounds / 4 {
                warm = last;
            }
        }
    });
    println!(
        "{} answers, {rounds} rounds, {warm} then {last} KiB",
        answered.load(Ordering::Relaxed)
    );
    // Models that are not given back would be 200 MiB by now; what allocators keep comes and goes.
    assert!(
        last < warm + 64 * 1024,
        "{warm} KiB became {last} KiB in {rounds} rounds"
    );
}

/// Ends the threads of a test also when it fails.
struct End<'t>(&'t AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// KiB of main memory that the process has.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn an_answer_ends_before_its_model_is_unloaded() {
    let server = Server::configured(&pair("", [""; 2]), 1, None);
    let address = server.address;
    std::thread::scope(|scope| {
        let long = scope.spawn(move || stream(address, "/v1/completions", &endless("narrator", 900)));
        server.wait_for("hearth_requests_running", "narrator", 1.0, Duration::from_secs(10));
        assert_eq!(server.post("/models/unload", &json!({"model": "narrator"})).0, 200);
        wait_for(&server, "narrator", "unloaded");
        let lines = long.join().unwrap();
        assert_eq!(lines.last().unwrap(), "[DONE]");
        let last: Value = serde_json::from_str(&lines[lines.len() - 2]).unwrap();
        assert_eq!(last["choices"][0]["finish_reason"], "length");
    });
    assert_eq!(server.post("/models/unload", &json!({"model": "narrator"})).0, 400);
    assert_eq!(server.post("/models/load", &json!({"model": "narrator"})).0, 200);
    wait_for(&server, "narrator", "loaded");
    assert_eq!(server.post("/models/load", &json!({"model": "narrator"})).0, 400);
    assert_eq!(server.post("/models/load", &json!({"model": "nobody"})).0, 404);
    assert_eq!(server.post("/models/load", &json!({})).0, 400);
}

#[test]
fn one_models_failure_does_not_stop_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.gguf");
    std::fs::write(&broken, b"GGUF and no more").unwrap();
    let config = pair("", [""; 2]).replace("demo:narrator", broken.to_str().unwrap());
    let server = Server::begin(&config, 1, None);
    assert_eq!(status(&server, "narrator")["value"], "failed");
    wait_for(&server, "reasoner", "loaded");
    let (code, ready) = server.get("/readyz");
    assert_eq!(code, 503);
    assert_eq!(ready["models"][1]["status"]["value"], "failed", "{ready}");
    assert_eq!(server.get("/livez").0, 200);
    assert_eq!(server.post("/v1/chat/completions", &chat("reasoner")).0, 200);
    let (code, error) = server.post("/v1/chat/completions", &chat("narrator"));
    assert_eq!(code, 503, "{error}");
    // The file is mended.
    let (code, copied) = (server.get("/v1/models/reasoner"), std::fs::remove_file(&broken));
    assert!(code.0 == 200 && copied.is_ok());
    std::fs::copy("assets/demo/narrator.gguf", &broken).unwrap();
    assert_eq!(server.post("/models/load", &json!({"model": "narrator"})).0, 200);
    wait_for(&server, "narrator", "loaded");
    assert_eq!(server.post("/v1/chat/completions", &chat("narrator")).0, 200);
    assert_eq!(server.get("/readyz").0, 200);
}

#[test]
fn maintenance_lets_running_answers_end() {
    let server = Server::configured(&pair("", [""; 2]), 1, None);
    let address = server.address;
    std::thread::scope(|scope| {
        let long = scope.spawn(move || stream(address, "/v1/completions", &endless("narrator", 400)));
        server.wait_for("hearth_requests_running", "narrator", 1.0, Duration::from_secs(10));
        let (code, told) = server.post("/api/v1/maintenance", &json!({"model": "narrator", "on": true}));
        assert_eq!((code, &told["running"]), (200, &json!(1)), "{told}");
        let (code, error) = server.post("/v1/chat/completions", &chat("narrator"));
        assert_eq!(code, 503, "{error}");
        assert!(error["error"]["message"].as_str().unwrap().contains("maintenance"));
        assert_eq!(long.join().unwrap().last().unwrap(), "[DONE]");
    });
    assert_eq!(server.post("/v1/chat/completions", &chat("reasoner")).0, 200);
    server.post("/api/v1/maintenance", &json!({"model": "narrator", "on": false}));
    assert_eq!(server.post("/v1/chat/completions", &chat("narrator")).0, 200);
}

#[test]
fn another_configuration_touches_only_what_differs() {
    let server = Server::configured(&pair("", [""; 2]), 1, None);
    let created = |model: &str| server.get(&format!("/v1/models/{model}")).1["created"].clone();
    let reasoner = created("reasoner");
    // Something wrong changes nothing.
    server.configure("[[model]]\nname = \"a\"\npath = \"nowhere.gguf\"\n");
    let (code, error) = server.post("/api/v1/reload", &json!({}));
    assert_eq!(code, 400, "{error}");
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("nothing was changed")
    );
    assert_eq!(server.post("/v1/chat/completions", &chat("narrator")).0, 200);
    // One is changed, one is new, one stays. Answers that were begun are whole.
    let text = pair("", ["", "aliases = [\"teller\"]"])
        + "[[model]]\nname = \"second\"\npath = \"demo:narrator\"\nload = \"demand\"\n\
           [[preset]]\nname = \"calm\"\nmodel = \"narrator\"\n";
    server.configure(&text);
    let address = server.address;
    std::thread::scope(|scope| {
        let long = scope.spawn(move || stream(address, "/v1/completions", &endless("narrator", 400)));
        server.wait_for("hearth_requests_running", "narrator", 1.0, Duration::from_secs(10));
        let (code, told) = server.post("/api/v1/reload", &json!({}));
        assert_eq!(code, 200, "{told}");
        assert_eq!(told["added"], json!(["second"]));
        assert_eq!(told["changed"], json!(["narrator"]));
        assert_eq!(told["unchanged"], json!(["reasoner"]));
        // The request waits for the model as it is configured now.
        assert_eq!(server.post("/v1/chat/completions", &chat("teller")).0, 200);
        assert_eq!(server.post("/v1/chat/completions", &chat("calm")).0, 200);
        assert_eq!(long.join().unwrap().last().unwrap(), "[DONE]");
    });
    assert_eq!(server.post("/v1/chat/completions", &chat("second")).0, 200);
    assert_eq!(created("reasoner"), reasoner);
    // By a signal: the first configuration, with two models.
    server.configure(&pair("", [""; 2]));
    server.signal("HUP");
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.get("/v1/models/second").0 != 404 {
        assert!(Instant::now() < deadline, "the configuration is read again");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.post("/v1/chat/completions", &chat("narrator")).0, 200);
    assert_eq!(server.post("/v1/chat/completions", &chat("reasoner")).0, 200);
}

#[test]
fn a_new_file_is_tried_once_and_a_file_that_breaks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("random.gguf");
    let path = file.to_str().unwrap();
    let arguments = ["synthetic-gguf", "--arch", "llama", "--type", "f16", "--output", path];
    common::command::hearth(&arguments).assert().success();
    let config = pair("", ["", ""]).replace("demo:narrator", path);
    let variables = [
        ("HEARTH_CACHE", folder.path().join("cache").into_os_string()),
        ("HEARTH_LOG", "info".into()),
    ];
    let tried = |server: &Server| server.log().contains("has not seen this file before");
    let server = Server::logged(&config, &variables);
    wait_for(&server, "narrator", "loaded");
    assert!(tried(&server), "{}", server.log());
    drop(server);
    let server = Server::logged(&config, &variables);
    wait_for(&server, "narrator", "loaded");
    assert!(!tried(&server), "{}", server.log());
    let few = json!({"model": "narrator", "prompt": "Once", "max_tokens": 4});
    assert_eq!(server.post("/v1/completions", &few).0, 200);
    // Somebody writes over the file.
    std::fs::File::create(&file).unwrap();
    let address = server.address;
    let asking = std::thread::spawn(move || {
        let body = few.to_string();
        // The process ends under it.
        let _ = common::client()
            .post(format!("http://{address}/v1/completions"))
            .body(body)
            .send();
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while !server.log().contains("cannot be read any more") {
        assert!(Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    asking.join().unwrap();
    let log = server.log();
    assert!(log.contains(path) && log.contains("hint: put the file back"), "{log}");
}

#[test]
fn a_cache_folder_that_cannot_be_written_stops_nobody() {
    let file = std::env::current_dir().unwrap().join("assets/demo/narrator.gguf");
    let text = format!(
        "[server]\nport = 0\n[[model]]\nname = \"narrator\"\npath = \"{}\"\ncontext = 512\nparallel = 1\nthreads = 1\n",
        file.display()
    );
    // Not even root can make a folder there.
    let server = Server::logged(
        &text,
        &[("HEARTH_CACHE", "/proc/hearth".into()), ("HEARTH_LOG", "warn".into())],
    );
    wait_for(&server, "narrator", "loaded");
    assert_eq!(server.post("/v1/chat/completions", &chat("narrator")).0, 200);
    assert!(
        server.log().contains("the file will be tried again"),
        "{}",
        server.log()
    );
}
