//! `/openapi.json` against the sources, the written copy, and real answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::common::sources::files_below;
use crate::scripted::{Api, CHAT, chat, client};

fn document(api: &Api) -> Value {
    api.get("/openapi.json").1
}

#[test]
fn the_written_copy_is_current() {
    let api = Api::start();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let current = format!("{:#}\n", document(&api));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == current,
        "docs/openapi.json is out of date: run the tests with UPDATE_DOCS=1"
    );
}

/// Method and path of every route in the sources.
fn routes() -> BTreeSet<(String, String)> {
    let sources = files_below("src/api", |path| path.ends_with(".rs"));
    let mut routes = BTreeSet::new();
    for source in sources {
        for route in source.text.split(".route(\"").skip(1) {
            let (path, rest) = route.split_once("\", ").unwrap();
            let method = &rest[..rest.find('(').unwrap()];
            routes.insert((method.to_owned(), path.replace(":.+}", "}")));
        }
    }
    routes
}

#[test]
fn every_route_is_described() {
    let api = Api::start();
    let document = document(&api);
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.insert((method.clone(), path.clone()));
            for part in ["summary", "operationId", "responses", "tags"] {
                assert!(!operation[part].is_null(), "{method} {path} has no {part}");
            }
            let bare = !["post", "put"].contains(&method.as_str()) || path == "/api/v1/reload";
            assert_eq!(operation["requestBody"].is_null(), bare, "{method} {path}");
        }
    }
    let mut routes = routes();
    assert!(routes.len() > 15, "{routes:?}");
    // What is for people, or the description itself.
    for path in ["/", "/docs", "/openapi.json", "/page/{file}"] {
        assert!(routes.remove(&("get".to_owned(), path.to_owned())));
    }
    assert_eq!(described, routes);
    let ids = |item: &Value| {
        item.as_object()
            .unwrap()
            .values()
            .map(|one| one["operationId"].to_string())
            .collect::<Vec<_>>()
    };
    let ids: Vec<String> = document["paths"].as_object().unwrap().values().flat_map(ids).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

/// Two types with one name would hide each other.
#[test]
fn every_schema_has_a_name_of_its_own() {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for source in files_below("src", |path| path.ends_with(".rs")) {
        for item in source.text.split("ToSchema)]\n").skip(1) {
            let head = item
                .lines()
                .take_while(|line| line.starts_with("#["))
                .collect::<String>();
            let declared = item
                .lines()
                .find(|line| !line.starts_with("#[") && !line.starts_with("///"))
                .unwrap();
            let name = match head.split_once("(as = ") {
                Some((_, name)) => name.split(')').next().unwrap(),
                None => {
                    let (_, name) = declared.split_once("struct ").or(declared.split_once("enum ")).unwrap();
                    name.split([' ', '<', '(']).next().unwrap()
                }
            };
            let before = names.insert(name.to_owned(), source.path.clone());
            assert_eq!(before, None, "{name} is also in {}", source.path);
        }
    }
    assert!(names.len() > 30, "{names:?}");
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, out: &mut BTreeSet<String>) {
        match value {
            Value::Object(entries) => {
                out.extend(entries.get("$ref").and_then(Value::as_str).map(str::to_owned));
                entries.values().for_each(|value| references(value, out));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, out)),
            _ => {}
        }
    }
    let api = Api::start();
    let document = document(&api);
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 20);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

/// Checks values against what is described; fields that are not described are mistakes.
struct Described(Value);

impl Described {
    fn of(api: &Api) -> Self {
        let mut document = document(api);
        // What other schemas are put together from knows nothing of their fields.
        let mut parts = BTreeSet::new();
        for schema in document["components"]["schemas"].as_object().unwrap().values() {
            let all = schema["allOf"].as_array().into_iter().flatten();
            parts.extend(all.filter_map(|part| Some(part["$ref"].as_str()?.rsplit('/').next()?.to_owned())));
        }
        let schemas = document["components"]["schemas"].as_object_mut().unwrap();
        for (name, schema) in schemas {
            let fields = schema.get("properties").is_some() || schema.get("allOf").is_some();
            if fields && !parts.contains(name) {
                schema["unevaluatedProperties"] = false.into();
            }
        }
        Self(document)
    }

    fn schema(&self, name: &str) -> jsonschema::Validator {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$ref": format!("#/components/schemas/{name}"),
            "components": self.0["components"],
        });
        jsonschema::validator_for(&schema).unwrap()
    }

    #[track_caller]
    fn check(&self, name: &str, value: &Value) {
        let errors: Vec<String> = self
            .schema(name)
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}\n{value:#}");
    }

    /// The schema that is described for an answer.
    #[track_caller]
    fn answer(&self, method: &str, path: &str, status: u16) -> String {
        let responses = &self.0["paths"][path][method]["responses"];
        let reference = &responses[status.to_string()]["content"]["application/json"]["schema"]["$ref"];
        let reference = reference
            .as_str()
            .unwrap_or_else(|| panic!("{method} {path} {status} is not described"));
        reference.rsplit('/').next().unwrap().to_owned()
    }
}

#[test]
fn answers_are_as_described() {
    let api = Api::start();
    let described = Described::of(&api);
    for path in [
        "/health",
        "/readyz",
        "/livez",
        "/version",
        "/v1/models",
        "/api/v1/memory",
        "/api/v1/expert-stats",
        "/api/v1/expert-stats?detail=heatmap",
    ] {
        let (status, body) = api.get(path);
        let plain = path.split('?').next().unwrap();
        described.check(&described.answer("get", plain, status), &body);
    }
    for name in ["first", "nobody"] {
        let (status, body) = api.get(&format!("/v1/models/{name}"));
        described.check(&described.answer("get", "/v1/models/{model}", status), &body);
    }
    let many = json!((0..5000).map(|token| token % 256).collect::<Vec<_>>());
    for (path, body) in [
        (CHAT, chat("say")),
        (CHAT, chat("long")),
        (CHAT, chat("full")),
        (CHAT, chat("loading")),
        (CHAT, chat("panics")),
        (CHAT, json!({"messages": 5})),
        ("/v1/completions", json!({"prompt": ["say", "say"]})),
        ("/v1/completions", json!({})),
        ("/api/v1/generate", json!({"prompt": "say"})),
        ("/api/v1/generate", json!({"prompt": "say", "raw": true})),
        ("/tokenize", json!({"content": "say"})),
        ("/tokenize", json!({"content": "say\u{e9}", "with_pieces": true})),
        ("/detokenize", json!({"tokens": [83, 97]})),
        ("/detokenize", json!({"tokens": many})),
        ("/apply-template", chat("say")),
        (
            "/v1/messages",
            json!({"max_tokens": 9, "messages": [{"role": "user", "content": "say"}]}),
        ),
        (
            "/v1/messages",
            json!({"max_tokens": 9, "messages": [{"role": "user", "content": "full"}]}),
        ),
        ("/v1/messages", json!({})),
        ("/v1/messages/count_tokens", chat("say")),
        ("/v1/responses", json!({"input": "say"})),
        (
            "/v1/responses",
            json!({"input": "say", "tools": [{"type": "function", "name": "f"}]}),
        ),
        ("/v1/responses", json!({})),
        ("/v1/responses/input_tokens", json!({"input": "say"})),
        ("/api/v1/expert-cache", json!({"size": "5%"})),
    ] {
        let (status, answer) = api.post(path, &body);
        described.check(&described.answer("post", path, status), &answer);
        if status == 200 {
            let request =
                &described.0["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            described.check(request.as_str().unwrap().rsplit('/').next().unwrap(), &body);
        }
    }
    let loading = Api::with(hearth::engine::Health::Loading { progress: 0.25 });
    let (status, body) = loading.get("/health");
    described.check(&described.answer("get", "/health", status), &body);
}

#[test]
fn events_of_streams_are_as_described() {
    let api = Api::start();
    let described = Described::of(&api);
    for (path, schema, mut body) in [
        (CHAT, "ChatChunk", chat("progresses")),
        (CHAT, "ChatChunk", chat("say")),
        ("/v1/completions", "TextCompletion", json!({"prompt": "say"})),
        ("/api/v1/generate", "Event", json!({"prompt": "say"})),
        (CHAT, "ErrorBody", chat("broken")),
    ] {
        body["stream_options"] = json!({"include_usage": true});
        body["return_progress"] = true.into();
        let lines = api.stream(path, body);
        let events = lines.iter().filter(|line| *line != "[DONE]");
        let events: Vec<Value> = events.map(|line| serde_json::from_str(line).unwrap()).collect();
        // An error is the last event.
        let of_schema = if schema == "ErrorBody" {
            &events[events.len() - 1..]
        } else {
            &events
        };
        for event in of_schema {
            described.check(schema, event);
        }
    }
}

/// Every field that generating requests may have is in a description, and the examples work.
#[test]
fn examples_work() {
    let api = Api::start();
    let described = Described::of(&api);
    for (path, item) in described.0["paths"].as_object().unwrap() {
        let content = &item["post"]["requestBody"]["content"]["application/json"];
        if content.is_null() {
            continue;
        }
        let example = &content["example"];
        assert!(!example.is_null(), "{path} has no example");
        let (status, answer) = api.post(path, example);
        // The scripted models have no experts, make no vectors and cannot fill in; some paths only refuse, as llama-server's do.
        let unable = [
            "/api/v1/expert-cache",
            "/infill",
            "/lora-adapters",
            // The scripted models are nobody's to load or to take out of service.
            "/api/v1/maintenance",
            "/models/load",
            "/models/unload",
            "/props",
            "/slots/{slot}",
        ]
        .contains(&&**path)
            || path.contains("embedding")
            || path.contains("rerank");
        assert!(
            status == 200 || (unable && (status < 500 || status == 501)),
            "{path}: {answer}"
        );
    }
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let api = Api::start();
    let answer = client().get(api.url("/docs")).send().unwrap();
    assert_eq!(answer.status(), 200);
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(
        policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"),
        "{policy}"
    );
    let page = answer.text().unwrap();
    assert!(page.contains("openapi.json"));
    for elsewhere in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
}
