//! `hearth advise` for machines that are only described.

#[path = "common/command.rs"]
mod command;

use std::path::Path;
use std::process::Output;

use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use serde_json::Value;

fn hearth(args: &[&str]) -> Output {
    command::hearth(&["advise"]).args(args).output().unwrap()
}

fn advised(args: &[&str]) -> String {
    let output = hearth(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_80b_on_a_16_gib_card() {
    insta::assert_snapshot!(advised(&["--params", "80b-a3b", "--vram", "16GiB", "--ram", "100GiB"]));
}

#[test]
fn the_80b_on_unified_memory() {
    insta::assert_snapshot!(advised(&["--params", "80b-a3b", "--unified", "--ram", "128GiB"]));
}

#[test]
fn the_narrator_on_a_24_gib_card() {
    insta::assert_snapshot!(advised(&[
        "--params",
        "mag-mell-12b",
        "--vram",
        "24GiB",
        "--ram",
        "64GiB"
    ]));
}

#[test]
fn a_machine_that_is_too_small() {
    insta::assert_snapshot!(advised(&["--params", "120b", "--vram", "0", "--ram", "16GiB"]));
}

#[test]
fn a_model_that_was_trained_in_mxfp4() {
    let text = advised(&["--params", "20b", "--vram", "16GiB", "--ram", "32GiB"]);
    assert!(
        text.contains("recommended: mxfp4, the type that the model was trained in"),
        "{text}"
    );
}

fn file(path: &Path, mix: &str) -> String {
    let synthetic = Synthetic {
        header_only: true,
        ..Synthetic::new(
            Shape::preset(Arch::Qwen3moe, "30b-a3b").unwrap(),
            Mix::from_name(mix).unwrap(),
        )
    };
    synthetic.write(path, |_, _| ()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn files_are_taken_and_commands_told() {
    let folder = tempfile::tempdir().unwrap();
    let exact = file(&folder.path().join("m-f16.gguf"), "f16");
    let machine = ["--vram", "24GiB", "--ram", "64GiB"];
    let text = advised(&[&["--gguf", &exact], &machine[..]].concat());
    assert!(
        text.contains("this file: F16") && text.contains("hearth quantize"),
        "{text}"
    );
    let small = file(&folder.path().join("m-q4.gguf"), "q4_k_m");
    let text = advised(&[&["--gguf", &small], &machine[..]].concat());
    assert!(
        text.contains("hearth pull") && !text.contains("hearth quantize"),
        "{text}"
    );
    // A wanted speed decides, and the context takes its part.
    let report = |args: &[&str]| {
        let args = [&["--gguf", &exact, "--json"], &machine[..], args].concat();
        serde_json::from_str::<Value>(&advised(&args)).unwrap()
    };
    let usual = report(&[]);
    assert!(usual["recommended"]["type"].is_string());
    let fast = report(&["--speed", "100000"]);
    assert!(fast["recommended"]["type"].is_null());
    let level = |report: &Value| {
        report["levels"]
            .as_array()
            .unwrap()
            .iter()
            .find(|level| level["type"] == "q4_k_m")
            .unwrap()
            .clone()
    };
    let long = report(&["--context", "40960", "--parallel", "4"]);
    assert_eq!(level(&long)["fit"]["context"], 40_960);
    assert_eq!(level(&long)["fit"]["slots"], 4);
}

/// What is shown beside what llama.cpp would write.
#[test]
fn sizes_are_those_of_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    let exact = file(&folder.path().join("m-f16.gguf"), "f16");
    let report: Value = serde_json::from_str(&advised(&[
        "--gguf", &exact, "--ram", "640GiB", "--vram", "0", "--json",
    ]))
    .unwrap();
    for level in report["levels"].as_array().unwrap() {
        let name = level["type"].as_str().unwrap();
        let args = [&exact, "none.gguf", "--type", name, "--dry-run", "--json"];
        let output = command::hearth(&["quantize"]).args(args).output().unwrap();
        let real: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let ratio = level["bytes"].as_f64().unwrap() / real["bytes"].as_f64().unwrap();
        assert!((0.93..1.07).contains(&ratio), "{name}: {ratio}");
    }
}

#[test]
fn mistakes_are_told() {
    for (args, says) in [
        (&["--params", "7b"][..], "known are"),
        (&[], "--gguf"),
        (&["--params", "20b", "--gguf", "x"], "cannot be used with"),
        (&["--params", "20b", "--unified", "--vram", "0"], "leave out one"),
        (&["--params", "20b", "--speed", "0"], "above 0"),
    ] {
        let output = hearth(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
}
