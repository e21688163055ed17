//! A key is nowhere but in its request, and a text is not in the log.

use super::{Hearth, chat, command};

/// In every key of this test.
const CANARY: &str = "cAnArY";

#[test]
fn no_key_is_told_anywhere() {
    let server = "api_keys = [\"plain-cAnArY\"]\nadmin_key = \"admin-cAnArY\"\nmetrics_key = \"metrics-cAnArY\"\n\
                  api_key_file = \"keys.txt\"";
    let more = "[[key]]\nname = \"game\"\nkey = \"game-cAnArY\"\nmodels = [\"narrator\"]\n\
                [[key]]\nname = \"phone\"\nkey_env = \"PHONE_KEY\"\nrequests_per_minute = 1\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.txt");
    std::fs::write(&file, "file-cAnArY\nother-cAnArY name=other concurrent_requests=1\n").unwrap();
    let path = file.to_str().unwrap();
    let server = server.replace("keys.txt", path);
    let variables = [
        ("PHONE_KEY", "phone-cAnArY"),
        ("HEARTH_LOG", "hearth=trace,actix_web=debug,info"),
    ];
    let server = Hearth::start(&server, more, &[], &variables);
    let mut told = String::new();
    let keys = [
        "plain", "admin", "metrics", "game", "phone", "phone", "file", "other", "wrong",
    ];
    for key in keys {
        for header in ["Authorization: Bearer ", "X-Api-Key: ", "Authorization: "] {
            let header = format!("{header}{key}-{CANARY}\r\n");
            for (method, path, body) in [
                ("GET", "/props", String::new()),
                ("GET", "/metrics", String::new()),
                ("GET", "/v1/models", String::new()),
                ("GET", "/openapi.json", String::new()),
                ("GET", "/slots", String::new()),
                ("GET", "/api/v1/memory", String::new()),
                ("GET", "/api/v1/stream", String::new()),
                ("GET", "/nothing", String::new()),
                ("POST", "/v1/chat/completions", chat("reasoner", 2).to_string()),
                ("POST", "/v1/chat/completions", "{".to_owned()),
                ("POST", "/v1/messages", "{}".to_owned()),
                ("POST", "/completion", "{}".to_owned()),
            ] {
                told += &server.ask(method, path, &header, &body);
            }
        }
    }
    for expect in ["HTTP/1.1 200", "HTTP/1.1 401", "HTTP/1.1 403", "HTTP/1.1 429"] {
        assert!(told.contains(expect), "{expect}");
    }
    let log = server.log();
    assert!(log.contains("request"), "{log}");
    // The owner of the key is known by name.
    assert!(log.contains("game"), "{log}");
    for text in [&told, &log] {
        let place = text.find(CANARY).map(|at| &text[at.saturating_sub(300)..at + 20]);
        assert_eq!(place, None);
    }
    // What a process hands on to those that it starts, or writes into its own files, is the same.
    let config = server.path("models.toml");
    let config = config.to_str().unwrap();
    for arguments in [
        &["config", "show"][..],
        &["config", "show", "--json"],
        &["config", "check"],
    ] {
        let output = command::hearth(arguments)
            .args(["--config", config, "--api-key", &format!("flag-{CANARY}")])
            .env("PHONE_KEY", format!("phone-{CANARY}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = format!("{output:?}");
        assert!(!text.contains(CANARY), "{text}");
    }
}

#[test]
fn mistakes_in_keys_do_not_tell_them() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("models.toml");
    let models = "[[model]]\nname = \"m\"\npath = \"demo:narrator\"\n";
    for wrong in [
        "[server]\napi_keys = [\"cAnArY key\"]\n",
        "[server]\napi_keys = { a = \"cAnArY\" }\n",
        "[server]\napi_keys = [[\"cAnArY\"]]\n",
        "[server]\napi_keys = \"cAnArY,x\"\n",
        "[server]\napi_keyz = [\"cAnArY\"]\n",
        "[server]\nadmin_key = \"cAnArY\n",
        "[server]\nadmin_key = cAnArY\n",
        "[server]\nadmin_key = \"sha256:cAnArY\"\n",
        "[[key]]\nname = \"a\"\nkey = \"cAnArY cAnArY\"\n",
        "[[key]]\nname = \"a\"\nkey = \"cAnArY\"\nmodels = [\"nobody\"]\n",
        "[[key]]\nname = \"a\"\nkey_env = \"key-cAnArY\"\n",
        "[[key]]\nkey = \"cAnArY\"\n",
        "[key]\nname = \"a\"\nkey = \"cAnArY\"\n",
    ] {
        std::fs::write(&config, format!("{models}{wrong}")).unwrap();
        let output = command::hearth(&["serve", "--config"]).arg(&config).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains(CANARY), "{wrong}\n{text}");
        assert!(text.contains("error: "), "{text}");
    }
    let output = command::hearth(&["config", "check", "--api-key", "cAnArY cAnArY"])
        .output()
        .unwrap();
    assert!(!format!("{output:?}").contains(CANARY), "{output:?}");
}

#[test]
fn texts_are_not_in_the_log() {
    let server = Hearth::start("", "", &[], &[("HEARTH_LOG", "")]);
    let secret = "xylophone quartz";
    for (path, body) in [
        (
            "/v1/chat/completions",
            format!("{{\"max_tokens\": 4, \"messages\": [{{\"role\": \"user\", \"content\": \"{secret}\"}}]}}"),
        ),
        (
            "/v1/completions",
            format!("{{\"max_tokens\": 4, \"prompt\": \"{secret}\", \"user\": \"{secret}\"}}"),
        ),
        ("/v1/completions", format!("{{\"max_tokens\": \"{secret}\"}}")),
        ("/v1/completions", secret.to_owned()),
        (
            "/v1/chat/completions",
            format!("{{\"model\": \"{secret}\", \"messages\": []}}"),
        ),
        (
            "/completion",
            format!("{{\"n_predict\": 2, \"prompt\": \"{secret}\", \"grammar\": \"{secret}\"}}"),
        ),
    ] {
        server.ask("POST", path, "", &body);
    }
    let log = server.log();
    assert!(!log.contains("xylophone"), "{log}");
}

#[test]
fn keys_change_with_a_reload() {
    let models = "[[key]]\nname = \"kept\"\nkey = \"kept\"\n";
    let server = Hearth::start("api_keys = [\"old\"]", models, &[], &[]);
    let ask = |key: &str| {
        let answer = server.ask("GET", "/v1/models", &format!("X-Api-Key: {key}\r\n"), "");
        answer[9..12].parse::<u16>().unwrap()
    };
    assert_eq!([ask("old"), ask("new"), ask("kept")], [200, 401, 200]);
    let config = server.path("models.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    // A mistake changes nothing.
    std::fs::write(&config, text.replace("\"old\"", "\"new\", \"\"")).unwrap();
    let refused = server.ask("POST", "/api/v1/reload", "X-Api-Key: old\r\n", "");
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    assert_eq!([ask("old"), ask("new")], [200, 401]);
    std::fs::write(&config, text.replace("\"old\"", "\"new\"")).unwrap();
    let reloaded = server.ask("POST", "/api/v1/reload", "X-Api-Key: old\r\n", "");
    // No restart is needed for it.
    assert!(
        reloaded.starts_with("HTTP/1.1 200") && reloaded.contains("\"restart\":[]"),
        "{reloaded}"
    );
    assert_eq!([ask("old"), ask("new"), ask("kept")], [401, 200, 200]);
}
