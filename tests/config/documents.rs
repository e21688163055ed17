//! The example, the schema and the documentation against what is read.

use std::collections::BTreeSet;
use std::fs;

use hearth::config::{Environment, Overrides, PresetConfig, keys, keys_as_markdown, load_from, load_text, schema};
use serde_json::Value;

use crate::{model, parse, preset, root};

/// Whether tests write generated files anew instead of comparing them.
fn update() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}

/// The example as JSON, and what `hearth config check` says about it.
#[test]
fn the_example_is_right_except_for_its_paths() {
    let path = root().join("models.toml");
    let text = fs::read_to_string(&path).expect("the example");
    let value: Value = toml::from_str(&text).expect("TOML");
    let validator = jsonschema::validator_for(&schema()).expect("a schema");
    let violations: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(violations.is_empty(), "{violations:#?}");

    let none = Overrides::default();
    if let Err(errors) = load_text(&text, &path, &none, &Environment::new()) {
        for error in errors.diagnostics() {
            assert!(error.message.contains("a file that is not there"), "{error:?}");
        }
    }
    let demo = text
        .lines()
        .map(|line| {
            if line.starts_with("path =") {
                "path = \"demo:reasoner\""
            } else {
                line
            }
        })
        .collect::<Vec<_>>()
        .join("\n");
    let loaded = parse(&demo).expect("the example with other paths");
    assert_eq!(loaded.warnings.diagnostics(), []);
    let ports: Vec<_> = loaded.config.models.iter().map(|model| model.port).collect();
    assert_eq!(ports, [Some(8150), Some(8151)]);
    assert_eq!(loaded.config.models[0].sampling.max_tokens, Some(16384));
    // Programs that use the built-in presets need not change.
    let pair = load_from(&none, &Environment::new()).expect("the built-in pair").config;
    let names = |presets: &[PresetConfig]| presets.iter().map(|preset| preset.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&loaded.config.presets), names(&pair.presets));
    for (example, built_in) in loaded.config.presets.iter().zip(&pair.presets) {
        let format = |preset: &PresetConfig| {
            preset
                .response_format
                .as_ref()
                .map(|format| format["json_schema"]["schema"].clone())
        };
        assert_eq!(format(example), format(built_in), "{}", example.name);
    }
}

#[test]
fn the_schema_in_the_documentation_is_current() {
    let path = root().join("docs/models.schema.json");
    let current = format!("{:#}\n", schema());
    if update() {
        fs::write(&path, &current).expect("the schema to be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == current,
        "docs/models.schema.json is out of date: run the tests with UPDATE_DOCS=1"
    );
}

/// Keys of a table of the schema.
fn schema_keys(table: &str) -> BTreeSet<String> {
    let schema = schema();
    let properties = match table {
        "the top level" => &schema["properties"],
        _ => &schema["$defs"][table]["properties"],
    };
    properties.as_object().expect(table).keys().cloned().collect()
}

#[test]
fn the_schema_and_the_reader_know_the_same_keys() {
    let cases = [
        (
            "the top level",
            "qqqqqqqqqqqqqqqqqqqqqqqq = 1\n".to_owned() + &model(""),
        ),
        (
            "Server",
            "[server]\nqqqqqqqqqqqqqqqqqqqqqqqq = 1\n".to_owned() + &model(""),
        ),
        (
            "Memory",
            "[memory]\nqqqqqqqqqqqqqqqqqqqqqqqq = 1\n".to_owned() + &model(""),
        ),
        ("Model", model("qqqqqqqqqqqqqqqqqqqqqqqq = 1")),
        ("Preset", preset("qqqqqqqqqqqqqqqqqqqqqqqq = 1")),
        (
            "SamplingOverrides",
            preset("sampling = { qqqqqqqqqqqqqqqqqqqqqqqq = 1 }"),
        ),
        (
            "SamplingOverrides",
            model("sampling = { qqqqqqqqqqqqqqqqqqqqqqqq = 1 }"),
        ),
    ];
    for (table, text) in cases {
        let errors = parse(&text).expect_err("an unknown key");
        let hint = errors.diagnostics()[0].hint.clone().expect("a hint");
        let (_, keys) = hint.split_once(" are ").expect("a list of keys");
        let keys: BTreeSet<String> = keys.split(", ").map(str::to_owned).collect();
        assert_eq!(keys, schema_keys(table), "{table}");
    }
}

/// What stands between the marks in docs/configuration.md is generated.
#[test]
fn the_tables_of_keys_in_the_documentation_are_current() {
    const START: &str = "<!-- What follows is written by UPDATE_DOCS=1 cargo test --release --test config -->\n\n";
    const END: &str = "<!-- The end of what is written by a test -->\n";
    let path = root().join("docs/configuration.md");
    let text = fs::read_to_string(&path).expect("the documentation");
    let (before, rest) = text.split_once(START).expect("the start of the tables");
    let (_, after) = rest.split_once(END).expect("the end of the tables");
    let current = format!("{before}{START}{}{END}{after}", keys_as_markdown());
    if update() {
        fs::write(&path, &current).expect("the documentation to be written");
    } else {
        assert!(
            text == current,
            "docs/configuration.md is out of date: run the tests with UPDATE_DOCS=1"
        );
    }
}

#[test]
fn sampling_keys_are_documented() {
    let docs = fs::read_to_string(root().join("docs/configuration.md")).expect("the documentation");
    for key in schema_keys("SamplingOverrides") {
        assert!(
            docs.contains(&format!("| `{key}` |")),
            "{key} is not in docs/configuration.md"
        );
    }
}

/// No two keys are set by one variable or flag, and what documentation says of them is a text for a table.
#[test]
fn variables_and_flags_are_unique_and_keys_are_described() {
    let keys = keys();
    let names: Vec<&str> = keys
        .iter()
        .flat_map(|key| [key.variable, key.flag.map(|(flag, _)| flag)])
        .flatten()
        .collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    for key in &keys {
        assert!(key.doc.len() > 10 && !key.doc.contains(['|', '\n']), "{key:?}");
        assert!(key.variable.is_none_or(|name| name.starts_with("HEARTH_")), "{key:?}");
        // The schema names the table by its word.
        let table = match key.table {
            "[server]" => "Server",
            "[memory]" => "Memory",
            "[[model]]" => "Model",
            "[[preset]]" => "Preset",
            "[[key]]" => "Key",
            "[model.draft]" => "Draft",
            "[model.rope]" => "Rope",
            "[[model.upstream]]" => "Upstream",
            _ => "Experts",
        };
        assert!(schema_keys(table).contains(key.name), "{key:?}");
    }
}
