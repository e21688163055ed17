use std::path::Path;

use proptest::prelude::*;

use super::*;

fn errors(text: &str) -> String {
    match parse(text, Path::new("models.toml")) {
        Ok(config) => panic!("was accepted: {config:#?}"),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = r#"
[server]
prot = 8080
host = "localhost"
body_limit = "8"

[memory]
vram = "16 G"

[[model]]
name = "one"
path = "demo:reasoner"
port = 8150
contxt = 4096
parallel = 100
sampling = { temperature = 99.0, topk = 3, top_p = "high" }

[[model]]
name = "one"
aliases = ["two words", 7]
path = "missing.gguf"
port = 8150

[[model]]
path = "demo:poet"

[models]
"#;
    insta::assert_snapshot!(errors(text));
}

#[test]
fn a_syntax_error_is_shown() {
    insta::assert_snapshot!(errors("[[model]]\nname = \"x\npath = 3\n"));
}

#[test]
fn a_file_without_models_is_a_mistake() {
    assert!(errors("").contains("there is no model in the file"));
    assert!(errors("model = 3").contains("`model` is not a list of models"));
}

#[cfg(feature = "demo")]
#[test]
fn a_good_file_is_read() {
    let text = r#"
[server]
host = "0.0.0.0"
port = 9000
threads = 3
body_limit = "1MiB"
shutdown_grace = "5s"
[memory]
vram = "14GiB"
[[model]]
name = "r"
role = "reasoning"
aliases = ["cheap"]
path = "demo:reasoner"
port = 8150
context = 2048
parallel = 2
threads = 1
queue = 0
sampling = { temperature = 1, top_k = 20, max_tokens = 16 }
"#;
    let config = parse(text, Path::new("models.toml")).unwrap();
    assert_eq!((config.server.port, config.server.body_limit), (9000, 1 << 20));
    assert_eq!(config.memory.vram, MemoryLimit::Bytes(14 << 30));
    let model = &config.models[0];
    assert_eq!(
        (model.port, model.context, model.parallel, model.queue),
        (Some(8150), Some(2048), 2, 0)
    );
    assert_eq!(
        (model.sampling.temperature, model.sampling.max_tokens),
        (Some(1.0), Some(16))
    );
}

/// The example at the top of the repository is right but for its paths, which are to be changed.
#[test]
fn the_example_has_only_missing_files() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let errors = parse(&text, &path).unwrap_err();
    assert_eq!(errors.mistakes.len(), 2, "{errors}");
    for mistake in &errors.mistakes {
        assert!(mistake.message.contains("does not exist"), "{errors}");
    }
}

#[test]
fn the_published_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/models.schema.json");
    let current = format!("{:#}\n", schema());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == current,
        "docs/models.schema.json is out of date: run UPDATE_DOCS=1 cargo test --release schema"
    );
}

/// The reader knows exactly the keys of the schema.
#[test]
fn reader_and_schema_agree() {
    let schema = schema();
    let keys =
        |at: &serde_json::Value| -> Vec<String> { at["properties"].as_object().unwrap().keys().cloned().collect() };
    let read = |text: &str| -> Vec<String> {
        let shown = errors(text);
        let listed = shown
            .lines()
            .find_map(|line| line.split_once("known keys: "))
            .unwrap_or_else(|| panic!("{shown}"))
            .1;
        listed.split(", ").map(str::to_owned).collect()
    };
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    assert_eq!(
        sorted(read("[server]\nqqqqqqqq = 1")),
        sorted(keys(&schema["$defs"]["Server"]))
    );
    assert_eq!(
        sorted(read("[memory]\nqqqqqqqq = 1")),
        sorted(keys(&schema["$defs"]["Memory"]))
    );
    assert_eq!(
        sorted(read("[[model]]\nqqqqqqqq = 1")),
        sorted(keys(&schema["$defs"]["Model"]))
    );
    assert_eq!(sorted(read("qqqqqqqq = 1")), sorted(keys(&schema)));
}

#[test]
fn unknown_variables_are_named() {
    let names = ["HEARTH_PROT", "HEARTH_PORT", "HEARTH_XYZZY", "PATH"].map(String::from);
    let warnings = overrides::unknown_variables(names.into_iter());
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("did you mean HEARTH_PORT?"), "{warnings:?}");
}

proptest! {
    #[test]
    fn any_text_is_judged(text in "(\\[\\[model\\]\\]\n|\\[server\\]\n|name|path|port|sampling|context|=| |\"a\"|\"16GiB\"|[0-9]{1,12}|\n|\\{|\\}|\\[|\\]|,|ü){0,40}") {
        if let Err(errors) = parse(&text, Path::new("x.toml")) {
            let lines = text.lines().count().max(1);
            for mistake in &errors.mistakes {
                let (line, _) = mistake.position.unwrap();
                prop_assert!(line <= lines + 1, "line {line} of {lines}");
            }
            let _ = errors.to_string();
        }
    }
}
