//! The corpus of damaged model files in `tests/data/gguf`, and what the reader says about each.
//!
//! The files are made here. `HEARTH_BLESS=1 cargo test --release --test gguf` writes them anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hearth::gguf::{Gguf, GgufError, GgufWriter, TENSOR_TYPES, TensorType};
use proptest::prelude::*;

const FOLDER: &str = "tests/data/gguf";
const F32: TensorType = TENSOR_TYPES[0];

/// Metadata of a small mixture-of-experts model, and a vocabulary of 4 tokens.
fn metadata() -> GgufWriter {
    let mut writer = GgufWriter::new();
    writer
        .str("general.architecture", "qwen3next")
        .u32("qwen3next.block_count", 4)
        .u32("qwen3next.context_length", 64)
        .u32("qwen3next.embedding_length", 16)
        .u32("qwen3next.attention.head_count", 4)
        .u32("qwen3next.expert_count", 8)
        .u32("qwen3next.expert_used_count", 2)
        .str("tokenizer.ggml.model", "gpt2")
        .strings("tokenizer.ggml.tokens", &["a", "b", "", "<e>"]);
    writer
}

/// The whole model, as far as the reader cares.
fn model() -> GgufWriter {
    let mut writer = metadata();
    writer
        .i32s("tokenizer.ggml.token_type", &[1, 1, 1, 3])
        .u32("tokenizer.ggml.eos_token_id", 3);
    writer.tensor("token_embd.weight", F32, &[16, 4]);
    writer.tensor("output_norm.weight", F32, &[16]);
    writer
}

fn with(add: impl FnOnce(&mut GgufWriter)) -> Vec<u8> {
    let mut writer = model();
    add(&mut writer);
    writer.zeros()
}

/// A model without the parts of [`model`] that `add` sets itself.
fn anew(add: impl FnOnce(&mut GgufWriter)) -> Vec<u8> {
    let mut writer = metadata();
    add(&mut writer);
    writer.zeros()
}

/// The good file with `bytes` in place of those that begin `behind` bytes behind the first `mark`.
fn patched(mark: &[u8], behind: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = model().zeros();
    let at = file.windows(mark.len()).position(|window| window == mark).unwrap() + mark.len() + behind;
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn header(version: u32, tensors: u64, entries: u64, rest: &[u8]) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(version.to_le_bytes());
    file.extend(tensors.to_le_bytes());
    file.extend(entries.to_le_bytes());
    file.extend(rest);
    file
}

fn part(number: u16, count: u16, tensor: &str) -> Vec<u8> {
    let mut writer = if number == 0 { model() } else { GgufWriter::new() };
    writer.u16("split.no", number).u16("split.count", count);
    writer.tensor(tensor, F32, &[16]);
    writer.zeros()
}

/// Names without `.gguf`, and contents.
fn corpus() -> BTreeMap<String, Vec<u8>> {
    let good = model().zeros();
    let embedding = b"token_embd.weight";
    let norm = b"output_norm.weight";
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut add = |name: &str, content: Vec<u8>| assert!(files.insert(name.to_owned(), content).is_none(), "{name}");
    // Not GGUF, or another one.
    add("empty", Vec::new());
    add("three-bytes", b"GGU".to_vec());
    add("zip", b"PK\x03\x04 is another kind of file".to_vec());
    add(
        "big-endian",
        [b"GGUF".as_slice(), &3u32.to_be_bytes(), &[0; 16]].concat(),
    );
    add("version-0", header(0, 0, 0, b""));
    add("version-1", header(1, 0, 0, b""));
    add("version-4", header(4, 0, 0, b""));
    // Cut off.
    add("cut-in-header", good[..20].to_vec());
    add("cut-in-metadata", good[..200].to_vec());
    add("cut-in-directory", good[..good.len() - 420].to_vec());
    add("cut-in-data", good[..good.len() - 1].to_vec());
    // Counts and lengths that the file has no bytes for.
    add("tensor-count-2-60", header(3, 1 << 60, 0, &[0; 64]));
    add("metadata-count-2-64", header(3, 0, u64::MAX, &[0; 64]));
    add(
        "key-length-2-63",
        header(3, 0, 1, &(1u64 << 63).to_le_bytes().repeat(4)),
    );
    add(
        "string-length",
        patched(b"general.architecture", 4, &u64::MAX.to_le_bytes()),
    );
    add(
        "array-length",
        patched(b"tokenizer.ggml.tokens", 8, &(1u64 << 61).to_le_bytes()),
    );
    // Metadata.
    add(
        "key-empty",
        anew(|w| {
            w.u32("", 1);
        }),
    );
    add(
        "key-twice",
        with(|w| {
            w.u32("qwen3next.block_count", 4);
        }),
    );
    add("key-not-utf8", patched(b"general.architectur", 0, b"\xff"));
    add(
        "key-steers-terminal",
        with(|w| {
            w.u32("\x1b[2Jx", 1).u32("\x1b[2Jx", 1);
        }),
    );
    add("value-not-utf8", patched(b"qwen3n", 0, b"\xc3"));
    add(
        "type-unknown",
        patched(b"qwen3next.block_count", 0, &13u32.to_le_bytes()),
    );
    add(
        "array-of-arrays",
        patched(b"tokenizer.ggml.tokens", 4, &9u32.to_le_bytes()),
    );
    add("bool-2", {
        let mut file = with(|w| {
            w.bool("x.bool", true);
        });
        let at = file.windows(6).position(|window| window == b"x.bool").unwrap();
        file[at + 10] = 2;
        file
    });
    add(
        "alignment-0",
        with(|w| {
            w.u32("general.alignment", 0);
        }),
    );
    add(
        "alignment-48",
        with(|w| {
            w.u32("general.alignment", 48);
        }),
    );
    add(
        "alignment-2-31",
        with(|w| {
            w.u32("general.alignment", 1 << 31);
        }),
    );
    // The tensor directory.
    add(
        "tensor-twice",
        with(|w| {
            w.tensor("output_norm.weight", F32, &[16]);
        }),
    );
    add(
        "tensor-name-empty",
        with(|w| {
            w.tensor("", F32, &[16]);
        }),
    );
    add(
        "tensor-name-64",
        with(|w| {
            w.tensor(&"x".repeat(64), F32, &[16]);
        }),
    );
    add("tensor-0-dimensions", patched(embedding, 0, &0u32.to_le_bytes()));
    add("tensor-5-dimensions", patched(embedding, 0, &5u32.to_le_bytes()));
    add("tensor-dimension-0", patched(embedding, 4, &0u64.to_le_bytes()));
    add(
        "tensor-shape-overflow",
        patched(embedding, 4, &(1u64 << 62).to_le_bytes()),
    );
    add("tensor-type-removed", patched(embedding, 20, &4u32.to_le_bytes()));
    add("tensor-type-unknown", patched(embedding, 20, &1000u32.to_le_bytes()));
    add("tensor-half-blocks", patched(embedding, 20, &8u32.to_le_bytes()));
    add("tensor-misaligned", patched(norm, 16, &257u64.to_le_bytes()));
    add(
        "tensor-offset-overflow",
        patched(norm, 16, &(u64::MAX - 31).to_le_bytes()),
    );
    add("tensor-outside", patched(norm, 16, &4096u64.to_le_bytes()));
    add("tensor-overlap", patched(norm, 16, &224u64.to_le_bytes()));
    add("tensor-gap", {
        let mut file = patched(norm, 16, &288u64.to_le_bytes());
        file.extend([0; 32]);
        file
    });
    // What the metadata says about the model. llama.cpp aborts on most of these.
    add("no-architecture", GgufWriter::new().str("general.name", "x").zeros());
    add("blocks-0", patched(b"qwen3next.block_count", 4, &0u32.to_le_bytes()));
    add(
        "blocks-513",
        patched(b"qwen3next.block_count", 4, &513u32.to_le_bytes()),
    );
    add(
        "blocks-all-mtp",
        with(|w| {
            w.u32("qwen3next.nextn_predict_layers", 4);
        }),
    );
    add(
        "embedding-0",
        patched(b"qwen3next.embedding_length", 4, &0u32.to_le_bytes()),
    );
    add(
        "experts-1025",
        patched(b"qwen3next.expert_count", 4, &1025u32.to_le_bytes()),
    );
    add(
        "experts-used-0",
        patched(b"qwen3next.expert_used_count", 4, &0u32.to_le_bytes()),
    );
    add(
        "experts-used-9",
        patched(b"qwen3next.expert_used_count", 4, &9u32.to_le_bytes()),
    );
    add(
        "expert-groups-3",
        with(|w| {
            w.u32("qwen3next.expert_group_count", 3);
        }),
    );
    add(
        "expert-groups-used-0",
        with(|w| {
            w.u32("qwen3next.expert_group_count", 2);
        }),
    );
    add(
        "heads-3-of-4",
        with(|w| {
            w.u32("qwen3next.attention.head_count_kv", 3);
        }),
    );
    add(
        "heads-per-block-3",
        with(|w| {
            w.u32s("qwen3next.attention.head_count_kv", &[2, 2, 2]);
        }),
    );
    add(
        "rope-odd",
        with(|w| {
            w.u32("qwen3next.rope.dimension_count", 3);
        }),
    );
    add(
        "rope-wide",
        with(|w| {
            w.u32("qwen3next.rope.dimension_count", 8);
        }),
    );
    add(
        "rope-scaling-unknown",
        with(|w| {
            w.str("qwen3next.rope.scaling.type", "new");
        }),
    );
    add(
        "attention-interval-0",
        with(|w| {
            w.u32("qwen3next.full_attention_interval", 0);
        }),
    );
    add(
        "state-heads",
        with(|w| {
            w.u32("qwen3next.ssm.conv_kernel", 4)
                .u32("qwen3next.ssm.inner_size", 16);
            w.u32("qwen3next.ssm.time_step_rank", 4)
                .u32("qwen3next.ssm.group_count", 3);
        }),
    );
    add(
        "state-negative",
        with(|w| {
            w.i32("qwen3next.ssm.state_size", -1);
        }),
    );
    add(
        "number-as-text",
        with(|w| {
            w.str("qwen3next.feed_forward_length", "64");
        }),
    );
    // The vocabulary.
    add(
        "no-vocabulary",
        GgufWriter::new()
            .str("general.architecture", "x")
            .u32("x.block_count", 1)
            .u32("x.context_length", 1)
            .u32("x.embedding_length", 1)
            .zeros(),
    );
    add(
        "token-types-short",
        anew(|w| {
            w.i32s("tokenizer.ggml.token_type", &[1, 1]);
        }),
    );
    add(
        "token-types-u8",
        anew(|w| {
            w.u8s("tokenizer.ggml.token_type", &[1, 1, 1, 3]);
        }),
    );
    add(
        "scores-f64",
        with(|w| {
            w.f64s("tokenizer.ggml.scores", &[0.0; 4]);
        }),
    );
    add(
        "scores-long",
        with(|w| {
            w.f32s("tokenizer.ggml.scores", &[0.0; 5]);
        }),
    );
    add(
        "merges-numbers",
        with(|w| {
            w.u32s("tokenizer.ggml.merges", &[1]);
        }),
    );
    add("tokens-same", patched(b"\x01\0\0\0\0\0\0\0", 9, b"a"));
    add(
        "token-id-outside",
        patched(b"tokenizer.ggml.eos_token_id", 4, &4u32.to_le_bytes()),
    );
    add(
        "bos-missing",
        with(|w| {
            w.bool("tokenizer.ggml.add_bos_token", true);
        }),
    );
    add(
        "embedding-rows",
        anew(|w| {
            w.tensor("token_embd.weight", F32, &[16, 5]);
        }),
    );
    // Models in several files.
    add("missing-part-00001-of-00002", part(0, 2, "x"));
    add("name-without-number", part(0, 2, "x"));
    add("second-part", part(1, 2, "y"));
    add("wrong-number-00001-of-00002", part(0, 2, "x"));
    add("wrong-number-00002-of-00002", part(2, 2, "y"));
    add("wrong-count-00001-of-00002", part(0, 2, "x"));
    add("wrong-count-00002-of-00002", part(1, 3, "y"));
    add("tensor-in-both-00001-of-00002", part(0, 2, "x"));
    add("tensor-in-both-00002-of-00002", part(1, 2, "x"));
    add("number-u32-00001-of-00002", part(0, 2, "x"));
    add(
        "number-u32-00002-of-00002",
        GgufWriter::new().u32("split.no", 1).u16("split.count", 2).zeros(),
    );
    add(
        "tensors-missing-00001-of-00002",
        with(|w| {
            w.u16("split.no", 0).u16("split.count", 2).i32("split.tensors.count", 9);
        }),
    );
    add("tensors-missing-00002-of-00002", part(1, 2, "y"));
    files
}

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.gguf"))
}

#[test]
fn the_sound_model_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sound.gguf");
    std::fs::write(&file, model().zeros()).unwrap();
    let geometry = Gguf::open(&file).unwrap().geometry().unwrap();
    assert_eq!((geometry.experts, geometry.experts_per_token), (8, 2));
    assert_eq!(geometry.tokenizer.eos_text, "<e>");
}

#[test]
fn the_corpus_is_what_the_code_makes() {
    let corpus = corpus();
    if std::env::var_os("HEARTH_BLESS").is_some() {
        std::fs::create_dir_all(FOLDER).unwrap();
        for (name, content) in &corpus {
            std::fs::write(path(name), content).unwrap();
        }
    }
    let mut present: Vec<String> = std::fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    present.sort();
    let expected: Vec<String> = corpus.keys().map(|name| format!("{name}.gguf")).collect();
    assert_eq!(present, expected);
    for (name, content) in &corpus {
        assert!(content.len() < 2048, "{name} is large");
        assert!(
            std::fs::read(path(name)).unwrap() == *content,
            "{name} differs; see the top of this file"
        );
    }
}

#[test]
fn each_damage_has_its_message() {
    let mut report = String::new();
    for name in corpus().keys() {
        let file = path(name);
        let error = match Gguf::open(&file).and_then(|gguf| gguf.geometry().map(drop)) {
            Ok(()) => panic!("{name} was accepted"),
            // A file that is not there is no proof of anything, except for the part that is missing on purpose.
            Err(GgufError::Io { path, reason }) if !name.starts_with("missing-part") => {
                panic!("{}: {reason}", path.display())
            }
            Err(error) => error.to_string(),
        };
        assert!(!error.chars().any(char::is_control), "{name}: {error:?}");
        let error = error.replace(&format!("{FOLDER}/"), "");
        report += &format!("{name}\n    {error}\n");
    }
    insta::assert_snapshot!(report);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_files_of_the_corpus_never_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 1usize..=8), 0..4),
        cut in any::<prop::sample::Index>(),
        shorten in prop::bool::weighted(0.2),
    ) {
        let corpus: Vec<Vec<u8>> = corpus().into_values().filter(|content| !content.is_empty()).collect();
        let mut content = which.get(&corpus).clone();
        for (at, value, length) in changes {
            let at = at.index(content.len());
            let length = length.min(content.len() - at);
            content[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
        }
        if shorten {
            content.truncate(cut.index(content.len()));
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &content).unwrap();
        if let Ok(gguf) = Gguf::open(file.path()) {
            let _ = gguf.geometry();
            for tensor in gguf.tensors() {
                prop_assert_eq!(gguf.data(tensor).len() as u64, tensor.bytes);
            }
        }
    }
}
