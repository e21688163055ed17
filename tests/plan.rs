//! `hearth plan` for the two models it was made for: full-size files of which there is only the header.

#[path = "common/command.rs"]
mod command;

use std::path::Path;
use std::process::Output;
use std::sync::OnceLock;

use hearth::synthetic::{Arch, Mix, Shape, Synthetic};

fn header(path: &Path, arch: Arch, preset: &str) {
    let mut shape = Shape::preset(arch, preset).unwrap();
    // As the published files have it.
    shape.mtp = arch == Arch::Qwen3next;
    let synthetic = Synthetic {
        header_only: true,
        ..Synthetic::new(shape, Mix::from_name("q4_k_m").unwrap())
    };
    synthetic.write(path, |_, _| ()).unwrap();
}

/// Qwen3-Next-80B-A3B and Mag-Mell-12B.
fn models() -> [String; 2] {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        header(&folder.path().join("qwen3-next.gguf"), Arch::Qwen3next, "80b-a3b");
        header(&folder.path().join("mag-mell.gguf"), Arch::Llama, "mag-mell-12b");
        folder
    });
    ["qwen3-next.gguf", "mag-mell.gguf"].map(|name| folder.path().join(name).to_str().unwrap().to_owned())
}

fn hearth(args: &[&str]) -> Output {
    command::hearth(&["plan"]).args(args).output().unwrap()
}

fn plan(args: &[&str]) -> Output {
    let [mixture, dense] = models();
    let mut all = vec!["--gguf", &mixture, "--gguf", &dense];
    all.extend(args);
    hearth(&all)
}

fn planned(args: &[&str]) -> String {
    let output = plan(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(args: &[&str]) -> String {
    let output = plan(args);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

const SHORT: [&str; 4] = ["--context", "16384", "--parallel", "1"];

fn short<'a>(args: &[&'a str]) -> Vec<&'a str> {
    args.iter().copied().chain(SHORT).collect()
}

#[test]
fn a_16_gib_card() {
    insta::assert_snapshot!(planned(&short(&["--vram", "16GiB", "--ram", "100GiB"])));
}

#[test]
fn a_24_gib_card() {
    insta::assert_snapshot!(planned(&short(&["--vram", "24GiB", "--ram", "100GiB"])));
}

#[test]
fn a_24_gib_card_with_long_contexts() {
    let long = ["--context", "32768", "--parallel", "4"];
    insta::assert_snapshot!(planned(&[&["--vram", "24GiB", "--ram", "100GiB"][..], &long].concat()));
}

#[test]
fn an_8_gib_card() {
    insta::assert_snapshot!(planned(&short(&["--vram", "8GiB", "--ram", "100GiB"])));
}

#[test]
fn unified_memory() {
    insta::assert_snapshot!(planned(&["--unified", "--ram", "128GiB"]));
}

#[test]
fn no_gpu() {
    insta::assert_snapshot!(planned(&short(&["--vram", "0", "--ram", "100GiB"])));
}

#[test]
fn a_card_for_everything() {
    insta::assert_snapshot!(planned(&short(&["--vram", "80GiB", "--ram", "100GiB"])));
}

#[test]
fn what_does_not_fit() {
    let cases = [
        &["--vram", "16GiB", "--ram", "32GiB"][..],
        &[
            "--vram",
            "0",
            "--ram",
            "64GiB",
            "--context",
            "131072",
            "--parallel",
            "4",
        ],
        &["--unified", "--ram", "64GiB", "--context", "131072", "--parallel", "4"],
        &[
            "--vram",
            "16GiB",
            "--ram",
            "16GiB",
            "--context",
            "2048",
            "--parallel",
            "1",
        ],
    ];
    let told: Vec<String> = cases
        .iter()
        .map(|args| format!("{}\n{}", args.join(" "), refused(args)))
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

/// models.toml with these models, as a stranger would begin.
fn shipped() -> String {
    let [mixture, dense] = models();
    let text = include_str!("../models.toml")
        .replace("models/Qwen3-Next-80B-A3B-Instruct-Q4_K_M.gguf", &mixture)
        .replace("models/MN-12B-Mag-Mell-R1-Q4_K_M.gguf", &dense);
    assert!(text.contains(&mixture) && text.contains(&dense));
    let path = Path::new(&mixture).with_file_name("models.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_shipped_configuration() {
    let config = shipped();
    for vram in ["24GiB", "16GiB", "12GiB"] {
        let output = hearth(&["--config", &config, "--vram", vram, "--ram", "100GiB", "--why"]);
        assert!(output.status.success(), "{output:?}");
        let told = String::from_utf8(output.stdout).unwrap();
        insta::assert_snapshot!(format!("the_shipped_configuration_on_{vram}"), told);
    }
}

#[test]
fn the_large_model_alone_on_an_8_gib_card() {
    let [mixture, _] = models();
    let output = hearth(&["--gguf", &mixture, "--vram", "8GiB", "--ram", "100GiB", "--why"]);
    assert!(output.status.success(), "{output:?}");
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}

/// For programs: what `--why` tells, too.
#[test]
fn why_as_json() {
    let args = ["--config", &shipped(), "--vram", "24GiB", "--ram", "100GiB", "--json"];
    let told = |more: &[&str]| -> serde_json::Value {
        let output = hearth(&[&args[..], more].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert!(told(&[]).get("why").is_none());
    let why = &told(&["--why"])["why"];
    let alternatives = why["alternatives"].as_array().unwrap();
    assert!(alternatives.len() > 5, "{why}");
    // Nothing would be better; what does not fit comes last.
    // Whether drafts pay is measured when the model is loaded.
    let chosen = alternatives.iter().filter(|other| other["change"] != "no drafts");
    assert!(
        chosen
            .filter_map(|other| other["better"].as_f64())
            .all(|better| better < 0.01),
        "{why}"
    );
    let better: Vec<Option<f64>> = alternatives.iter().map(|other| other["better"].as_f64()).collect();
    assert!(
        better.is_sorted_by(|a, b| a.unwrap_or(f64::MIN) >= b.unwrap_or(f64::MIN)),
        "{why}"
    );
}

#[test]
fn settings_come_from_the_configuration() {
    let [mixture, dense] = models();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("models.toml");
    let text = format!(
        "[memory]\nvram = \"20GiB\"\n\n[[model]]\nname = \"reasoner\"\npath = {mixture:?}\nkv_type = \"q8_0\"\n\
         context = 32768\nparallel = 4\nexperts = {{ cache = \"10%\" }}\n\n[[model]]\nname = \"narrator\"\npath = {dense:?}\n\
         context = 32768\nparallel = \"auto\"\ngpu_layers = 10\n"
    );
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let output = hearth(&["--config", config, "--vram", "24GiB", "--ram", "100GiB", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["tiers"][0]["budget"], 20_u64 << 30);
    let (reasoner, narrator) = (&plan["models"][0], &plan["models"][1]);
    assert_eq!(reasoner["experts"]["placement"], "cache");
    assert_eq!(reasoner["experts"]["capacity"], 51);
    assert_eq!(reasoner["experts"]["slots"], 51, "the old name");
    assert_eq!(reasoner["context"]["kv_type"], "q8_0");
    assert_eq!(narrator["gpu_layers"], 10);
    assert_eq!(narrator["context"]["tokens"], 32_768);
    assert!(narrator["decode"]["tokens_per_second"].as_f64().unwrap() > 1.0);
}

/// All that Qwen3-Next was trained for on a card, and a million tokens in one memory, without maps of the file.
#[test]
fn long_contexts_say_what_they_take() {
    let [mixture, _] = models();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("models.toml");
    let planned = |keys: &str, machine: &[&str]| {
        let text = format!("[[model]]\nname = \"reasoner\"\npath = {mixture:?}\nparallel = 1\n{keys}\n");
        std::fs::write(&config, text).unwrap();
        let output = hearth(&[&["--config", config.to_str().unwrap()], machine].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let card = planned("context = 262144", &["--vram", "24GiB", "--ram", "100GiB"]);
    let spark = planned(
        "context = 1010000\nrope = { yarn = 4.0 }\nkv_type = \"q8_0/q4_0\"",
        &["--unified", "--ram", "128GiB"],
    );
    insta::assert_snapshot!(format!("{card}\n{spark}"));
}

#[test]
fn stretched_files_are_not_stretched_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    header(&file, Arch::GptOss, "20b");
    let config = folder.path().join("models.toml");
    let text = format!("[[model]]\nname = \"oss\"\npath = {file:?}\nrope = {{ yarn = 2.0 }}\n");
    std::fs::write(&config, text).unwrap();
    let output = hearth(&["--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("leave `rope` out"), "{stderr}");
}

#[test]
fn this_machine_and_the_built_in_pair() {
    let text = String::from_utf8(hearth(&[]).stdout).unwrap();
    assert!(
        text.starts_with("machine: ") && text.contains("demo-narrator"),
        "{text}"
    );
    let output = hearth(&["--vram", "16G"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("write \"16GiB\" (1024s) or \"16GB\" (1000s)"),
        "{stderr}"
    );
}
