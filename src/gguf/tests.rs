use proptest::prelude::*;

use super::*;

const F32: TensorType = TENSOR_TYPES[0];

/// A small but complete model file.
fn model() -> GgufWriter {
    let mut writer = GgufWriter::new();
    writer
        .str("general.architecture", "llama")
        .str("general.name", "tiny")
        .u32("llama.block_count", 2)
        .u32("llama.context_length", 512)
        .u32("llama.embedding_length", 32)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .f32("llama.rope.freq_base", 10000.0)
        .bool("tokenizer.ggml.add_bos_token", false)
        .str("tokenizer.ggml.model", "gpt2")
        .strings("tokenizer.ggml.tokens", &["a", "b", "<s>", "ü"])
        .i32s("tokenizer.ggml.token_type", &[1, 1, 3, 1])
        .u32("tokenizer.ggml.eos_token_id", 2);
    writer.tensor("token_embd.weight", F32, &[32, 4]);
    writer.tensor("output_norm.weight", F32, &[32]);
    writer
}

fn open(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Gguf::open(file.path())
}

/// The error of a file made by `damage` from a good one, without its path.
#[track_caller]
fn refused(expect: &str, damage: impl FnOnce(&mut GgufWriter)) {
    let mut writer = model();
    damage(&mut writer);
    let bytes = writer.zeros();
    refused_bytes(expect, &bytes);
}

#[track_caller]
fn refused_bytes(expect: &str, bytes: &[u8]) {
    let message = match open(bytes).and_then(|gguf| gguf.geometry().map(|_| ())) {
        Ok(()) => panic!("was accepted, instead of: {expect}"),
        Err(error) => error.to_string(),
    };
    assert!(message.contains(expect), "{message}\ndoes not contain\n{expect}");
}

#[test]
fn a_good_file_is_read() {
    let gguf = open(&model().zeros()).unwrap();
    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.get("llama.rope.freq_base").and_then(|v| v.as_f64()), Some(10000.0));
    assert_eq!(gguf.get("tokenizer.ggml.add_bos_token"), Some(Value::Bool(false)));
    let tokens = gguf.get("tokenizer.ggml.tokens").and_then(|v| v.as_array()).unwrap();
    assert_eq!(tokens.iter().last(), Some(Value::String("ü")));
    assert_eq!(gguf.tensors()[0].dims(), [32, 4]);
    assert_eq!(gguf.data(&gguf.tensors()[1]).len(), 128);
    assert_eq!((gguf.parameters(), gguf.size_bytes()), (160, 640));
    let geometry = gguf.geometry().unwrap();
    assert_eq!((geometry.layers, geometry.mtp_layers, geometry.key_length), (2, 0, 8));
    assert_eq!(geometry.tokenizer.eos_text, "<s>");
    assert_eq!(geometry.tokenizer.vocabulary, 4);
}

#[test]
fn damaged_headers_are_named() {
    let good = model().zeros();
    refused_bytes("the magic number at byte 0: needs 4 bytes", b"GG");
    refused_bytes("is not `GGUF`", b"PK\x03\x04 and more");
    refused_bytes("big-endian", b"FUGG\x00\x00\x00\x03");
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    refused_bytes("the version at byte 4: is 1, which", &with(4, &1u32.to_le_bytes()));
    refused_bytes("the version at byte 4: is 77", &with(4, &77u32.to_le_bytes()));
    refused_bytes("big-endian", &with(4, &3u32.to_be_bytes()));
    refused_bytes(
        "the tensor count at byte 8: is 1152921504606846976",
        &with(8, &(1u64 << 60).to_le_bytes()),
    );
    refused_bytes("the metadata count at byte 16: is", &with(16, &u64::MAX.to_le_bytes()));
    refused_bytes(
        "the key of metadata entry 0 at byte 24: is",
        &with(24, &u64::MAX.to_le_bytes()),
    );
    refused_bytes("is not valid UTF-8", &with(32, b"\xFF"));
    refused_bytes("has the unknown type 99", &with(32 + 20, &99u32.to_le_bytes()));
    refused_bytes("the file ends at", &good[..good.len() - 1]);
    refused_bytes("the magic number", b"");
}

#[test]
fn damaged_metadata_is_named() {
    refused("general.name at byte", |w| {
        w.str("general.name", "again");
    });
    refused("general.alignment at byte", |w| {
        w.u32("general.alignment", 48);
    });
    refused("token_type: has 2 entries, but there are 4 tokens", |w| {
        *w = GgufWriter::new();
        w.str("general.architecture", "llama")
            .u32("llama.block_count", 1)
            .u32("llama.embedding_length", 8)
            .u32("llama.context_length", 8)
            .str("tokenizer.ggml.model", "gpt2")
            .strings("tokenizer.ggml.tokens", &["a", "b", "c", "d"])
            .i32s("tokenizer.ggml.token_type", &[1, 1]);
    });
    refused("bos_token_id: is 4, not one", |w| {
        w.u32("tokenizer.ggml.bos_token_id", 4);
    });
    refused("llama.expert_used_count: is 9, but the model has 8 experts", |w| {
        w.u32("llama.expert_count", 8).u32("llama.expert_used_count", 9);
    });
    refused("llama.nextn_predict_layers: is 2, but the model has only 2", |w| {
        w.u32("llama.nextn_predict_layers", 2);
    });
    refused("llama.ssm.state_size: is not a number", |w| {
        w.i64("llama.ssm.state_size", -1);
    });
    refused("general.architecture: is missing", |w| *w = GgufWriter::new());
}

#[test]
fn damaged_tensors_are_named() {
    let q4 = TensorType::from_name("q4_k").unwrap();
    refused("tensor output_norm.weight at byte", |w| {
        w.tensor("output_norm.weight", F32, &[32]);
    });
    refused("blocks of 256", |w| {
        w.tensor("x", q4, &[32, 4]);
    });
    refused("an empty dimension", |w| {
        w.tensor("x", F32, &[0]);
    });
    refused("has 5 dimensions", |w| {
        w.tensor("x", F32, &[1; 5]);
    });
    refused("has 64 bytes, but 1 to 63", |w| {
        w.tensor(&"x".repeat(64), F32, &[1]);
    });
    refused("which ggml does not know", |w| {
        w.tensor("x", TensorType { id: 4, ..F32 }, &[1]);
    });
    refused("the embedding has 5 rows", |w| {
        *w = GgufWriter::new();
        w.str("general.architecture", "llama")
            .u32("llama.block_count", 1)
            .u32("llama.embedding_length", 8)
            .u32("llama.context_length", 8)
            .str("tokenizer.ggml.model", "gpt2")
            .strings("tokenizer.ggml.tokens", &["a"])
            .tensor("token_embd.weight", F32, &[8, 5]);
    });
}

#[test]
fn absurd_shapes_do_not_overflow() {
    let mut file = model().zeros();
    let name = file.windows(17).position(|w| w == b"token_embd.weight").unwrap();
    let shape = name + 17 + 4;
    for size in [u64::MAX / 32 * 32, 1 << 62] {
        file[shape..shape + 8].copy_from_slice(&size.to_le_bytes());
        refused_bytes("which is larger than any file", &file);
    }
    file[shape..shape + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    refused_bytes("it may be cut off", &file);
}

#[test]
fn parts_of_a_split_model_are_joined() {
    let folder = tempfile::tempdir().unwrap();
    let part = |number: u16, count: u16, tensor: &str| {
        let mut writer = if number == 0 { model() } else { GgufWriter::new() };
        writer.u16("split.no", number).u16("split.count", count);
        writer.tensor(tensor, F32, &[32]);
        writer.zeros()
    };
    let path = |number: u32| folder.path().join(format!("m-{number:05}-of-00002.gguf"));
    std::fs::write(path(1), part(0, 2, "blk.0.a")).unwrap();
    let missing = Gguf::open(path(1)).unwrap_err().to_string();
    assert!(missing.contains("m-00002-of-00002.gguf"), "{missing}");
    std::fs::write(path(2), part(1, 2, "blk.1.a")).unwrap();
    let gguf = Gguf::open(path(1)).unwrap();
    assert_eq!((gguf.parts(), gguf.tensors().len()), (2, 4));
    assert_eq!(
        (gguf.tensors()[3].name.as_str(), gguf.tensors()[3].part),
        ("blk.1.a", 1)
    );
    let not_first = Gguf::open(path(2)).unwrap_err().to_string();
    assert!(not_first.contains("is not the first part"), "{not_first}");
    std::fs::write(path(2), part(1, 2, "blk.0.a")).unwrap();
    let twice = Gguf::open(path(1)).unwrap_err().to_string();
    assert!(twice.contains("blk.0.a that an earlier part"), "{twice}");
}

#[test]
fn every_type_is_written_and_read() {
    let mut writer = GgufWriter::new();
    writer
        .u8("a", 255)
        .i8("b", -1)
        .u16("c", 65535)
        .i16("d", -2)
        .u32("e", 7)
        .i32("f", -3);
    writer
        .f32("g", 0.5)
        .u64("h", u64::MAX)
        .i64("i", i64::MIN)
        .f64("j", -0.25);
    writer
        .bools("k", &[true, false])
        .f64s("l", &[1.5, -1.5])
        .i8s("m", &[-128])
        .u16s("n", &[]);
    let gguf = open(&writer.zeros()).unwrap();
    let all: Vec<String> = gguf
        .metadata()
        .map(|(key, value)| match value {
            Value::Array(array) => format!("{key}={:?}", array.iter().collect::<Vec<_>>()),
            value => format!("{key}={value:?}"),
        })
        .collect();
    let expected = "a=Integer(255) b=Integer(-1) c=Integer(65535) d=Integer(-2) e=Integer(7) f=Integer(-3) g=Float(0.5) \
                    h=Integer(18446744073709551615) i=Integer(-9223372036854775808) j=Float(-0.25) \
                    k=[Bool(true), Bool(false)] l=[Float(1.5), Float(-1.5)] m=[Integer(-128)] n=[]";
    assert_eq!(all.join(" "), expected);
}

#[test]
fn messages_do_not_steer_the_terminal() {
    refused(r"general.alignment", |w| {
        w.str("x\u{1b}[2J\u{202e}", "a").u32("general.alignment", 3);
    });
    refused(r"x\u{1b}[2J\u{202e} at byte", |w| {
        w.str("x\u{1b}[2J\u{202e}", "a").str("x\u{1b}[2J\u{202e}", "b");
    });
    assert_eq!(printable(&"x".repeat(10_000)).len(), 243);
    assert_eq!(printable("ü b\n"), r"ü b\n");
}

#[test]
fn a_folder_is_not_a_model() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Gguf::open(folder.path()), Err(GgufError::Io { .. })));
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        numbers in prop::collection::btree_map("[a-z.]{1,20}", any::<u64>(), 0..20),
        texts in prop::collection::vec(".{0,30}", 0..20),
        sizes in prop::collection::vec(1u64..40, 0..10),
    ) {
        let mut writer = GgufWriter::new();
        for (key, value) in &numbers {
            writer.u64(&format!("n.{key}"), *value);
        }
        writer.strings("texts", &texts);
        for (index, size) in sizes.iter().enumerate() {
            writer.tensor(&format!("t{index}"), F32, &[*size, 3]);
        }
        let gguf = open(&writer.zeros()).unwrap();
        for (key, value) in &numbers {
            prop_assert_eq!(gguf.get(&format!("n.{key}")).and_then(|v| v.as_u64()), Some(*value));
        }
        let read: Vec<String> = gguf.get("texts").and_then(|v| v.as_array()).unwrap()
            .strings().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        prop_assert_eq!(read, texts);
        for (tensor, size) in gguf.tensors().iter().zip(&sizes) {
            prop_assert_eq!(tensor.elements(), size * 3);
            prop_assert_eq!(gguf.data(tensor).len() as u64, size * 12);
        }
    }

    #[test]
    fn a_truncated_file_is_refused(share in 0.0f64..1.0) {
        let file = model().zeros();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a small length")]
        let length = (file.len() as f64 * share) as usize;
        prop_assert!(open(&file[..length]).is_err());
    }

    #[test]
    fn flipped_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut file = model().zeros();
        for (index, byte) in changes {
            let at = index.index(file.len());
            file[at] = byte;
        }
        if let Ok(gguf) = open(&file) {
            let _ = gguf.geometry();
            for tensor in gguf.tensors() {
                prop_assert_eq!(gguf.data(tensor).len() as u64, tensor.bytes);
            }
            for (_, value) in gguf.metadata() {
                let _ = format!("{value:?}");
            }
        }
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Gguf::check(&bytes);
        let mut file = b"GGUF\x03\x00\x00\x00".to_vec();
        file.extend(bytes);
        let _ = Gguf::check(&file);
    }
}
