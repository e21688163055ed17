//! `hearth ps` beside a real server, and what commands show to servers that others reach, too.

mod common;

use common::Server;
use common::command::{hearth, stderr, stdout};
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

#[test]
fn servers_with_tls_and_a_key_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("certificate.pem"), made.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let unknown = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(path("unknown.pem"), unknown.cert.pem()).unwrap();
    let config = format!(
        "[server]\nport = 0\napi_keys = [\"canary\"]\ntls_certificate = {:?}\ntls_key = {:?}\n\
         [[model]]\nname = \"m\"\npath = \"demo:narrator\"\n",
        path("certificate.pem"),
        path("key.pem")
    );
    let server = Server::begin(&config, 1, None);
    let url = format!("https://{}", server.address);
    let ask = |command: &[&str], more: &[&str], variable: &str, certificate: &str| {
        hearth(command)
            .args(["--url", &url, "--json"])
            .args(more)
            .env("SSL_CERT_FILE", path(certificate))
            .env("SSL_CERT_DIR", "/nowhere")
            .env("HEARTH_API_KEY", variable)
            .assert()
    };
    let load = ["--prompt-tokens", "40", "--generate", "6", "--repeat", "1"];
    let benchmark = [&["benchmark"][..], &load].concat();
    for (command, flag) in [(&benchmark[..], "--url-key"), (&["ps"], "--api-key")] {
        for (more, variable) in [(&[flag, "canary"][..], "another"), (&[], "canary")] {
            let told = stdout(&ask(command, more, variable, "certificate.pem").success());
            let told: Value = serde_json::from_str(&told).unwrap();
            assert!(!told.to_string().contains("canary"), "{told}");
            match command {
                ["ps"] => assert_eq!(told[0]["model"], "m"),
                _ => {
                    let rate = &told["cases"][0]["servers"][0]["total_per_second"]["min"];
                    assert!(rate.as_f64().unwrap() > 0.0, "{told}");
                }
            }
        }
        let refused = ask(command, &[flag, "another"], "", "certificate.pem").code(1);
        assert!(stderr(&refused).contains("key"), "{}", stderr(&refused));
        let refused = ask(command, &[], "canary", "unknown.pem").code(1);
        assert!(stderr(&refused).contains("SSL_CERT_FILE"), "{}", stderr(&refused));
    }
}
