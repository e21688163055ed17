//! `hearth quantize`: files that llama.cpp makes smaller, and that answer afterwards.

#[path = "common/command.rs"]
mod command;

use std::path::Path;
use std::process::Output;

use hearth::gguf::{Gguf, GgufWriter, TensorType, file_type_name};
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use serde_json::Value;

fn model(path: &Path, arch: Arch, mix: &str) -> String {
    let shape = Shape::preset(arch, "tiny").unwrap();
    let synthetic = Synthetic::new(shape, Mix::from_name(mix).unwrap());
    synthetic.write(path, |_, _| ()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn quantize(args: &[&str]) -> Output {
    command::hearth(&["quantize"]).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn files_become_smaller_and_still_answer() {
    let folder = tempfile::tempdir().unwrap();
    let input = model(&folder.path().join("f16.gguf"), Arch::Qwen3next, "f16");
    let mut sizes = vec![Gguf::open(&input).unwrap().size_bytes()];
    for (name, file_type) in [
        ("q8_0", "Q8_0"),
        ("q4_k_m", "Q4_K_M"),
        ("mxfp4", "MXFP4"),
        ("nvfp4", "NVFP4"),
    ] {
        let to = folder.path().join(format!("{name}.gguf"));
        let to = to.to_str().unwrap();
        let planned = quantize(&[&input, to, "--type", name, "--dry-run", "--json"]);
        assert!(planned.status.success(), "{}", stderr(&planned));
        assert!(!Path::new(to).exists(), "a dry run writes nothing");
        let planned: Value = serde_json::from_slice(&planned.stdout).unwrap();
        let made = quantize(&[&input, to, "--type", name, "--threads", "2", "--json"]);
        assert!(made.status.success(), "{}", stderr(&made));
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        let file = Gguf::open(to).unwrap();
        assert_eq!(made["bytes"], file.size_bytes());
        let (planned, bytes) = (planned["bytes"].as_u64().unwrap(), file.size_bytes());
        assert!(
            planned.abs_diff(bytes) < 11_000,
            "{planned} was predicted, {bytes} came"
        );
        let said = file.geometry().unwrap().file_type.and_then(file_type_name);
        assert_eq!(said, Some(file_type));
        sizes.push(bytes);
        if name == "nvfp4" || name == "mxfp4" {
            let expert = file
                .tensors()
                .iter()
                .find(|tensor| tensor.name.contains("_exps.weight"))
                .unwrap();
            assert_eq!(expert.kind.name, file_type);
        }
        let answer = command::hearth(&["generate", "hello", "--model-path", to, "-n", "4", "--json"])
            .output()
            .unwrap();
        assert!(answer.status.success(), "{name}: {}", stderr(&answer));
        let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert!(answer["completion_tokens"].as_u64().unwrap() > 0);
    }
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
    assert_eq!(names(folder.path()).len(), 5, "nothing else stays");
}

#[test]
fn what_cannot_be_is_said_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let input = model(&folder.path().join("f16.gguf"), Arch::Llama, "f16");
    let small = model(&folder.path().join("q8_0.gguf"), Arch::Llama, "q8_0");
    let there = folder.path().join("there.gguf");
    std::fs::write(&there, b"mine").unwrap();
    let there = there.to_str().unwrap();
    let new = folder.path().join("new.gguf");
    let new = new.to_str().unwrap();
    let text = folder.path().join("text.gguf");
    std::fs::write(&text, b"no model").unwrap();
    let text = text.to_str().unwrap();
    for (args, code, says) in [
        (&[input.as_str(), there, "--type", "q4_0"][..], 1, "--force replaces it"),
        (
            &[&input, &input, "--type", "q4_0", "--force"],
            2,
            "read and written at once",
        ),
        (&[&input, new, "--type", "q9"], 2, "known are"),
        (&[&input, new], 2, "--type"),
        (&[&small, new, "--type", "q4_0"], 1, "--allow-requantize"),
        (&[&input, new, "--type", "iq2_xxs"], 1, "--imatrix"),
        (&[text, new, "--type", "q4_0"], 1, "is not `GGUF`"),
        (
            &[&input, new, "--type", "q4_0", "--imatrix", text],
            1,
            "no importance matrix",
        ),
        (
            &[&input, "/nowhere/new.gguf", "--type", "q4_0"],
            1,
            "cannot write to /nowhere",
        ),
    ] {
        let refused = quantize(args);
        assert_eq!(refused.status.code(), Some(code), "{args:?}: {}", stderr(&refused));
        assert!(stderr(&refused).contains(says), "{args:?}: {}", stderr(&refused));
    }
    assert_eq!(std::fs::read(there).unwrap(), b"mine");
    assert_eq!(
        names(folder.path()),
        ["f16.gguf", "q8_0.gguf", "text.gguf", "there.gguf"]
    );
    let again = quantize(&[&small, new, "--type", "q4_0", "--allow-requantize"]);
    assert!(again.status.success(), "{}", stderr(&again));
    let forced = quantize(&[&input, there, "--type", "q4_0", "--force"]);
    assert!(
        forced.status.success() && Gguf::open(there).is_ok(),
        "{}",
        stderr(&forced)
    );
}

#[test]
fn importance_matrices_make_small_types_possible() {
    let folder = tempfile::tempdir().unwrap();
    let input = model(&folder.path().join("f16.gguf"), Arch::Llama, "f16");
    let matrix = folder.path().join("imatrix.gguf");
    let file = Gguf::open(&input).unwrap();
    let kind = TensorType::from_name("F32").unwrap();
    let mut writer = GgufWriter::new();
    writer.str("general.type", "imatrix");
    for tensor in file.tensors().iter().filter(|tensor| tensor.dimensions > 1) {
        writer.tensor(&format!("{}.in_sum2", tensor.name), kind, &[tensor.shape[0]]);
        writer.tensor(&format!("{}.counts", tensor.name), kind, &[1]);
    }
    // Counts of zero stand for columns that are all alike.
    std::fs::write(&matrix, writer.zeros()).unwrap();
    let to = folder.path().join("small.gguf");
    let args = [
        &input,
        to.to_str().unwrap(),
        "--type",
        "iq2_xxs",
        "--imatrix",
        matrix.to_str().unwrap(),
    ];
    let made = quantize(&args);
    assert!(made.status.success(), "{}", stderr(&made));
    let small = Gguf::open(&to).unwrap();
    assert!(small.tensors().iter().any(|tensor| tensor.kind.name == "IQ2_XXS"));
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f16.gguf");
    let shape = Shape {
        layers: 24,
        experts: 64,
        ..Shape::preset(Arch::Qwen3moe, "tiny").unwrap()
    };
    let synthetic = Synthetic::new(shape, Mix::from_name("f16").unwrap());
    synthetic.write(&path, |_, _| ()).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hearth"))
        .args(["quantize", path.to_str().unwrap()])
        .arg(folder.path().join("out.gguf"))
        .args(["--type", "q2_k", "--threads", "1"])
        .spawn()
        .unwrap();
    while names(folder.path()).len() == 1 {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it could be interrupted"
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let id = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-s", "INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert_eq!(names(folder.path()), ["f16.gguf"]);
}

#[test]
fn what_a_killed_run_has_left_goes_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let input = model(&folder.path().join("f16.gguf"), Arch::Llama, "f16");
    let left = std::fs::File::create(folder.path().join(".quantizing-left")).unwrap();
    left.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60))
        .unwrap();
    drop(left);
    let to = folder.path().join("q8_0.gguf");
    let made = quantize(&[&input, to.to_str().unwrap(), "--type", "q8_0"]);
    assert!(made.status.success(), "{}", stderr(&made));
    assert_eq!(names(folder.path()), ["f16.gguf", "q8_0.gguf"]);
}

#[test]
fn types_are_listed() {
    let listed = quantize(&["--list"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in ["q4_k_m", "nvfp4", "iq1_s", "4.50"] {
        assert!(text.contains(name), "{text}");
    }
    let types: Value = serde_json::from_slice(&quantize(&["--list", "--json"]).stdout).unwrap();
    assert_eq!(types[0]["bits_per_weight"], 32.0);
}
