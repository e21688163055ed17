//! `hearth ps` beside a real server.

mod common;

use common::Server;
use common::command::hearth;
use serde_json::{Value, json};

#[test]
fn a_running_server_is_shown() {
    let server = Server::start("");
    let url = format!("http://{}", server.address);
    let ps = |args: &[&str]| {
        let output = hearth(&["ps", "--url", &url])
            .args(args)
            // A small image has no certificates, and none are needed.
            .envs(["SSL_CERT_FILE", "SSL_CERT_DIR"].map(|name| (name, "/nowhere")))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let rows: Value = serde_json::from_str(&ps(&["--json"])).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    assert_eq!(rows[0]["model"], "demo-reasoner");
    assert_eq!(rows[0]["state"], "loaded");
    assert_eq!(rows[0]["slots_busy"], 0);
    assert!(rows[0]["ram_bytes"].as_u64().unwrap() > 1 << 20, "{rows}");
    let text = ps(&[]);
    assert!(text.lines().next().unwrap().contains("tokens/s"), "{text}");
    assert!(text.contains("demo-narrator"), "{text}");
    // While it answers, a slot is busy and tokens come.
    let busy = std::thread::scope(|scope| {
        let server = &server;
        let asked = scope.spawn(move || {
            let body = json!({"model": "demo-narrator", "prompt": "x", "max_tokens": 500, "ignore_eos": true});
            server.post("/v1/completions", &body)
        });
        let mut busy = None;
        while busy.is_none() && !asked.is_finished() {
            let rows: Value = serde_json::from_str(&ps(&["--json"])).unwrap();
            let row = rows[1].clone();
            busy = row["tokens_per_second"].as_f64().filter(|rate| *rate > 0.0);
        }
        let _ = asked.join();
        busy
    });
    assert!(busy.is_some(), "no look saw it compute");
}
