//! Random models of real architectures, through the real engine.

#[path = "common/command.rs"]
mod command;

use std::path::Path;
use std::process::Output;

fn hearth(args: &[&str]) -> Output {
    command::hearth(args).output().unwrap()
}

fn make(path: &Path, args: &[&str]) {
    let mut all = vec!["synthetic-gguf", "--output", path.to_str().unwrap()];
    all.extend(args);
    let output = hearth(&all);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Greedy tokens of a model, with everything that went wrong.
fn generate(path: &Path) -> String {
    let output = hearth(&[
        "generate",
        "w1 w2 w3",
        "--raw",
        "--temperature",
        "0",
        "--max-tokens",
        "16",
        "--threads",
        "2",
        "--model-path",
        path.to_str().unwrap(),
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", path.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn llama_cpp_computes_every_architecture() {
    let folder = tempfile::tempdir().unwrap();
    for arch in ["qwen3next", "qwen3moe", "gpt-oss", "llama"] {
        for kind in ["f16", "q4_0", "q4_k_m", "iq4_xs", "mxfp4", "nvfp4"] {
            let path = folder.path().join(format!("{arch}-{kind}.gguf"));
            make(&path, &["--arch", arch, "--type", kind]);
            assert!(!generate(&path).trim().is_empty(), "{arch} {kind}");
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_block_for_multi_token_prediction_is_no_hindrance() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mtp.gguf");
    make(&path, &["--arch", "qwen3next", "--mtp", "--skew", "1"]);
    generate(&path);
}

#[test]
fn long_runs_of_one_character_do_not_overflow_the_stack() {
    let folder = tempfile::tempdir().unwrap();
    for arch in ["llama", "gpt-oss", "qwen3next"] {
        let path = folder.path().join(format!("{arch}.gguf"));
        make(&path, &["--arch", arch]);
        for unit in ["a", " ", "!", "中", "\n"] {
            let prompt = unit.repeat(100_000 / unit.len());
            let output = hearth(&[
                "generate",
                &prompt,
                "--raw",
                "--max-tokens",
                "1",
                "--model-path",
                path.to_str().unwrap(),
            ]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{arch} {unit:?}: {stderr}");
            assert!(stderr.contains("context"), "{arch} {unit:?}: {stderr}");
        }
    }
}

#[test]
fn files_are_not_replaced_unasked_and_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, "precious").unwrap();
    let file = path.to_str().unwrap();
    for (args, expect) in [
        (vec!["--arch", "llama"], "--force"),
        (vec!["--arch", "llama", "--preset", "huge"], "mag-mell-12b"),
        (vec!["--arch", "llama", "--force", "--type", "q9"], "q4_k_m"),
        (vec!["--arch", "llama", "--force", "--mtp"], "no MTP block"),
        (vec!["--arch", "llama", "--force", "--skew", "11"], "--skew"),
    ] {
        let mut all = vec!["synthetic-gguf", "--output", file];
        all.extend(args);
        let output = hearth(&all);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(expect),
            "{expect}: {stderr}"
        );
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
