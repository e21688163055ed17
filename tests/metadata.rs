//! Metadata that llama.cpp aborts on, or computes with for ever: a sound model with one number changed is refused, by
//! `hearth inspect` and before it is served.

#[path = "common/command.rs"]
mod command;

use std::path::{Path, PathBuf};
use std::process::Output;

use hearth::synthetic::{Arch, Mix, Shape, Synthetic};

fn hearth(args: &[&str]) -> Output {
    command::hearth(args).output().unwrap()
}

/// A tiny sound model.
fn sound(folder: &Path, arch: Arch) -> PathBuf {
    let shape = Shape::preset(arch, "tiny").unwrap();
    let path = folder.join(format!("{}.gguf", arch.as_str()));
    let mix = Mix::from_name("f16").unwrap();
    Synthetic::new(shape, mix).write(&path, |_, _| ()).unwrap();
    path
}

/// A number of 32 bits.
#[derive(Debug, Clone, Copy)]
enum Number {
    Whole(u32),
    Decimal(f32),
}

/// The model with another number in the place of the one that `key` has.
fn changed(model: &[u8], key: &str, number: Number) -> Vec<u8> {
    let mut bytes = model.to_vec();
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes());
    // Behind the key stands the type, then the value.
    let at = at.unwrap_or_else(|| panic!("{key} is not in the model")) + key.len() + 4;
    let (kind, number) = match number {
        Number::Whole(number) => (4u32, number.to_le_bytes()),
        Number::Decimal(number) => (6u32, number.to_le_bytes()),
    };
    assert_eq!(bytes[at - 4..at], kind.to_le_bytes(), "the type of {key}");
    bytes[at..at + 4].copy_from_slice(&number);
    bytes
}

#[test]
fn numbers_that_llama_cpp_asserts_are_refused_with_key_value_and_reason() {
    use Number::{Decimal, Whole};
    const EPSILON: &str = "attention.layer_norm_rms_epsilon";
    const ROPE: &str = "rope.dimension_count";
    let every = [
        (EPSILON, Decimal(f32::NAN), "is NaN, which is no number to compute with"),
        (EPSILON, Decimal(-1e-6), "is -0.000001, but must not be negative"),
        (
            EPSILON,
            Decimal(f32::INFINITY),
            "is inf, which is no number to compute with",
        ),
        ("rope.freq_base", Decimal(0.0), "is 0, but must be above 0"),
        ("rope.freq_base", Decimal(f32::NAN), "is NaN, which is no number"),
        (ROPE, Whole(0), "is 0, but some elements of a head must be rotated"),
        (ROPE, Whole(3), "is 3, not an even number"),
        (ROPE, Whole(1 << 20), "is 1048576, more than the"),
        ("attention.value_length", Whole(2), "is 2, but keys have"),
        ("attention.head_count_kv", Whole(3), "does not divide"),
        ("block_count", Whole(0), "is missing or zero"),
        ("block_count", Whole(513), "is not a number from 0 to 512"),
        ("embedding_length", Whole(0), "is missing or zero"),
    ];
    let experts = [
        ("expert_count", Whole(1025), "is not a number from 0 to 1024"),
        ("expert_used_count", Whole(0), "is 0, but the model has"),
        ("expert_used_count", Whole(1 << 20), "is 1048576, but the model has"),
    ];
    let state = [
        ("ssm.inner_size", Whole(0), "is 0, but the model has recurrent layers"),
        ("ssm.inner_size", Whole(256), "is 256, but"),
        ("ssm.inner_size", Whole(1 << 20), "is 1048576, but"),
        ("ssm.state_size", Whole(0), "is 0, but the model has recurrent layers"),
        (
            "ssm.time_step_rank",
            Whole(0),
            "is 0, but the model has recurrent layers",
        ),
        ("ssm.group_count", Whole(0), "is 0, but the model has recurrent layers"),
        ("ssm.time_step_rank", Whole(3), "groups do not divide"),
        ("ssm.conv_kernel", Whole(0), "is 0, but the model has recurrent layers"),
        ("full_attention_interval", Whole(0), "is missing or zero"),
    ];
    let whole_heads = [(ROPE, Whole(2), "rotates all")];
    let window = [("attention.sliding_window", Whole(0), "is 0, but")];
    let cases = [
        (Arch::Qwen3next, [&every[..], &experts, &state].concat()),
        (Arch::Qwen3moe, [&every[..], &experts, &whole_heads].concat()),
        (Arch::GptOss, [&every[..], &experts, &whole_heads, &window].concat()),
        (Arch::Llama, [&every[..], &whole_heads].concat()),
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changed.gguf");
    for (arch, cases) in cases {
        let model = std::fs::read(sound(folder.path(), arch)).unwrap();
        for (name, number, reason) in cases {
            let key = format!("{}.{name}", arch.as_str());
            std::fs::write(&file, changed(&model, &key, number)).unwrap();
            let output = hearth(&["inspect", file.to_str().unwrap()]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{key} {number:?}: {stderr}");
            assert!(
                stderr.contains(&format!("{key}: ")) && stderr.contains(reason),
                "{key} {number:?}: {stderr}"
            );
        }
    }
}

#[test]
fn a_model_is_refused_before_llama_cpp_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = sound(folder.path(), Arch::Qwen3next);
    let generate = |path: &Path| {
        let path = path.to_str().unwrap();
        hearth(&[
            "generate",
            "w1",
            "--raw",
            "--max-tokens",
            "1",
            "--threads",
            "1",
            "--model-path",
            path,
        ])
    };
    let output = generate(&path);
    assert!(output.status.success(), "{output:?}");
    let model = std::fs::read(&path).unwrap();
    let nan = Number::Decimal(f32::NAN);
    std::fs::write(
        &path,
        changed(&model, "qwen3next.attention.layer_norm_rms_epsilon", nan),
    )
    .unwrap();
    let output = generate(&path);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("attention.layer_norm_rms_epsilon: is NaN"), "{stderr}");
}
