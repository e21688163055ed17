//! Files that are sound as files, and do not compute: the reason reaches who asked.

#[path = "common/command.rs"]
mod command;

use std::path::Path;

use hearth::gguf::Gguf;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};

/// A small random model, whose bytes `damage` may change.
fn model(path: &Path, damage: impl FnOnce(&Gguf, &mut [u8])) {
    let shape = Shape::preset(Arch::Llama, "tiny").unwrap();
    let mix = Mix::from_name("f16").unwrap();
    Synthetic::new(shape, mix).write(path, |_, _| ()).unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    damage(&Gguf::open(path).unwrap(), &mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Asks the command for a few tokens; returns its exit code and what it says of errors.
fn generate(path: &Path) -> (Option<i32>, String) {
    let args = [
        "generate",
        "hello",
        "--raw",
        "--max-tokens",
        "4",
        "--context",
        "256",
        "--model-path",
    ];
    let output = command::hearth(&args).arg(path).output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nan.gguf");
    model(&path, |gguf, bytes| {
        let norm = gguf
            .tensors()
            .iter()
            .find(|tensor| tensor.name == "output_norm.weight")
            .unwrap();
        let data = gguf.data(norm);
        // The data are a part of the map of the same bytes.
        let start = bytes.windows(data.len()).rposition(|window| window == data).unwrap();
        for weight in bytes[start..start + data.len()].as_chunks_mut::<4>().0 {
            weight.copy_from_slice(&f32::NAN.to_le_bytes());
        }
    });
    let (code, errors) = generate(&path);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("NaN"), "{errors}");
}

#[test]
fn what_llama_cpp_says_of_a_file_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing.gguf");
    model(&path, |_, bytes| {
        let name = b"blk.0.attn_norm.weight";
        let start = bytes.windows(name.len()).position(|window| window == name).unwrap();
        bytes[start + 6] = b'X';
    });
    let (code, errors) = generate(&path);
    assert_eq!(code, Some(1), "{errors}");
    assert!(
        errors.contains("blk.0.attn_norm.weight") && !errors.contains("null"),
        "{errors}"
    );
}
