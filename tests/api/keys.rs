//! Keys: who may ask, for what, and how often.

use std::io::Write;
use std::net::SocketAddr;

use hearth::config::{ApiKey, KeyConfig, PresetConfig, ServerConfig};
use hearth::engine::Health;
use reqwest::Method;
use reqwest::blocking::Response;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;

use crate::scripted::{Api, CHAT, chat, client, read_until, request};

fn key(name: &str, models: &[&str]) -> KeyConfig {
    KeyConfig {
        name: name.into(),
        key: Some(ApiKey::of(name.as_bytes())),
        key_env: None,
        models: models.iter().map(|model| (*model).to_owned()).collect(),
        requests_per_minute: None,
        concurrent_requests: None,
        admin: false,
    }
}

fn plain(keys: &[&str]) -> ServerConfig {
    ServerConfig {
        api_keys: keys.iter().map(|key| ApiKey::of(key.as_bytes())).collect(),
        ..ServerConfig::default()
    }
}

/// Asks with these headers.
fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Response {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut asked = client().request(method, format!("http://{address}{path}"));
    for (name, value) in headers {
        asked = asked.header(*name, *value);
    }
    if let Some(body) = body {
        asked = asked.body(body.to_string());
    }
    asked.send().unwrap()
}

fn with(api: &Api, key: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let method = if body.is_some() { "POST" } else { "GET" };
    let bearer = format!("Bearer {key}");
    let response = ask(api.address, method, path, &[("Authorization", &bearer)], body);
    (response.status().as_u16(), response.json().unwrap_or_default())
}

#[test]
fn a_key_is_needed_in_one_of_its_headers() {
    let api = Api::locked(plain(&["first-key", "second-key"]), Vec::new(), Vec::new());
    for address in [api.address, api.own] {
        for headers in [
            ("Authorization", "Bearer first-key"),
            ("Authorization", "bearer second-key"),
            ("X-Api-Key", "second-key"),
            ("x-api-key", "first-key"),
        ] {
            let answer = ask(address, "POST", CHAT, &[headers], Some(&chat("say")));
            assert_eq!(answer.status(), 200, "{headers:?}");
        }
        for headers in [
            ("Authorization", "first-key"),
            ("Authorization", "Basic first-key"),
            ("Authorization", "Bearer first-ke"),
            ("Authorization", "Bearer first-keyy"),
            ("Authorization", "Bearer "),
            ("X-Api-Key", "FIRST-KEY"),
            ("X-Other", "first-key"),
        ] {
            let answer = ask(address, "POST", CHAT, &[headers], Some(&chat("say")));
            assert_eq!(answer.status(), 401, "{headers:?}");
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            assert!(answer.headers().contains_key("x-request-id"));
            let text = answer.text().unwrap();
            let error: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(error["error"]["code"], "invalid_api_key");
            assert!(!text.contains("first-ke"), "{text}");
        }
        // Not even that there is nothing.
        for path in [
            "/v1/models",
            "/metrics",
            "/props",
            "/slots",
            "/api/v1/memory",
            "/nothing",
            "/version",
        ] {
            assert_eq!(ask(address, "GET", path, &[], None).status(), 401, "{path}");
        }
    }
}

#[test]
fn errors_have_the_shape_of_the_endpoint() {
    let api = Api::locked(plain(&["k"]), Vec::new(), Vec::new());
    let error = |path: &str| {
        let answer = ask(api.address, "POST", path, &[("X-Api-Key", "wrong")], Some(&chat("say")));
        assert_eq!(answer.status(), 401, "{path}");
        answer.json::<Value>().unwrap()
    };
    assert_eq!(error(CHAT)["error"]["type"], "authentication_error");
    let anthropic = error("/v1/messages");
    assert_eq!(anthropic["type"], "error");
    assert_eq!(anthropic["error"]["type"], "authentication_error");
    for path in ["/completion", "/tokenize", "/infill"] {
        let llama = error(path);
        assert_eq!(llama["error"]["code"], 401, "{path}");
        assert_eq!(llama["error"]["type"], "authentication_error");
    }
    let answer = ask(
        api.address,
        "POST",
        "/v1/messages",
        &[("x-api-key", "k")],
        Some(&chat("say")),
    );
    // The key is good; the request has no `max_tokens`.
    assert_eq!(answer.status(), 400);
}

#[test]
fn health_and_preflights_need_no_key() {
    let config = ServerConfig {
        cors: vec!["https://chat.example".into()],
        ..plain(&["k"])
    };
    let api = Api::locked(config, Vec::new(), Vec::new());
    for path in ["/health", "/v1/health", "/livez", "/readyz", "/openapi.json", "/docs"] {
        assert_eq!(ask(api.address, "GET", path, &[], None).status(), 200, "{path}");
        assert_eq!(ask(api.address, "HEAD", path, &[], None).status(), 200, "{path}");
    }
    // There is no page yet in some builds, but no lock either.
    assert_ne!(ask(api.address, "GET", "/", &[], None).status(), 401);
    let origin = ("Origin", "https://chat.example");
    let asks = ("Access-Control-Request-Method", "POST");
    assert_eq!(ask(api.address, "OPTIONS", CHAT, &[origin, asks], None).status(), 204);
    // The page may read why it was refused.
    let refused = ask(api.address, "POST", CHAT, &[origin], Some(&chat("say")));
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["access-control-allow-origin"], "https://chat.example");
    // No other spelling of a path is another path.
    for path in [
        "//health",
        "/health/",
        "/./health/../v1/models",
        "/%2e/health",
        "/HEALTH",
        "/page/../v1/models",
    ] {
        let mut socket = api.connect();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let answer = read_until(&mut socket, "}");
        let refused = answer.starts_with("HTTP/1.1 401") || answer.starts_with("HTTP/1.1 404");
        assert!(refused && !answer.contains("first"), "{path}: {answer}");
    }
}

/// Whether the server is well is for everybody; names and reasons, which tell files and addresses, are not.
#[test]
fn who_has_no_key_hears_no_reasons() {
    let failed = || Health::Failed {
        reason: "cannot read /home/me/secret.gguf".into(),
    };
    let keys = || vec![key("all", &[]), key("game", &["first"])];
    let api = Api::whole(failed(), ServerConfig::default(), Vec::new(), keys());
    for path in ["/readyz", "/health"] {
        for (key, reason, models) in [("all", true, 2), ("game", false, 1), ("wrong", false, 0)] {
            let (status, told) = with(&api, key, path, None);
            assert_eq!(status, 503, "{key}");
            assert_eq!(told["error"]["code"], 503);
            assert_eq!(told.to_string().contains("secret.gguf"), reason, "{key}: {told}");
            assert_eq!(told["models"].as_array().unwrap().len(), models, "{key}: {told}");
        }
    }
    // Where everybody may use the models, everybody is told.
    let open = Api::with(failed());
    assert!(open.get("/readyz").1.to_string().contains("secret.gguf"));
}

#[test]
fn a_key_is_for_its_models() {
    let preset = PresetConfig {
        name: "dm".into(),
        model: "first".into(),
        system: None,
        stop: Vec::new(),
        response_format: None,
        reasoning_effort: None,
        enable_thinking: None,
        chat_template_kwargs: None,
        fallback: Vec::new(),
        fallback_on: Vec::new(),
        sampling: Default::default(),
    };
    let keys = vec![
        key("game", &["first"]),
        key("preset", &["dm"]),
        key("role", &["second-role"]),
        key("all", &[]),
    ];
    let api = Api::locked(ServerConfig::default(), keys, vec![preset]);
    let asks = |key: &str, model: &str| {
        let mut body = chat("say");
        body["model"] = model.into();
        let (status, answer) = with(&api, key, CHAT, Some(&body));
        assert!(
            status == 200 || answer["error"]["code"] == "model_not_allowed",
            "{answer}"
        );
        status
    };
    for (key, model, status) in [
        ("game", "first", 200),
        ("game", "openai:first-alias", 200),
        // A preset is its model with defaults.
        ("game", "dm", 200),
        ("game", "second", 403),
        ("preset", "dm", 200),
        ("preset", "first", 403),
        ("role", "second", 200),
        ("role", "first-role", 403),
        ("all", "second-alias", 200),
        ("all", "dm", 200),
    ] {
        assert_eq!(asks(key, model), status, "{key} {model}");
    }
    let listed = |key: &str| {
        let (_, list) = with(&api, key, "/v1/models", None);
        let names = list["data"].as_array().unwrap().iter();
        names
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed("game"), ["first", "dm"]);
    assert_eq!(listed("preset"), ["dm"]);
    assert_eq!(listed("role"), ["second"]);
    assert_eq!(listed("all"), ["first", "second", "dm"]);
    assert_eq!(with(&api, "game", "/v1/models/second", None).0, 403);
    assert_eq!(with(&api, "game", "/props?model=second", None).0, 403);
    assert_eq!(with(&api, "game", "/slots?model=second", None).0, 403);
    // Without a name the first of its models is meant.
    for (key, first) in [("role", "second"), ("game", "first"), ("all", "first")] {
        assert_eq!(with(&api, key, "/props", None).1["model_alias"], first);
        assert_eq!(with(&api, key, "/slots", None).0, 200);
        let mut body = chat("say");
        body.as_object_mut().unwrap().remove("model");
        let (status, answer) = with(&api, key, CHAT, Some(&body));
        assert_eq!((status, &answer["model"]), (200, &first.into()), "{key}: {answer}");
    }
    // Of memory and experts only what belongs to its models is told.
    for path in ["/api/v1/memory", "/api/v1/expert-stats"] {
        let (status, told) = with(&api, "game", path, None);
        assert_eq!(status, 200, "{path}: {told}");
        let names = told["models"].as_array().unwrap().iter().map(|model| &model["model"]);
        assert_eq!(names.collect::<Vec<_>>(), ["first"], "{path}");
        assert_eq!(with(&api, "all", path, None).1["models"].as_array().unwrap().len(), 2);
    }
    assert_eq!(with(&api, "game", "/api/v1/expert-stats?model=second", None).0, 403);
    let (status, error) = with(&api, "game", "/v1/models/third", None);
    assert!(status == 404 && !error.to_string().contains("second"), "{error}");
    // A name that nothing has tells no other names.
    let mut body = chat("say");
    body["model"] = "third".into();
    let (status, error) = with(&api, "game", CHAT, Some(&body));
    assert!(status == 404 && !error.to_string().contains("second"), "{error}");
    // Every way to a model is checked.
    for (path, body) in [
        ("/v1/completions", json!({"model": "second", "prompt": "say"})),
        ("/v1/responses", json!({"model": "second", "input": "say"})),
        (
            "/v1/messages",
            json!({"model": "second", "max_tokens": 5, "messages": [{"role": "user", "content": "say"}]}),
        ),
        (
            "/v1/messages/count_tokens",
            json!({"model": "second", "messages": [{"role": "user", "content": "say"}]}),
        ),
        ("/v1/embeddings", json!({"model": "second", "input": "say"})),
        ("/api/v1/generate", json!({"model": "second", "prompt": "say"})),
        ("/completion", json!({"model": "second", "prompt": "say"})),
        ("/tokenize", json!({"model": "second", "content": "say"})),
        ("/detokenize", json!({"model": "second", "tokens": [1]})),
        (
            "/apply-template",
            json!({"model": "second", "messages": [{"role": "user", "content": "say"}]}),
        ),
        (
            "/infill",
            json!({"model": "second", "input_prefix": "a", "input_suffix": "b"}),
        ),
        (
            "/v1/rerank",
            json!({"model": "second", "query": "a", "documents": ["b"]}),
        ),
    ] {
        let (status, answer) = with(&api, "game", path, Some(&body));
        assert_eq!(status, 403, "{path}: {answer}");
    }
}

#[test]
fn a_rate_has_an_end() {
    let limited = KeyConfig {
        requests_per_minute: Some(3),
        ..key("phone", &[])
    };
    let api = Api::locked(ServerConfig::default(), vec![limited, key("other", &[])], Vec::new());
    for _ in 0..3 {
        assert_eq!(with(&api, "phone", CHAT, Some(&chat("say"))).0, 200);
    }
    let headers = [("X-Api-Key", "phone")];
    let refused = ask(api.address, "POST", CHAT, &headers, Some(&chat("say")));
    assert_eq!(refused.status(), 429);
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((15..=20).contains(&seconds), "{seconds}");
    assert_eq!(refused.json::<Value>().unwrap()["error"]["code"], "rate_limit_exceeded");
    // Looking costs nothing, and others have rates of their own.
    assert_eq!(with(&api, "phone", "/v1/models", None).0, 200);
    assert_eq!(with(&api, "other", CHAT, Some(&chat("say"))).0, 200);
}

#[test]
fn streams_count_until_they_end() {
    let limited = KeyConfig {
        concurrent_requests: Some(2),
        ..key("phone", &[])
    };
    let api = Api::locked(ServerConfig::default(), vec![limited, key("other", &[])], Vec::new());
    let stream = || {
        let mut body = chat("decodes");
        body["stream"] = true.into();
        let text = request(CHAT, &body).replacen("\r\n", "\r\nX-Api-Key: phone\r\n", 1);
        let mut socket = api.connect();
        socket.write_all(text.as_bytes()).unwrap();
        read_until(&mut socket, "data: ");
        socket
    };
    let (first, second) = (stream(), stream());
    let headers = [("X-Api-Key", "phone")];
    let refused = ask(api.address, "POST", CHAT, &headers, Some(&chat("say")));
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(
        refused.json::<Value>().unwrap()["error"]["code"],
        "concurrency_limit_exceeded"
    );
    assert_eq!(with(&api, "other", CHAT, Some(&chat("say"))).0, 200);
    drop(first);
    api.left.recv_timeout(crate::scripted::SOON).unwrap();
    // The place is free when the connection is gone, which is a moment later.
    let free = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        with(&api, "phone", CHAT, Some(&chat("say"))).0 == 200
    });
    assert!(free);
    drop(second);
}

#[test]
fn sockets_need_a_key_too() {
    let limited = KeyConfig {
        requests_per_minute: Some(2),
        ..key("phone", &["first"])
    };
    let api = Api::locked(ServerConfig::default(), vec![limited], Vec::new());
    for path in ["/api/v1/stream", "/v1/responses"] {
        let asked = || format!("ws://{}{path}", api.address).into_client_request().unwrap();
        let error = tungstenite::connect(asked()).unwrap_err();
        assert!(matches!(error, tungstenite::Error::Http(answer) if answer.status() == 401));
        for (name, value) in [("authorization", "Bearer phone"), ("x-api-key", "phone")] {
            let mut asked = asked();
            asked.headers_mut().insert(name, HeaderValue::from_static(value));
            tungstenite::connect(asked).unwrap();
        }
    }
    let mut asked = format!("ws://{}/api/v1/stream", api.address)
        .into_client_request()
        .unwrap();
    asked
        .headers_mut()
        .insert("x-api-key", HeaderValue::from_static("phone"));
    let (mut socket, _) = tungstenite::connect(asked).unwrap();
    let mut say = |model: &str| {
        let mut body = chat("say");
        body["model"] = model.into();
        socket.send(tungstenite::Message::text(body.to_string())).unwrap();
        loop {
            let event: Value = serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap();
            if !event["error"].is_null() || !event["done"].is_null() {
                return event;
            }
        }
    };
    assert_eq!(say("second")["error"]["code"], "model_not_allowed");
    assert_eq!(say("first")["done"]["model"], "first");
    assert_eq!(say("first")["error"]["code"], "rate_limit_exceeded");
}

#[test]
fn administration_has_a_key_of_its_own() {
    let config = ServerConfig {
        admin_key: Some(ApiKey::of(b"root")),
        metrics_key: Some(ApiKey::of(b"scrape")),
        ..plain(&["user"])
    };
    let boss = KeyConfig {
        admin: true,
        ..key("boss", &[])
    };
    let api = Api::locked(config, vec![boss], Vec::new());
    let asks = |path: &str, key: &str| {
        let answer = ask(api.address, "POST", path, &[("X-Api-Key", key)], Some(&json!({})));
        answer.status().as_u16()
    };
    // The last is another spelling of the first, and finds the same handler.
    for path in [
        "/api/v1/expert-cache",
        "/slots/0?action=erase",
        "/api/v1/%65xpert-cache",
    ] {
        for (key, allowed) in [("user", false), ("scrape", false), ("root", true), ("boss", true)] {
            let status = asks(path, key);
            assert_eq!(status != 403, allowed, "{path} {key}: {status}");
        }
        assert_eq!(asks(path, "wrong"), 401);
    }
    let scrape = |key: &str| with(&api, key, "/metrics", None).0;
    assert_eq!(
        [scrape("scrape"), scrape("root"), scrape("user"), scrape("x")],
        [200, 200, 403, 401]
    );
    assert_eq!(with(&api, "scrape", "/v1/models", None).0, 403);
    assert_eq!(with(&api, "root", "/v1/models", None).0, 200);
}

#[test]
fn administration_has_a_listener_of_its_own() {
    let config = ServerConfig {
        admin_port: Some(0),
        ..ServerConfig::default()
    };
    let api = Api::configured(hearth::engine::Health::Ready, config);
    let admin = api.admin.unwrap();
    let status = |address, method, path| {
        let body = (method == "POST").then(|| json!({}));
        ask(address, method, path, &[], body.as_ref()).status().as_u16()
    };
    for (method, path) in [
        ("GET", "/metrics"),
        ("POST", "/api/v1/expert-cache"),
        ("POST", "/slots/0?action=erase"),
    ] {
        for address in [api.address, api.own] {
            assert_eq!(status(address, method, path), 404, "{path}");
        }
        let answer = ask(admin, method, path, &[], Some(&json!({})));
        let text = answer.text().unwrap();
        assert!(!text.contains("listener"), "{path}: {text}");
    }
    for address in [api.address, api.own, admin] {
        assert_eq!(status(address, "GET", "/livez"), 200);
    }
    assert_eq!(status(admin, "GET", "/v1/models"), 404);
    assert_eq!(status(admin, "POST", CHAT), 404);
    assert_eq!(status(api.address, "GET", "/v1/models"), 200);
}
