//! `/metrics` and the logs of a real server: what docs/metrics.md promises, and what deploy/ relies on.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Server, client, raw_post, stream};
use regex_automata::meta::Regex;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// A family of an exposition.
#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// An exposition, read strictly: each line has its form, and its family was announced before.
fn read(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let sample = Regex::new(r#"^([a-z0-9_]+)(\{.*\})? (\S+)$"#).unwrap();
    let label = Regex::new(r#"([a-z_]+)="([^"\\]*)",?"#).unwrap();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            let family = families.entry(name.to_owned()).or_default();
            assert!(family.help.is_empty(), "{name} is explained twice");
            family.help = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            families.get_mut(name).unwrap().kind = kind.to_owned();
        } else {
            let mut parts = sample.create_captures();
            sample.captures(line, &mut parts);
            assert!(parts.is_match(), "{line}");
            let part = |index| parts.get_group(index).map_or("", |span| &line[span.range()]);
            let name = part(1);
            let family = family_of(name, |name| families.contains_key(name));
            let labels = label.captures_iter(part(2)).map(|found| {
                let group = |index| part(2)[found.get_group(index).unwrap().range()].to_owned();
                (group(1), group(2))
            });
            let sample = Sample {
                name: name.to_owned(),
                labels: labels.collect(),
                value: part(3).parse().unwrap(),
            };
            families.get_mut(&family).unwrap().samples.push(sample);
        }
    }
    families
}

/// The family of a series: histograms have several series.
fn family_of(series: &str, is_family: impl Fn(&str) -> bool) -> String {
    let stems = ["_bucket", "_sum", "_count"];
    let stem = stems.iter().find_map(|ending| series.strip_suffix(ending));
    stem.filter(|stem| is_family(stem)).unwrap_or(series).to_owned()
}

fn scrape(server: &Server) -> BTreeMap<String, Family> {
    let url = format!("http://{}/metrics", server.address);
    let response = client().get(url).send().unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    read(&response.text().unwrap())
}

/// The sum of the samples that have these labels.
fn sum(families: &BTreeMap<String, Family>, series: &str, labels: &[(&str, &str)]) -> f64 {
    let family = &families[&family_of(series, |name| families.contains_key(name))];
    let has = |sample: &&Sample| {
        sample.name == series
            && labels
                .iter()
                .all(|(name, value)| sample.labels.get(*name).is_some_and(|is| is == value))
    };
    family.samples.iter().filter(has).map(|sample| sample.value).sum()
}

/// A family as docs/metrics.md describes it.
struct Documented {
    kind: String,
    labels: BTreeSet<String>,
    /// It is not there on every machine or for every model.
    conditional: bool,
}

fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documented() -> BTreeMap<String, Documented> {
    let mut families = BTreeMap::new();
    let mut conditional = false;
    for line in repository("docs/metrics.md").lines() {
        if let Some(title) = line.strip_prefix("### ") {
            conditional = title.starts_with("With ");
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, labels, ..] = cells[..] else {
            continue;
        };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else {
            continue;
        };
        let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let family = Documented {
            kind: kind.to_owned(),
            labels: labels.filter(|label| !label.is_empty()).collect(),
            conditional,
        };
        families.insert(name.to_owned(), family);
    }
    assert!(families.len() > 50);
    families
}

fn start() -> Server {
    let text = "[server]\nport = 0\nshutdown_grace = \"2s\"\n\
                [[model]]\nname = \"thinks\"\nrole = \"reasoning\"\npath = \"demo:reasoner\"\nparallel = 1\nqueue = 1\n\
                experts = { placement = \"cache\", device = \"cpu\", cache = \"50%\" }\n\
                [[model]]\nname = \"tells\"\npath = \"demo:narrator\"\n";
    Server::configured(text, 1, None)
}

fn ask(model: &str, tokens: u32) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": tokens, "temperature": 0})
}

#[test]
fn all_that_happens_is_counted() {
    let server = start();
    let before = scrape(&server);
    assert_eq!(sum(&before, "hearth_requests_total", &[]), 0.0);
    assert_eq!(
        before["hearth_requests_total"].samples.len(),
        8,
        "each way to end is there at zero"
    );

    // One that ends by itself, one that is cut, and one that is streamed, whose prompt is not computed a second time.
    assert_eq!(server.post(CHAT, &ask("thinks", 64)).0, 200);
    assert_eq!(server.post(CHAT, &ask("thinks", 2)).0, 200);
    let mut streamed = ask("tells", 4);
    streamed["stream"] = true.into();
    stream(server.address, CHAT, &streamed);
    assert_eq!(server.post(CHAT, &ask("tells", 4)).0, 200);

    // One in the slot and one in the queue; the third is refused. Both clients leave.
    let mut endless = json!({"model": "thinks", "prompt": "a", "max_tokens": 4000, "ignore_eos": true, "stream": true});
    let running = raw_post(server.address, "/v1/completions", &endless);
    server.wait_for("hearth_requests_running", "thinks", 1.0, Duration::from_secs(20));
    endless["stream"] = false.into();
    let waiting = raw_post(server.address, "/v1/completions", &endless);
    server.wait_for("hearth_requests_waiting", "thinks", 1.0, Duration::from_secs(20));
    let kv = |families: &_, state| sum(families, "hearth_kv_tokens", &[("model", "thinks"), ("state", state)]);
    let started = Instant::now();
    let during = loop {
        let during = scrape(&server);
        // After its first steps.
        if kv(&during, "running") > 0.0 {
            break during;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "the slot stays empty");
    };
    let (status, error) = server.post(CHAT, &ask("thinks", 1));
    assert_eq!(status, 429, "{error}");
    drop(waiting);
    drop(running);
    server.wait_for("hearth_requests_running", "thinks", 0.0, Duration::from_secs(20));

    // What is no route, and methods that nobody knows.
    for path in ["/a", "/b", "/c/d"] {
        client().get(format!("http://{}{path}", server.address)).send().unwrap();
    }
    for method in ["BREW", "STIR"] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("http://{}/livez", server.address);
        client().request(method, url).send().unwrap();
    }
    server.wait_for("hearth_requests_total", "thinks", 4.0, Duration::from_secs(20));
    let after = scrape(&server);

    let ended = |model, how| {
        sum(
            &after,
            "hearth_requests_total",
            &[("model", model), ("finish_reason", how)],
        )
    };
    assert_eq!((ended("thinks", "stop"), ended("thinks", "length")), (1.0, 1.0));
    assert_eq!(ended("thinks", "cancelled"), 2.0, "in its slot, and in the queue");
    assert_eq!(ended("tells", "stop") + ended("tells", "length"), 2.0);
    let full = [("model", "thinks"), ("reason", "queue_full")];
    assert_eq!(sum(&after, "hearth_requests_refused_total", &full), 1.0);
    let of = |series, model| sum(&after, series, &[("model", model)]);
    assert!(of("hearth_prompt_cached_tokens_total", "tells") > 0.0);
    assert!(of("hearth_prompt_tokens_total", "tells") > of("hearth_prompt_cached_tokens_total", "tells"));
    assert!(of("hearth_generation_tokens_total", "tells") <= 8.0);
    assert_eq!(of("hearth_time_to_first_token_seconds_count", "tells"), 2.0);
    assert_eq!(of("hearth_e2e_request_latency_seconds_count", "tells"), 2.0);
    assert!(of("hearth_model_load_seconds", "tells") > 0.0);
    assert_eq!(
        (of("hearth_slots", "thinks"), of("hearth_queue_capacity", "thinks")),
        (1.0, 1.0)
    );
    assert_eq!(kv(&during, "kept"), 0.0);
    assert!(kv(&after, "running") == 0.0 && kv(&after, "kept") > 0.0);
    assert!(kv(&after, "kept") <= of("hearth_kv_capacity_tokens", "thinks"));
    let ready = |model, state| sum(&after, "hearth_model_state", &[("model", model), ("state", state)]);
    assert_eq!((ready("thinks", "ready"), ready("thinks", "failed")), (1.0, 0.0));

    let http = |labels: &[_]| sum(&after, "hearth_http_requests_total", labels);
    assert_eq!(http(&[("route", CHAT), ("method", "POST"), ("status", "200")]), 4.0);
    assert_eq!(http(&[("route", CHAT), ("status", "429")]), 1.0);
    assert_eq!(http(&[("route", "other"), ("status", "404")]), 3.0);
    assert_eq!(
        http(&[("route", "/livez"), ("method", "other"), ("status", "405")]),
        2.0
    );
    // The stream had begun, the other one had no answer.
    assert_eq!(http(&[("route", "/v1/completions"), ("status", "499")]), 1.0);
    let timed = [("route", CHAT), ("method", "POST")];
    assert_eq!(sum(&after, "hearth_http_request_duration_seconds_count", &timed), 5.0);
    // The scrape itself.
    assert_eq!(sum(&after, "hearth_http_requests_in_flight", &[]), 1.0);

    described(&after);
    bounded(&after);
}

/// Each family is in docs/metrics.md, and what is there for every server is here.
fn described(families: &BTreeMap<String, Family>) {
    let documented = documented();
    for (name, family) in families {
        assert!(
            !family.samples.is_empty() && family.help.ends_with('.'),
            "{name}: {}",
            family.help
        );
        let Some(description) = documented.get(name) else {
            panic!("{name} is not in docs/metrics.md");
        };
        assert_eq!(family.kind, description.kind, "{name}");
        for sample in &family.samples {
            let mut labels: BTreeSet<String> = sample.labels.keys().cloned().collect();
            labels.remove("le");
            assert_eq!(labels, description.labels, "{name}");
        }
    }
    for (name, description) in &documented {
        let expected = !description.conditional || name.starts_with("hearth_expert_");
        let linux_only = name.starts_with("process_") && !cfg!(target_os = "linux");
        assert!(
            !expected || linux_only || families.contains_key(name),
            "{name} is not there"
        );
    }
}

/// No label has a value that a client made up.
fn bounded(families: &BTreeMap<String, Family>) {
    let one_of = |value: &str, values: &[&str]| values.contains(&value);
    for (name, family) in families {
        for (label, value) in family.samples.iter().flat_map(|sample| &sample.labels) {
            let fine = match label.as_str() {
                "model" => one_of(value, &["thinks", "tells"]),
                "route" => value == "other" || value.starts_with('/'),
                "method" => one_of(value, &["GET", "HEAD", "POST", "PUT", "DELETE", "other"]),
                "status" => value.len() == 3 && value.parse::<u16>().is_ok(),
                "finish_reason" => one_of(value, &["stop", "length", "error", "cancelled"]),
                "layer" | "gpu" => value.parse::<u32>().is_ok(),
                "le" => value == "+Inf" || value.parse::<f64>().is_ok(),
                _ => value.len() < 64,
            };
            assert!(fine, "{name} has the label {label}={value:?}");
        }
        assert!(
            family.samples.len() < 1000,
            "{name} has {} series",
            family.samples.len()
        );
    }
    let routes = families["hearth_http_requests_total"].samples.iter();
    let routes: BTreeSet<&str> = routes.map(|sample| sample.labels["route"].as_str()).collect();
    assert!(!routes.contains("/a") && routes.len() < 10, "{routes:?}");
}

#[test]
fn dashboards_and_alerts_ask_for_what_there_is() {
    let documented = documented();
    let name = Regex::new(r"\b(hearth|process)_[a-z0-9_]+").unwrap();
    let mut asked = BTreeSet::new();
    let dashboard: Value = serde_json::from_str(&repository("deploy/grafana/dashboards/hearth.json")).unwrap();
    let mut texts = vec![repository("deploy/prometheus/alerts.yaml")];
    expressions(&dashboard, &mut texts);
    assert!(texts.len() > 20, "the dashboard has queries");
    for text in &texts {
        for found in name.find_iter(text) {
            let family = family_of(&text[found.range()], |name| documented.contains_key(name));
            assert!(documented.contains_key(&family), "{family}, in {text}, is no metric");
            asked.insert(family);
        }
    }
    assert!(asked.len() > 30, "{asked:?}");
}

/// The queries of a dashboard, those of its variables included.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if ["expr", "query", "definition"].contains(&key.as_str()) => {
                        found.push(text.to_owned())
                    }
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// A server whose log is read.
fn logged(server: &str, log: &str, talk: impl FnOnce(&str)) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("models.toml");
    let text = format!("[server]\nport = 0\n{server}\n[[model]]\nname = \"m\"\npath = \"demo:narrator\"\n");
    std::fs::write(&config, text).unwrap();
    let errors = folder.path().join("log");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(["serve", "--config"])
        .arg(&config)
        .stdout(std::process::Stdio::piped())
        .stderr(std::fs::File::create(&errors).unwrap())
        .env("HEARTH_LOG", log)
        .env_remove("HEARTH_LOG_FORMAT")
        .env("HEARTH_CACHE", common::command::cache())
        .spawn()
        .unwrap();
    let mut line = [0; 64];
    let length = child.stdout.as_mut().unwrap().read(&mut line).unwrap();
    let line = String::from_utf8_lossy(&line[..length]).into_owned();
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("http://"));
    let url = format!("http://{}", address.unwrap());
    let ready = || client().get(format!("{url}/readyz")).send().unwrap().status() == 200;
    while !ready() {
        std::thread::sleep(Duration::from_millis(20));
    }
    talk(&url);
    child.kill().unwrap();
    child.wait().unwrap();
    let text = std::fs::read_to_string(errors).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")));
    lines.collect()
}

#[test]
fn log_lines_are_json_with_request_ids_and_the_level_can_be_changed() {
    let lines = logged("", "info", |url| {
        let level = format!("{url}/api/v1/log-level");
        let put = |filter: &str| {
            let request = client().put(&level).body(json!({"filter": filter}).to_string());
            let response = request.send().unwrap();
            (response.status().as_u16(), response.json::<Value>().unwrap())
        };
        let ask = |id: &str| {
            let request = client().post(format!("{url}{CHAT}")).header("x-request-id", id);
            assert_eq!(request.body(ask("m", 2).to_string()).send().unwrap().status(), 200);
        };
        ask("quiet-1");
        for bad in ["loud", "hearth=loud", "", "info,,debug"] {
            let (status, error) = put(bad);
            assert_eq!(
                (status, &error["error"]["param"]),
                (400, &json!("filter")),
                "{bad}: {error}"
            );
        }
        let now: Value = client().get(&level).send().unwrap().json().unwrap();
        assert_eq!(now, json!({"filter": "info"}), "a bad filter changes nothing");
        assert_eq!(put("hearth=debug"), (200, json!({"filter": "hearth=debug"})));
        ask("told-1");
        assert_eq!(put("info").0, 200);
        ask("quiet-2");
    });
    let with_id = |id: &str| lines.iter().filter(|line| line["span"]["id"] == id).count();
    assert!(with_id("told-1") > 0, "{lines:?}");
    assert_eq!((with_id("quiet-1"), with_id("quiet-2")), (0, 0), "{lines:?}");
    assert!(
        lines
            .iter()
            .all(|line| line["level"].is_string() && line["timestamp"].is_string())
    );
}

#[test]
fn what_people_ask_is_logged_only_if_wanted() {
    let secret = "the wizard's password";
    let asks = |server: &str| {
        logged(server, "trace,h2=off,hyper=off,mio=off", |url| {
            let mut body = ask("m", 4);
            body["messages"][0]["content"] = format!("{secret} {}", "x".repeat(5000)).into();
            for path in [CHAT, "/v1/responses", "/v1/messages"] {
                body["input"] = body["messages"].clone();
                // Errors are told to the client, not to the log.
                client()
                    .post(format!("{url}{path}"))
                    .body(body.to_string())
                    .send()
                    .unwrap();
            }
            let prompt = json!({"model": "m", "prompt": secret, "max_tokens": 2}).to_string();
            for path in ["/v1/completions", "/completion", "/api/v1/generate", "/tokenize"] {
                client()
                    .post(format!("{url}{path}"))
                    .body(prompt.clone())
                    .send()
                    .unwrap();
            }
        })
    };
    let tells = |line: &&Value| line.to_string().contains("wizard");
    let lines = asks("");
    assert!(lines.len() > 10);
    assert_eq!(lines.iter().find(tells), None);
    let lines = asks("log_prompts = true");
    let told: Vec<&Value> = lines.iter().filter(tells).collect();
    assert!(told.len() >= 4, "{told:?}");
    assert!(
        told.iter()
            .all(|line| line["body"].as_str().unwrap().len() <= 2000 && !line["span"]["id"].is_null())
    );
}
