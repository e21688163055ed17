//! Tests of single values; those of whole files are in `tests/config.rs`.

use std::time::Duration;

use proptest::prelude::*;

use super::types::MemoryLimit;
use super::{suggest, value};

#[test]
fn sizes() {
    let cases = [
        ("16GiB", 16 << 30),
        ("16 gib", 16 << 30),
        ("16GB", 16_000_000_000),
        ("13.5GB", 13_500_000_000),
        ("1.5KiB", 1536),
        ("0B", 0),
        ("8MiB", 8 << 20),
    ];
    for (text, bytes) in cases {
        assert_eq!(value::size(text).ok(), Some(bytes), "{text}");
    }
    for text in [
        "",
        "16",
        "16G",
        "GiB",
        "-1GiB",
        "1.GiB",
        ".5GiB",
        "1.2.3GiB",
        "1e3GiB",
        "99999999TiB",
        "1.0000000001GB",
    ] {
        let fault = value::size(text).expect_err(text);
        assert!(fault.hint.is_some(), "{text}: {fault:?}");
    }
    assert_eq!(value::memory("auto").ok(), Some(MemoryLimit::Auto));
}

#[test]
fn durations() {
    let cases = [
        ("30s", Duration::from_secs(30)),
        ("500 ms", Duration::from_millis(500)),
        ("2m", Duration::from_secs(120)),
        ("1h", Duration::from_secs(3600)),
        ("0s", Duration::ZERO),
    ];
    for (text, span) in cases {
        assert_eq!(value::duration(text).ok(), Some(span), "{text}");
        assert_eq!(value::duration(&value::duration_text(span)).ok(), Some(span), "{text}");
    }
    for text in ["", "30", "s", "-1s", "2h", "1.5s", "18446744073709551615h"] {
        assert!(value::duration(text).is_err(), "{text}");
    }
}

#[test]
fn names() {
    for text in ["qwen3-next", "Qwen/Qwen3-Next-80B", "openai:x", "gpt_4.1", "模型"] {
        assert!(value::name(text).is_ok(), "{text}");
    }
    for text in [
        "",
        "a b",
        "a\tb",
        "a\u{7}",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a,b",
        "a?b",
        &"x".repeat(129),
    ] {
        assert!(value::name(text).is_err(), "{text:?}");
    }
}

#[test]
fn suggestions() {
    let keys = [
        "name", "role", "aliases", "path", "port", "context", "parallel", "threads", "queue", "sampling",
    ];
    let cases = [
        ("paralel", Some("parallel")),
        ("Context", Some("context")),
        ("ctx-size", Some("context")),
        ("n_parallel", Some("parallel")),
        ("sampeling", Some("sampling")),
        ("gpu_layers", None),
        ("", None),
    ];
    for (word, meant) in cases {
        assert_eq!(suggest::nearest(word, keys), meant, "{word}");
    }
}

proptest! {
    #[test]
    fn sizes_are_written_as_they_are_read(bytes: u64) {
        prop_assert_eq!(value::size(&value::size_text(bytes)).ok(), Some(bytes));
    }

    #[test]
    fn no_text_panics(text: String) {
        let _ = (value::size(&text), value::duration(&text), value::host(&text), value::name(&text));
    }
}
