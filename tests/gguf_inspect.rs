//! `hearth inspect` and the loading of damaged files, seen from outside.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use hearth::gguf::{GgufWriter, TENSOR_TYPES, TensorType};

fn hearth(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("hearth"));
    command.args(args).env_remove("HEARTH_LOG");
    command
}

fn run(args: &[&str]) -> Output {
    hearth(args).output().unwrap()
}

fn damaged() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir("tests/data/gguf")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 50);
    files
}

/// A header with the geometry of a mixture-of-experts model, in a file of its own.
fn sound(folder: &tempfile::TempDir, tensors: u32) -> String {
    let mut writer = GgufWriter::new();
    writer
        .str("general.architecture", "qwen3next")
        .str("general.name", "tiny\x1b[2J")
        .u32("general.file_type", 15)
        .u32("qwen3next.block_count", 5)
        .u32("qwen3next.nextn_predict_layers", 1)
        .u32("qwen3next.context_length", 256)
        .u32("qwen3next.embedding_length", 256)
        .u32("qwen3next.attention.head_count", 4)
        .u32s("qwen3next.attention.head_count_kv", &[2; 5])
        .u32("qwen3next.full_attention_interval", 4)
        .u32("qwen3next.expert_count", 512)
        .u32("qwen3next.expert_used_count", 10)
        .u32("qwen3next.expert_shared_feed_forward_length", 64)
        .u32("qwen3next.ssm.conv_kernel", 4)
        .u32("qwen3next.ssm.inner_size", 128)
        .u32("qwen3next.ssm.state_size", 32)
        .u32("qwen3next.ssm.time_step_rank", 4)
        .u32("qwen3next.ssm.group_count", 2)
        .str("tokenizer.ggml.model", "gpt2");
    let tokens: Vec<String> = (0..100).map(|id| format!("token {id}")).collect();
    writer.strings("tokenizer.ggml.tokens", &tokens);
    let q4 = TensorType::from_name("Q4_K").unwrap();
    writer.tensor("token_embd.weight", TENSOR_TYPES[0], &[256, 100]);
    writer.tensor("blk.0.ffn_up_exps.weight", q4, &[256, 2, 512]);
    writer.tensor("blk.4.nextn.eh_proj.weight", q4, &[512, 2]);
    for number in 0..tensors {
        writer.tensor(&format!("blk.1.x{number}.weight"), TENSOR_TYPES[0], &[1]);
    }
    let file = folder.path().join("model.gguf");
    std::fs::write(&file, writer.zeros()).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn damaged_files_exit_with_1_and_one_line() {
    for file in damaged() {
        let name = file.to_str().unwrap();
        let output = run(&["inspect", name]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {:?} {stderr}", output.status);
        assert!(
            stderr.starts_with("error: ") && stderr.contains(".gguf: "),
            "{name}: {stderr}"
        );
        assert_eq!(stderr.trim_end().lines().count(), 1, "{name}: {stderr}");
        assert!(output.stdout.is_empty(), "{name}");
    }
}

#[test]
fn damaged_files_do_not_reach_llama_cpp() {
    for file in damaged() {
        let name = file.to_str().unwrap();
        let output = run(&["generate", "x", "--model-path", name]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        // 2 where the file is no GGUF at all: that is a mistake in the arguments. Never a signal.
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{name}: {:?} {stderr}",
            output.status
        );
        assert!(stderr.contains("error"), "{name}: {stderr}");
    }
}

#[test]
fn a_model_is_shown_to_people() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["inspect", "--tensors", &sound(&folder, 0)]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for expected in [
        r"tiny\u{1b}[2J",
        "Q4_K_M",
        "4, one in 4 with full attention, and 1 for multi-token prediction",
        "512 per layer, 10 per token + 1 shared",
        "2 key and 4 value heads of 32, convolution of 4",
        "routed experts",
        "MTP",
        "string[100]",
        "256 x 2 x 512",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn json_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    let file = sound(&folder, 0);
    let json = |args: &[&str]| -> serde_json::Value {
        let output = run(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let short = json(&["inspect", "--json", &file]);
    assert_eq!(short["file_type"], "Q4_K_M");
    assert_eq!(short["geometry"]["experts"], 512);
    assert_eq!(short["geometry"]["mtp_layers"], 1);
    assert_eq!(short["geometry"]["ssm"]["time_step_rank"], 4);
    assert_eq!(short["metadata"]["tokenizer.ggml.tokens"]["length"], 100);
    assert_eq!(short["tensors"][1]["shape"], serde_json::json!([256, 2, 512]));
    let all = json(&["inspect", "--json", "--all", &file]);
    assert_eq!(all["metadata"]["tokenizer.ggml.tokens"][99], "token 99");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    // More output than a pipe holds.
    let file = sound(&folder, 5000);
    let mut child = hearth(&["inspect", "--tensors", &file])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
