//! What is planned is what llama.cpp allocates, seen through the real server.
//!
//! `scripts/test-gpu-path` runs this with a GPU.

mod common;

use std::path::Path;

use common::Server;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use serde_json::Value;

/// llama.cpp tells sizes in hundredths of a mebibyte, for each of a few buffers.
const ROUNDING: u64 = 4 * 10_486;

fn model(folder: &Path, arch: Arch, mix: &str) -> String {
    let mut shape = Shape::preset(arch, "tiny").unwrap();
    shape.mtp = arch == Arch::Qwen3next;
    let path = folder.join(format!("{}.gguf", arch.as_str()));
    let mix = Mix::from_name(mix).unwrap();
    Synthetic::new(shape, mix).write(&path, |_, _| ()).unwrap();
    path.display().to_string()
}

fn bytes(memory: &Value, side: &str, tier: &str, kind: &str) -> u64 {
    memory[side][tier][kind].as_u64().unwrap_or(0)
}

/// Keys, values and states to the byte that can be seen, weights exactly where they are allocated, and the total within 5 %.
fn check(memory: &Value) {
    let mut totals = [0, 0];
    for tier in ["gpu", "ram"] {
        for kind in ["weights", "experts", "expert-cache", "kv", "recurrent", "compute"] {
            let planned = bytes(memory, "planned", tier, kind);
            let mapped = memory["buffers"].as_array().unwrap().iter().any(|buffers| {
                buffers["tier"] == tier && buffers["mapped"] == true && ["weights", "experts"].contains(&kind)
            });
            // A map spans the file from the first tensor in it to the last.
            let actual = if mapped {
                planned
            } else {
                bytes(memory, "actual", tier, kind)
            };
            if ["kv", "recurrent", "expert-cache"].contains(&kind) {
                assert!(
                    planned.abs_diff(actual) <= ROUNDING,
                    "{tier} {kind}: {planned}, {actual} in {memory:#}"
                );
            }
            totals[0] += planned;
            totals[1] += actual;
        }
    }
    let [planned, actual] = totals;
    println!("{}: planned {planned}, allocated {actual}", memory["model"]);
    assert!(
        planned.abs_diff(actual) <= actual / 20,
        "{planned}, {actual} in {memory:#}"
    );
}

#[test]
fn random_models_take_what_is_planned() {
    let folder = tempfile::tempdir().unwrap();
    for (arch, mix) in [
        (Arch::Qwen3next, "q4_k_m"),
        (Arch::Qwen3moe, "q8_0"),
        (Arch::GptOss, "mxfp4"),
        (Arch::Llama, "f16"),
    ] {
        let path = model(folder.path(), arch, mix);
        let cache = "ubatch = 512\nexperts = { placement = \"cache\", cache = \"50%\" }";
        // It makes its own drafts, as a small model would.
        let small = &format!("draft = {{ kind = \"model\", path = {path:?} }}");
        let (head, both) = (
            "draft = { kind = \"mtp\" }",
            format!("{cache}\ndraft = {{ kind = \"mtp\" }}"),
        );
        for more in [
            "",
            "ubatch = 1024\nkv_type = \"q8_0\"",
            "kv_type = \"q8_0/q4_0\"",
            "kv = \"pool\"",
            "ubatch = 128",
            "embeddings = true",
            "role = \"embedding\"",
            cache,
            head,
            &both,
            small,
        ] {
            let has_experts = arch != Arch::Llama;
            let has_head = arch == Arch::Qwen3next;
            if arch == Arch::Qwen3next && more == small {
                // It has recurrent layers.
                continue;
            }
            if !has_experts && more == cache || !has_head && (more == head || more == both) {
                continue;
            }
            let text = format!(
                "[server]\nport = 0\n[memory]\nunified = false\n[[model]]\nname = \"{}\"\npath = {path:?}\ncontext = 4096\nparallel = 2\n{more}\n",
                arch.as_str()
            );
            let server = Server::configured(&text, 1, None);
            // The copies of a layer are allocated when it computes.
            let model = arch.as_str();
            let (status, answer) = server.post(
                "/completion",
                &serde_json::json!({"model": model, "prompt": [1, 2, 3], "n_predict": 4}),
            );
            assert!(status == 200 || more.contains("embedding"), "{answer}");
            check(&server.get("/api/v1/memory").1["models"][0]);
        }
    }
}

#[cfg(feature = "demo")]
#[test]
fn the_built_in_pair_takes_what_is_planned() {
    let server = Server::start("");
    let (_, memory) = server.get("/api/v1/memory");
    for model in memory["models"].as_array().unwrap() {
        check(model);
    }
}
