//! Presets: names with defaults for requests.

use std::path::Path;

use hearth::config::{Environment, Overrides, PresetConfig, load_text};
use serde_json::{Value, json};

use crate::scripted::{Api, CHAT, chat, client};

const PRESETS: &str = r#"
[[model]]
name = "first"
role = "first-role"
path = "demo:reasoner"
[[model]]
name = "second"
path = "demo:narrator"
[[preset]]
name = "brief"
model = "first-role"
system = "Be brief."
stop = ["x"]
chat_template_kwargs = { a = 1 }
sampling = { temperature = 0.25, max_tokens = 5 }
[[preset]]
name = "first-role"
model = "first"
[[preset]]
name = "other"
model = "second"
"#;

fn presets() -> Vec<PresetConfig> {
    let loaded = load_text(PRESETS, Path::new("m.toml"), &Overrides::default(), &Environment::new());
    loaded.unwrap().config.presets
}

/// What the engine is asked.
fn told(api: &Api, path: &str, body: &Value) -> Value {
    let (status, answer) = api.post(path, body);
    assert_eq!(status, 200, "{body}: {answer}");
    let text = &answer["choices"][0]["text"];
    serde_json::from_str(text.as_str().unwrap_or_else(|| answer["text"].as_str().unwrap())).unwrap()
}

#[test]
fn fields_of_the_request_come_before_those_of_the_preset() {
    let api = Api::with_presets(presets());
    let body = json!({"model": "brief", "prompt": "tells"});
    let asked = told(&api, "/v1/completions", &body);
    assert_eq!((&asked["temperature"], &asked["max_tokens"]), (&json!(0.25), &json!(5)));
    let body = json!({"model": "brief", "prompt": "tells", "temperature": 0.5, "n_predict": 7});
    let asked = told(&api, "/v1/completions", &body);
    assert_eq!((&asked["temperature"], &asked["max_tokens"]), (&json!(0.5), &json!(7)));
    // An answer ends before "x" of the preset, or before what the request says.
    let stopped = |body: Value| api.post("/v1/completions", &body).1["model"].clone();
    assert_eq!(stopped(json!({"model": "brief", "prompt": "say"})), "brief");
}

#[test]
fn a_system_message_of_the_request_takes_the_place_of_the_preset_s() {
    let api = Api::with_presets(presets());
    let prompt = |messages: Value| {
        let (status, answer) = api.post("/apply-template", &json!({"model": "brief", "messages": messages}));
        assert_eq!(status, 200, "{answer}");
        answer["prompt"].as_str().unwrap().to_owned()
    };
    let user = json!({"role": "user", "content": "hi"});
    let begins = |prompt: &str, system: &str| prompt.starts_with(&format!("<|im_start|>system\n{system}<|im_end|>"));
    assert!(begins(&prompt(json!([user])), "Be brief."));
    for role in ["system", "developer"] {
        let own = prompt(json!([{"role": role, "content": "Be long."}, user]));
        assert!(own.contains("Be long.") && !own.contains("Be brief."), "{own}");
    }
    // What is wrong with a message names the request's own place.
    let (_, error) = api.post(CHAT, &json!({"model": "brief", "messages": [user, {}]}));
    assert_eq!(error["error"]["param"], "messages[1].role");
}

#[test]
fn presets_are_listed_and_found() {
    let api = Api::with_presets(presets());
    let (_, list) = api.get("/v1/models");
    let listed: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| (&model["id"], &model["parent"]))
        .collect();
    let expect = json!([
        ["first", null],
        ["second", null],
        ["brief", "first"],
        ["first-role", "first"],
        ["other", "second"]
    ]);
    assert_eq!(json!(listed), expect);
    assert_eq!(api.get("/v1/models/brief").1["meta"], list["data"][0]["meta"]);
    // The preset comes before the role of the same name; a provider may stand before it.
    for (asked, answers) in [
        ("brief", "brief"),
        ("openai/brief", "brief"),
        ("first-role", "first-role"),
        ("", "first"),
        ("second-role", "second"),
    ] {
        let mut body = chat("say");
        body["model"] = asked.into();
        assert_eq!(api.post(CHAT, &body).1["model"], answers);
    }
    let mut body = chat("say");
    body["model"] = "nobody".into();
    let message = api.post(CHAT, &body).1["error"]["message"].to_string();
    assert!(message.contains("first, second, brief"), "{message}");
    // A port of a single model has its presets, and knows those of others to be elsewhere.
    let own = |name: &str| {
        let mut body = chat("say");
        body["model"] = name.into();
        let url = format!("http://{}{CHAT}", api.own);
        let answer = client().post(url).body(body.to_string()).send().unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().unwrap()["model"].clone(),
        )
    };
    assert_eq!(own("other"), (200, json!("other")));
    assert_eq!(own("brief").0, 404);
    assert_eq!(own("gpt-4o"), (200, json!("second")));
}

#[test]
fn generate_is_a_conversation_unless_it_is_raw() {
    let api = Api::with_presets(presets());
    let asked = |body: Value| told(&api, "/api/v1/generate", &body)["prompt"].clone();
    assert_eq!(asked(json!({"prompt": "tells", "raw": true})), "tells");
    assert_eq!(
        asked(json!({"prompt": "tells"})),
        "<|im_start|>user\ntells<|im_end|>\n<|im_start|>assistant\n"
    );
    let prompt = |body: Value| {
        let (status, answer) = api.post("/api/v1/generate", &body);
        assert_eq!(status, 200, "{answer}");
    };
    prompt(json!({"prompt": "say", "system": "tells", "model": "brief"}));
    for (body, param) in [
        (json!({}), "prompt"),
        (json!({"prompt": [1, 2]}), "prompt"),
        (json!({"prompt": "say", "raw": 1}), "raw"),
        (json!({"prompt": "say", "system": 1}), "system"),
        (json!({"prompt": "long"}), "prompt"),
        (json!({"prompt": ["a", "b"], "raw": true}), "prompt"),
    ] {
        let (status, error) = api.post("/api/v1/generate", &body);
        assert_eq!(
            (status, &error["error"]["param"]),
            (400, &json!(param)),
            "{body}: {error}"
        );
    }
}
