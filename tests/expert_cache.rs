//! The expert cache in the real server: statistics, changes, metrics, memory, and a device that is full.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::Server;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use serde_json::{Value, json};

/// A model with experts of half a megabyte each, 128 of them in two layers.
fn model(folder: &Path) -> String {
    let tiny = Shape::preset(Arch::Qwen3moe, "tiny").unwrap();
    let shape = Shape {
        layers: 2,
        width: 256,
        experts: 64,
        experts_per_token: 4,
        expert_feed_forward: 512,
        ..tiny
    };
    let path = folder.join("model.gguf");
    let synthetic = Synthetic {
        skew: 0.5,
        seed: 7,
        ..Synthetic::new(shape, Mix::from_name("f16").unwrap())
    };
    synthetic.write(&path, |_, _| ()).unwrap();
    path.display().to_string()
}

fn config(path: &str, cache: &str) -> String {
    format!(
        "[server]\nport = 0\nshutdown_grace = \"2s\"\n[[model]]\nname = \"m\"\npath = {path:?}\ncontext = 512\nparallel = 2\n\
         experts = {{ placement = \"cache\", device = \"cpu\", policy = \"lfu-decay\", cache = \"{cache}\" }}\n"
    )
}

fn generate(server: &Server, prompt: &str) -> String {
    let request =
        json!({"prompt": prompt, "max_tokens": 32, "ignore_eos": true, "temperature": 0, "cache_prompt": false});
    let (status, answer) = server.post("/v1/completions", &request);
    assert_eq!(status, 200, "{answer}");
    answer["choices"][0]["text"].as_str().unwrap().to_owned()
}

fn stats(server: &Server, detail: &str) -> Value {
    let (status, stats) = server.get(&format!("/api/v1/expert-stats?model=m&detail={detail}"));
    assert_eq!(status, 200, "{stats}");
    stats["models"][0]["cache"].clone()
}

#[test]
fn numbers_agree_wherever_they_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::configured(&config(&model(folder.path()), "25%"), 1, None);
    generate(&server, "abc");
    let cache = stats(&server, "heatmap");
    assert_eq!(cache["policy"], "lfu-decay");
    assert_eq!(cache["device"], "cpu");
    assert_eq!(cache["capacity"], 32);
    let geometry = &cache["geometry"];
    let bytes = geometry["bytes_per_expert"].as_u64().unwrap();
    assert_eq!(bytes, 3 * 256 * 512 * 2);
    assert_eq!(
        (
            &geometry["layers"],
            &geometry["experts"],
            &geometry["experts_per_token"]
        ),
        (&json!(2), &json!(64), &json!(4))
    );
    // What they were called before.
    assert_eq!((&cache["slots"], &geometry["active"]), (&json!(32), &json!(4)));
    // In each layer one more entry, which stays zeros.
    assert_eq!(cache["cache_bytes"], 2 * 17 * bytes);
    let total = &cache["since_start"];
    assert_eq!(total["selections"], total["tokens"].as_u64().unwrap() * 4);
    assert_eq!(
        total["selections"],
        total["hits"].as_u64().unwrap() + total["misses"].as_u64().unwrap()
    );
    for (layer, selections) in cache["layers"]
        .as_array()
        .unwrap()
        .iter()
        .zip(cache["heatmap"]["selections"].as_array().unwrap())
    {
        let selections: Vec<u64> = serde_json::from_value(selections.clone()).unwrap();
        assert_eq!(selections.len(), 64);
        assert_eq!(layer["distinct"], selections.iter().filter(|count| **count > 0).count());
        let top = &layer["top"][0];
        assert_eq!(top["selections"], *selections.iter().max().unwrap());
        assert!(layer["entropy"].as_f64().unwrap() <= 6.0);
    }
    for (metric, key) in [
        ("hits", "hits"),
        ("misses", "misses"),
        ("uploads", "uploads"),
        ("evictions", "evictions"),
    ] {
        let metric = server.metric(&format!("hearth_expert_{metric}_total"), "m");
        assert!(
            (metric - total[key].as_f64().unwrap()).abs() < 0.5,
            "{key}: {metric} {total}"
        );
    }
    for name in ["capacity", "slots"] {
        let metric = server.metric(&format!("hearth_expert_cache_{name}"), "m");
        assert!((metric - 32.0).abs() < 0.5, "{name}: {metric}");
    }
    let (status, memory) = server.get("/api/v1/memory");
    assert_eq!(status, 200);
    let (planned, actual) = (
        &memory["models"][0]["planned"]["ram"],
        &memory["models"][0]["actual"]["ram"],
    );
    assert_eq!(planned["expert-cache"], cache["cache_bytes"], "{memory}");
    assert_eq!(actual["expert-cache"], cache["cache_bytes"]);
    assert_eq!(planned["kv"], actual["kv"], "{memory}");
    assert!(memory["process"]["resident"].as_u64().unwrap() > 0);
    assert!(memory["host"]["available"].as_u64().unwrap() > 0);
    let kv = server.metric("hearth_memory_bytes", "m");
    assert!(kv > actual["kv"].as_f64().unwrap());
}

#[test]
fn a_running_cache_is_changed_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::configured(&config(&model(folder.path()), "25%"), 1, None);
    let before = generate(&server, "abc");
    let change = json!({"size": "50%", "policy": "lru", "pinned": {"1": [7]}});
    let (status, answer) = server.post("/api/v1/expert-cache", &change);
    assert_eq!((status, &answer["cache"]["policy"]), (200, &json!("lru")), "{answer}");
    for _ in 0..4 {
        assert_eq!(generate(&server, "abc"), before);
    }
    let cache = stats(&server, "heatmap");
    assert_eq!(cache["capacity"], 64);
    let resident: Vec<u32> = serde_json::from_value(cache["heatmap"]["resident"][1].clone()).unwrap();
    assert!(resident.contains(&7), "{resident:?}");
    let (status, _) = server.post("/api/v1/expert-cache", &json!({"reset": true, "size": "9MiB"}));
    assert_eq!(status, 200);
    assert_eq!(generate(&server, "abc"), before);
    let cache = stats(&server, "layers");
    // 9 MiB are six entries in both layers, one of them of zeros.
    assert_eq!(cache["capacity"], 2 * 5, "{cache}");
    assert_eq!(cache["cache_bytes"], 9 << 20, "{cache}");
    assert!(cache["since_start"]["tokens"].as_u64().unwrap() < 200, "{cache}");
    for (body, field) in [
        (json!({"size": "much"}), "size"),
        (json!({"size": "auto"}), "size"),
        (json!({"policy": "clever"}), "policy"),
        (json!({"model": "x"}), "x"),
        (json!({"pinned": {"9": [1]}}), "layer 9"),
        // As it was called before.
        (json!({"pins": {"1": [64]}}), "64"),
        (json!({"colour": 1}), "colour"),
    ] {
        let (status, answer) = server.post("/api/v1/expert-cache", &body);
        assert!(status == 400 || status == 404, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(field), "{answer}");
    }
    let (status, _) = server.get("/api/v1/expert-stats?detail=colours");
    assert_eq!(status, 400);
}

/// `static` goes by all that was selected, not by what the policy before it thought of the last few tokens.
#[test]
fn a_change_to_static_keeps_the_hottest() {
    let folder = tempfile::tempdir().unwrap();
    // No other test's heat map: all that was ever selected is what this server tells.
    let cache = [("HEARTH_CACHE", folder.path().into())];
    let server = Server::logged(&config(&model(folder.path()), "25%"), &cache);
    server.wait_until_ready();
    for text in ["abc", "one two three", "xyz", "0123456789"] {
        generate(&server, text);
    }
    let selected = selections(&server);
    let (status, answer) = server.post("/api/v1/expert-cache", &json!({"policy": "static"}));
    assert_eq!(status, 200, "{answer}");
    // The cache changes with the next token, and fills while further ones are computed.
    (0..4).for_each(|_| drop(generate(&server, "abc")));
    let resident = stats(&server, "heatmap")["heatmap"]["resident"].clone();
    let resident: Vec<Vec<usize>> = serde_json::from_value(resident).unwrap();
    for (selected, resident) in selected.iter().zip(&resident) {
        assert_eq!(resident.len(), selected.len() / 4);
        let (inside, outside): (Vec<usize>, Vec<usize>) =
            (0..selected.len()).partition(|expert| resident.contains(expert));
        let coldest = inside.iter().map(|expert| selected[*expert]).min();
        let hottest = outside.iter().map(|expert| selected[*expert]).max();
        assert!(coldest >= hottest, "{selected:?} {resident:?}");
    }
}

/// Experts by generated token and layer.
type Routed = Vec<Vec<Vec<u32>>>;

/// The experts of an answer to a prompt of one token, which is computed as if it were generated.
fn routed(server: &Server, token: u32) -> Routed {
    let request = json!({"prompt": [token], "max_tokens": 6, "ignore_eos": true, "temperature": 0,
        "cache_prompt": false, "return_routed_experts": true});
    let (status, answer) = server.post("/v1/completions", &request);
    assert_eq!(status, 200, "{answer}");
    serde_json::from_value(answer["choices"][0]["routed_experts"].clone()).unwrap()
}

/// By layer and expert.
fn selections(server: &Server) -> Vec<Vec<u64>> {
    serde_json::from_value(stats(server, "heatmap")["heatmap"]["selections"].clone()).unwrap()
}

#[test]
fn answers_tell_who_computed_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path());
    let server = Server::configured(&config(&path, "25%"), 1, None);
    let before = selections(&server);
    let alone: Vec<Routed> = [7, 99].map(|token| routed(&server, token)).into();
    let together: Vec<Routed> = std::thread::scope(|scope| {
        let threads = [7, 99].map(|token| {
            scope.spawn({
                let server = &server;
                move || routed(server, token)
            })
        });
        threads.map(|thread| thread.join().unwrap()).into()
    });
    // All that was selected is in the answers.
    let mut told = before;
    for answer in alone.iter().chain(&together) {
        assert_eq!(answer.len(), 6);
        for (layer, experts) in answer.iter().flat_map(|token| token.iter().enumerate()) {
            assert_eq!(experts.len(), 4);
            experts.iter().for_each(|expert| told[layer][*expert as usize] += 1);
        }
    }
    assert_eq!(selections(&server), told);
    // And each answer has its own.
    assert_ne!(alone[0][0], alone[1][0]);
    for (alone, together) in alone.iter().zip(&together) {
        assert_eq!(alone[0][0], together[0][0]);
    }
    let request = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "ignore_eos": true,
        "stream": true, "return_routed_experts": true});
    let lines = common::stream(server.address, "/v1/chat/completions", &request);
    let lists = lines.iter().filter_map(|line| {
        let chunk: Value = serde_json::from_str(line).ok()?;
        chunk["choices"][0]["routed_experts"].as_array().map(Vec::len)
    });
    assert_eq!(lists.collect::<Vec<_>>(), [3]);

    let plain = format!("[server]\nport = 0\n[[model]]\nname = \"m\"\npath = {path:?}\ncontext = 512\n");
    let server = Server::configured(&plain, 1, None);
    let (status, answer) = server.post(
        "/v1/completions",
        &json!({"prompt": "a", "return_routed_experts": true}),
    );
    assert_eq!(
        (status, &answer["error"]["param"]),
        (400, &json!("return_routed_experts"))
    );
}

/// The address space ends in the middle of the copies: fewer experts have one, and the answers stay the same.
#[cfg(target_os = "linux")]
#[test]
fn a_full_device_holds_fewer_copies() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path());
    let peak = {
        let server = Server::configured(&config(&path, "100%"), 1, None);
        generate(&server, "abc");
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    // All copies are 100 MiB; 70 of them are missing here.
    let server = Server::configured(&config(&path, "100%"), 1, Some(peak - 70 * 1024));
    let crowded = generate(&server, "abc");
    let capacity = stats(&server, "layers")["capacity"].as_u64().unwrap();
    assert!(capacity < 128, "{capacity}");
    drop(server);
    let server = Server::configured(&config(&path, "100%"), 1, None);
    assert_eq!(generate(&server, "abc"), crowded);
}

/// What was learnt is there after a restart.
#[test]
fn the_heat_map_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let text = config(&model(folder.path()), "25%");
    let server = Server::configured(&text, 1, None);
    generate(&server, "abc");
    assert!(server.terminate().success());
    let server = Server::configured(&text, 1, None);
    generate(&server, "a");
    // All entries are filled with what was used before; the last uploads may still be on their way.
    let deadline = Instant::now() + Duration::from_secs(30);
    while stats(&server, "summary")["resident"] != 32 {
        assert!(Instant::now() < deadline, "{}", stats(&server, "summary"));
        std::thread::sleep(Duration::from_millis(20));
    }
}
