//! Listeners, models, health, and what every response has.

use std::io::Write;
use std::time::Duration;

use hearth::config::ServerConfig;
use hearth::engine::Health;
use serde_json::{Value, json};

use crate::scripted::{Api, CHAT, chat, client, read_until};

#[test]
fn models_are_found_by_name_alias_role_and_port() {
    let api = Api::start();
    for (asked, answers) in [
        ("", "first"),
        ("second", "second"),
        ("second-alias", "second"),
        ("second-role", "second"),
        ("openai:second", "second"),
    ] {
        let mut body = chat("say");
        body["model"] = asked.into();
        assert_eq!(api.post(CHAT, &body).1["model"], answers);
    }
    let mut body = chat("say");
    body["model"] = "third".into();
    let (status, error) = api.post(CHAT, &body);
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
    assert!(error["error"]["message"].as_str().unwrap().contains("first, second"));
    let own = |body: &Value| {
        let url = format!("http://{}{CHAT}", api.own);
        let response = client().post(url).body(body.to_string()).send().unwrap();
        (response.status().as_u16(), response.json::<Value>().unwrap())
    };
    assert_eq!(own(&chat("say")).1["model"], "second");
    body["model"] = "first".into();
    assert_eq!(own(&body).0, 404);
    assert_eq!(api.get("/v1/models/second-alias").1["id"], "second");
    assert_eq!(api.get("/v1/models/third").0, 404);
}

#[test]
fn health_is_that_of_all_models() {
    let api = Api::with(Health::Loading { progress: 0.25 });
    for path in ["/health", "/readyz"] {
        let (status, body) = api.get(path);
        assert_eq!(status, 503);
        assert_eq!(body["error"]["message"], "Loading model");
        assert_eq!(
            (&body["error"]["code"], &body["error"]["type"]),
            (&json!(503), &json!("unavailable_error"))
        );
        assert_eq!(body["models"][0]["status"]["value"], "loaded");
        assert_eq!(body["models"][1]["status"]["progress"], 0.25);
    }
    assert_eq!(api.get("/livez").0, 200);
    assert_eq!(Api::start().get("/health"), (200, json!({"status": "ok"})));
}

/// Clients that cannot leave the name out, or know only OpenAI's.
#[test]
fn the_only_model_takes_any_name_but_that_of_another() {
    let own = |api: &Api, model: &str| {
        let mut body = chat("say");
        body["model"] = model.into();
        let url = format!("http://{}{CHAT}", api.own);
        let response = client().post(url).body(body.to_string()).send().unwrap();
        (response.status().as_u16(), response.json::<Value>().unwrap())
    };
    let api = Api::start();
    let (status, answer) = own(&api, "gpt-4o");
    assert_eq!((status, &answer["model"]), (200, &json!("second")), "{answer}");
    assert_eq!(own(&api, "first-alias").0, 404);
    let response = client()
        .get(format!("http://{}/v1/models/gpt-4o", api.own))
        .send()
        .unwrap();
    assert_eq!(response.status(), 404);
    let strict = ServerConfig {
        strict_models: true,
        ..ServerConfig::default()
    };
    let api = Api::configured(Health::Ready, strict);
    let (status, error) = own(&api, "gpt-4o");
    assert_eq!((status, &error["error"]["code"]), (404, &json!("model_not_found")));
    assert_eq!(own(&api, "second-role").0, 200);
}

#[test]
fn head_is_get_without_a_body() {
    let api = Api::start();
    for path in [
        "/livez",
        "/health",
        "/v1/models",
        "/v1/models/second",
        "/metrics",
        "/version",
        "/api/v1/memory",
    ] {
        let get = client().get(api.url(path)).send().unwrap();
        let head = client().head(api.url(path)).send().unwrap();
        assert_eq!(
            (head.status(), get.status()),
            (get.status(), 200.try_into().unwrap()),
            "{path}"
        );
        assert_eq!(head.headers()["content-type"], get.headers()["content-type"], "{path}");
        assert!(head.text().unwrap().is_empty(), "{path}");
    }
    assert_eq!(client().head(api.url(CHAT)).send().unwrap().status(), 405);
}

#[test]
fn responses_carry_a_request_id_and_unknown_paths_are_told() {
    let api = Api::start();
    let response = client()
        .get(api.url("/livez"))
        .header("x-request-id", "mine-1")
        .send()
        .unwrap();
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    let response = client().get(api.url("/nothing")).send().unwrap();
    assert_eq!(response.status(), 404);
    assert!(!response.headers()["x-request-id"].is_empty());
    assert_eq!(
        response.json::<Value>().unwrap()["error"]["type"],
        "invalid_request_error"
    );
    assert_eq!(api.get(CHAT).0, 405);
    let text = client().get(api.url("/metrics")).send().unwrap().text().unwrap();
    assert!(
        text.contains("hearth_http_requests_total{method=\"GET\",route=\"/livez\",status=\"200\"} 1")
            && text.contains("hearth_http_requests_total{method=\"GET\",route=\"other\",status=\"404\"} 1"),
        "{text}"
    );
}

#[test]
fn an_idle_connection_does_not_hold_the_end_up() {
    let api = Api::start();
    let mut idle = api.connect();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    read_until(&mut idle, "ok");
    let took = api.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
}
