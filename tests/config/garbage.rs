//! Texts that nobody would write.

use proptest::prelude::*;

use crate::parse;

/// Lines that look like a configuration often enough to get past the parser.
fn toml_like() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "name",
        "role",
        "aliases",
        "path",
        "port",
        "context",
        "parallel",
        "threads",
        "queue",
        "sampling",
        "host",
        "vram",
        "body_limit",
        "shutdown_grace",
        "temperature",
        "ünknown",
        "\"a b\"",
        "server",
        "model",
        "a.b",
    ]);
    let value = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "[a-zA-Z0-9 ./:~ä-]{0,12}".prop_map(|text| format!("\"{text}\"")),
        prop::sample::select(vec![
            "true",
            "[]",
            "{}",
            "[1, \"x\"]",
            "{ top_k = -1, x = 1 }",
            "1979-05-27",
            "\"\"\"\na\nb\"\"\"",
            "0x10",
            "1_000",
            "\"demo:reasoner\"",
            "\"16GiB\"",
            "[[[]]]",
            "[{}, 1]",
            "\"\\u0000\"",
            "'",
        ])
        .prop_map(str::to_owned),
    ];
    let header = prop::sample::select(vec![
        "[server]",
        "[memory]",
        "[[model]]",
        "[model.sampling]",
        "[x]",
        "[model]",
    ]);
    let line = prop_oneof![
        4 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        2 => header.prop_map(str::to_owned),
        1 => "\\PC{0,20}",
    ];
    (
        prop::collection::vec(line, 0..20),
        prop::sample::select(vec!["\n", "\r\n"]),
    )
        .prop_map(|(lines, newline)| lines.join(newline))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn no_text_panics_and_every_place_exists(text in prop_oneof![3 => toml_like(), 1 => any::<String>()]) {
        let found = match parse(&text) {
            Ok(loaded) => {
                let _ = (loaded.to_toml(), loaded.to_json());
                loaded.warnings
            }
            Err(errors) => {
                prop_assert!(!errors.diagnostics().is_empty());
                errors
            }
        };
        let _ = (found.to_string(), found.to_json());
        for diagnostic in found.diagnostics() {
            if let Some((line, column)) = found.line_column(diagnostic) {
                prop_assert!(line <= text.lines().count().max(1), "line {} of {:?}", line, text);
                let width = text.split('\n').nth(line - 1).unwrap_or_default().chars().count();
                prop_assert!(column <= width + 1, "column {} of line {} of {:?}", column, line, text);
            }
        }
    }
}
