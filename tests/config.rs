//! Whole configurations: what is understood, and how mistakes are told.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hearth::config::{
    Config, ConfigErrors, Environment, ExpertPlacement, KNOBS, KvType, Loaded, MemoryLimit, ModelSource, Origin,
    Overrides, Severity, load_from, load_text, schema,
};
use hearth::experts::policy::PolicyKind;
use proptest::prelude::*;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn env(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

fn parse(text: &str) -> Result<Loaded, ConfigErrors> {
    load_text(
        text,
        Path::new("models.toml"),
        &Overrides::default(),
        &Environment::new(),
    )
}

/// A file as one model with `path = "demo:reasoner"` and these further lines.
fn model(lines: &str) -> String {
    format!("[[model]]\nname = \"a\"\npath = \"demo:reasoner\"\n{lines}\n")
}

fn messages(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(loaded) => loaded
            .warnings
            .diagnostics()
            .iter()
            .map(|w| w.message.clone())
            .collect(),
        Err(errors) => errors.diagnostics().iter().map(|e| e.message.clone()).collect(),
    }
}

fn gguf(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, b"GGUF").expect("a model to be written");
    path
}

#[test]
fn without_a_file_the_built_in_pair_is_served() {
    let config = load_from(&Overrides::default(), &Environment::new())
        .expect("the built-in pair")
        .config;
    let names: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["demo-reasoner", "demo-narrator"]);
    assert_eq!(config.server.port, 8080);
    assert!(config.server.host.is_loopback());
    assert_eq!(config.server.body_limit, 8 << 20);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = r#"# twelve mistakes and more
[server]
host = "my-machine"
port = 70000
body_limit = 8
shutdown_grace = "30"
colour = "red"

[memory]
vram = "16G"
ram = "lots"

[[model]]
name = "first model"
role = "reasoning"
path = "demo:reasonr"
paralel = 4
context = "65536"
sampling = { temperature = 20, topp = 0.8, top_k = -1 }

[[model]]
name = "second"
aliases = ["second", "third"]
path = "no/such/file.gguf"
port = 8151
parallel = 65

[[model]]
name = "third"
path = "demo:narrator"
port = 8151
n_ctx = 4096
"#;
    let overrides = Overrides {
        parallel: Some(0),
        ..Overrides::default()
    };
    let env = env(&[("HEARTH_PORT", "eighty"), ("HEARTH_PARALEL", "2"), ("HEARTH_VRAM", "")]);
    let errors = load_text(text, Path::new("/etc/hearth/models.toml"), &overrides, &env).expect_err("mistakes");
    insta::assert_snapshot!("all_mistakes", errors);
}

#[test]
fn syntax_errors_have_a_line() {
    let errors = parse("[server]\nport = \n\n[[model]\nname = \"a\"\n").expect_err("broken TOML");
    insta::assert_snapshot!("syntax", errors);
}

#[test]
fn mistakes_one_by_one() {
    let cases = [
        ("", "no model is configured"),
        ("[[model]]\n", "[[model]] has no `name`"),
        (
            "[model]\nname = \"a\"\n",
            "`model` must be a list of tables, but is a table",
        ),
        ("[[models]]\nname = \"a\"\n", "unknown key `models` in the top level"),
        ("server = 1\n", "`server` must be a table, but is the whole number 1"),
        (
            &model("port = 65536"),
            "`port` must be between 0 and 65535, but is 65536",
        ),
        (
            &model("port = 8080"),
            "port 8080 is already taken by the server (default)",
        ),
        (
            &model("context = 4194305"),
            "`context` must be between 32 and 4194304, but is 4194305",
        ),
        (
            &model("context = 99999999999999999999"),
            "`context` must be between 32 and 4194304, but is 99999999999999999999",
        ),
        (
            &model("aliases = \"b\""),
            "`aliases` must be a list of strings, but is the string \"b\"",
        ),
        (
            &model("aliases = [\"a\"]"),
            "the alias `a` is already taken by the name at line 2",
        ),
        (
            &model("sampling = { temperature = nan }"),
            "`temperature` is NaN, but must be between 0 and 10",
        ),
        (
            &model("sampling = { seed = 4294967296 }"),
            "`seed` must be between 0 and 4294967295, but is 4294967296",
        ),
        (
            &(model("role = \"b\"") + &model("").replace("\"a\"", "\"b\"")),
            "the role `b` is also the name of another model at line 6",
        ),
        (
            &(model("") + &model("")),
            "the name `a` is already taken by the name at line 2",
        ),
    ];
    for (text, expected) in cases {
        let found = messages(text);
        assert!(found.iter().any(|message| message == expected), "{text}\n{found:#?}");
        assert!(parse(text).is_err(), "{text}");
    }
}

/// A clash that a flag resolves is none: only the values that are in effect count.
#[test]
fn checks_see_what_is_in_effect() {
    let text = model("port = 8080")
        + &model("port = 0").replace("\"a\"", "\"b\"")
        + &model("port = 0").replace("\"a\"", "\"c\"");
    assert!(parse(&text).is_err());
    let overrides = Overrides {
        port: Some(9000),
        ..Overrides::default()
    };
    let loaded = load_text(&text, Path::new("m.toml"), &overrides, &Environment::new());
    assert!(loaded.is_ok(), "{loaded:?}");
}

#[test]
fn numbers_that_json_does_not_know_are_mistakes() {
    for value in [
        "temperature = nan",
        "temperature = inf",
        "top_p = -inf",
        "max_tokens = 99999999999999999999",
    ] {
        assert!(parse(&model(&format!("sampling = {{ {value} }}"))).is_err(), "{value}");
    }
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let cases = [
        (
            model("role = \"r\"") + &model("role = \"r\"").replace("\"a\"", "\"b\""),
            "the role `r` is shared with the model at line 4",
        ),
        (
            model("context = 100\nsampling = { max_tokens = 200 }"),
            "`max_tokens` is 200, but the context ends answers at 100",
        ),
    ];
    for (text, expected) in cases {
        assert!(parse(&text).is_ok(), "{text}");
        assert_eq!(messages(&text), [expected]);
    }
    let variables = env(&[("HEARTH_PROT", "1")]);
    let loaded = load_from(&Overrides::default(), &variables).expect("only a warning");
    let warning = &loaded.warnings.diagnostics()[0];
    assert_eq!(warning.severity, Severity::Warning);
    assert_eq!(warning.hint.as_deref(), Some("did you mean `HEARTH_PORT`?"));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let text = format!(
        "[server]\nport = 1000\nthreads = 3\n{}",
        model("parallel = 2\ncontext = 100")
    );
    let variables = env(&[
        ("HEARTH_PORT", "2000"),
        ("HEARTH_CONTEXT", "200"),
        ("HEARTH_VRAM", "14GiB"),
    ]);
    let overrides = Overrides {
        port: Some(3000),
        threads: Some(5),
        ..Overrides::default()
    };
    let loaded = load_text(&text, Path::new("m.toml"), &overrides, &variables).expect("a configuration");
    let Config { server, memory, models } = &loaded.config;
    assert_eq!((server.port, server.http_threads), (3000, 3));
    assert_eq!(memory.vram, MemoryLimit::Bytes(14 << 30));
    assert_eq!(
        (models[0].parallel, models[0].context, models[0].threads),
        (2, Some(200), Some(5))
    );
    insta::assert_snapshot!("show", loaded.to_toml());
}

#[test]
fn the_order_of_places_where_a_file_is_looked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| {
        let path = folder.path().join(name).join("hearth/models.toml");
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, model("").replace("\"a\"", &format!("{name:?}"))).expect("a file");
        path
    };
    let (flag, variable, xdg, home) = (file("flag"), file("variable"), file("xdg"), file(".config"));
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let mut variables = env(&[
        ("HEARTH_CONFIG", &text(&variable)),
        ("XDG_CONFIG_HOME", &text(&folder.path().join("xdg"))),
        ("HOME", &text(folder.path())),
    ]);
    let overrides = Overrides {
        config: Some(flag.clone()),
        ..Overrides::default()
    };
    let found = |overrides: &Overrides, env: &Environment| load_from(overrides, env).expect("a configuration").file;
    let none = Overrides::default();
    assert_eq!(found(&overrides, &variables), Some(flag));
    assert_eq!(found(&none, &variables), Some(variable));
    variables.insert("HEARTH_CONFIG".to_owned(), String::new());
    assert_eq!(found(&none, &variables), Some(xdg));
    variables.remove("XDG_CONFIG_HOME");
    assert_eq!(found(&none, &variables), Some(home));
    variables.remove("HOME");
    assert_eq!(found(&none, &variables), None);
}

#[test]
fn a_configuration_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = gguf(folder.path(), "model.gguf");
    let latin = folder.path().join("latin.toml");
    fs::write(&latin, b"# \xe4\n").expect("a file");
    let large = folder.path().join("large.toml");
    fs::write(&large, "#".repeat((1 << 20) + 1)).expect("a file");
    let cases = [
        (folder.path().join("none.toml"), "a file that is not there"),
        (folder.path().to_owned(), "a folder"),
        (model, "a model, not a configuration"),
        (latin, "a file that is not UTF-8"),
        (large, "a file of more than 1 MiB"),
    ];
    for (path, expected) in cases {
        let overrides = Overrides {
            config: Some(path.clone()),
            ..Overrides::default()
        };
        let errors = load_from(&overrides, &env(&[("HEARTH_PORT", "x")])).expect_err("unreadable");
        let told: Vec<&str> = errors
            .diagnostics()
            .iter()
            .map(|error| error.message.as_str())
            .collect();
        assert_eq!(told[0], format!("`--config` names {expected}: {}", path.display()));
        assert!(told[1].starts_with("`HEARTH_PORT` must be a whole number"), "{told:?}");
    }
}

#[test]
fn paths_of_models() {
    let folder = tempfile::tempdir().expect("a folder");
    gguf(folder.path(), "good.gguf");
    gguf(folder.path(), "part-00001-of-00003.gguf");
    gguf(folder.path(), "part-00002-of-00003.gguf");
    fs::write(folder.path().join("pointer.gguf"), "version https://git-lfs").expect("a file");
    let variables = env(&[("HOME", folder.path().to_str().expect("UTF-8"))]);
    let config = folder.path().join("models.toml");
    let try_path = |path: &str| {
        let text = format!("[[model]]\nname = \"a\"\npath = {path:?}\n");
        load_text(&text, &config, &Overrides::default(), &variables)
    };
    for path in ["good.gguf", "~/good.gguf", "../good.gguf"] {
        let from_sub = folder.path().join("sub/models.toml");
        let config = if path.starts_with("..") { &from_sub } else { &config };
        fs::create_dir_all(folder.path().join("sub")).expect("a folder");
        let text = format!("[[model]]\nname = \"a\"\npath = {path:?}\n");
        let loaded = load_text(&text, config, &Overrides::default(), &variables).expect(path);
        assert!(matches!(&loaded.config.models[0].source, ModelSource::File(file) if file.is_absolute()));
    }
    let cases = [
        ("god.gguf", "names a file that is not there", "did you mean good.gguf?"),
        ("no/good.gguf", "names a file that is not there", "there is no folder"),
        (".", "names a folder", "name the .gguf file in it"),
        ("pointer.gguf", "is not a GGUF", "Git LFS pointer"),
        ("part-00002-of-00003.gguf", "names part 2", "part-00001-of-00003.gguf"),
        ("part-00001-of-00003.gguf", "no. 3 is missing", "one folder"),
        (
            "demo:narator",
            "there is no \"demo:narator\"",
            "did you mean demo:narrator?",
        ),
        ("", "must not be empty", "name a .gguf file"),
    ];
    for (path, message, hint) in cases {
        let errors = try_path(path).expect_err(path);
        let found = &errors.diagnostics()[0];
        assert!(found.message.contains(message), "{path}: {}", found.message);
        assert!(
            found.hint.as_deref().unwrap_or_default().contains(hint),
            "{path}: {:?}",
            found.hint
        );
        assert_eq!(errors.line_column(found), Some((3, 8)), "{path}");
    }
}

#[test]
fn models_without_a_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let overrides = Overrides {
        model_path: vec![
            gguf(folder.path(), "My Model-Q4_K_M.gguf"),
            gguf(folder.path(), "big-00001-of-00001.gguf"),
        ],
        context: Some(512),
        ..Overrides::default()
    };
    // The environment's file is beaten by the flag: it need not even exist.
    let variables = env(&[("HEARTH_CONFIG", "/no/such/file")]);
    let config = load_from(&overrides, &variables).expect("two models").config;
    let models: Vec<_> = config
        .models
        .iter()
        .map(|model| (model.name.as_str(), model.context))
        .collect();
    assert_eq!(models, [("My-Model-Q4_K_M", Some(512)), ("big", Some(512))]);

    let twice = Overrides {
        model_path: vec![overrides.model_path[0].clone(); 2],
        ..Overrides::default()
    };
    let errors = load_from(&twice, &variables).expect_err("one name twice");
    assert_eq!(errors.diagnostics()[0].origin, Origin::Flag("--model-path".to_owned()));
}

#[test]
fn what_is_shown_can_be_read_again() {
    let everything = model(
        "role = \"r\"\naliases = [\"b\"]\nport = 9000\ncontext = 4096\nparallel = 2\nthreads = 3\nqueue = 4\n\
         sampling = { temperature = 0.7, seed = 1, samplers = [\"top_k\", \"temp\"], dry_sequence_breakers = [\"\\n\", \"\\\"\"] }",
    );
    let text = format!(
        "[server]\nhost = \"::1\"\nbody_limit = \"10MB\"\nshutdown_grace = \"1500ms\"\nallowed_hosts = [\"box.lan\"]\n\
         allowed_origins = [\"null\"]\nstrict_models = true\n[memory]\nram = \"1.5GB\"\n{everything}"
    );
    for text in [text, model("")] {
        let loaded = parse(&text).expect("a configuration");
        let again = parse(&loaded.to_toml()).expect("what was shown");
        assert_eq!(again.config, loaded.config, "{}", loaded.to_toml());
    }
    let pair = load_from(&Overrides::default(), &Environment::new()).expect("the built-in pair");
    assert_eq!(parse(&pair.to_toml()).expect("what was shown").config, pair.config);
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
}

#[test]
fn the_schema_in_the_documentation_is_current() {
    let path = root().join("docs/models.schema.json");
    let current = format!("{:#}\n", schema());
    if std::env::var_os("UPDATE_DOCS").is_some() {
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

#[test]
fn who_may_ask() {
    let server = |text: &str| parse(&format!("[server]\n{text}\n{}", model("")));
    let text = "allowed_hosts = [\"box.lan\", \"10.0.0.2:8443\", \"*\"]\n\
                allowed_origins = [\"https://chat.example\", \"tauri://localhost\", \"null\", \"*\"]\nstrict_models = true";
    let config = server(text).expect("a configuration").config.server;
    assert_eq!(config.allowed_hosts, ["box.lan", "10.0.0.2:8443", "*"]);
    assert_eq!(config.allowed_origins.len(), 4);
    assert!(config.strict_models);
    for (text, expect) in [
        ("allowed_hosts = [\"http://box.lan\"]", "without http://"),
        ("allowed_hosts = [\"box.lan/v1\"]", "without http://"),
        ("allowed_hosts = \"box.lan\"", "write allowed_hosts = [\"box.lan\"]"),
        ("allowed_origins = [\"box.lan\"]", "must be a list of origins"),
        ("allowed_origins = [\"https://box.lan/\"]", "without a path"),
        ("allowed_origins = [\"https://*.lan\"]", "must be a list of origins"),
        ("strict_models = 1", "must be true or false"),
    ] {
        let text = server(text).expect_err(text).to_string();
        assert!(text.contains(expect), "{text}");
    }
}

#[test]
fn memory_keys_of_a_model() {
    let text = model("kv_type = \"q8_0\"\ngpu_layers = 20\nexperts = { placement = \"gpu\", policy = \"lru\" }");
    let loaded = parse(&text).expect("a configuration");
    let config = &loaded.config.models[0];
    assert_eq!((config.kv_type, config.gpu_layers), (KvType::Q8_0, Some(20)));
    assert_eq!(config.experts.placement, ExpertPlacement::Gpu);
    assert_eq!(config.experts.policy, Some(PolicyKind::Lru));
    let errors = parse(&model(
        "kv_type = \"q8-0\"\nexperts = { policy = \"random\", placement = \"vram\" }",
    ))
    .expect_err("mistakes");
    let text = errors.to_string();
    for part in [
        "`kv_type` must be one of \"f32\", \"f16\", \"bf16\", \"q8_0\"",
        "hint: did you mean \"q8_0\"?",
        "`policy` must be one of \"auto\", \"static\", \"lru\", \"lfu-decay\", \"predictive\", but is \"random\"",
        "`placement` must be \"auto\", \"gpu\", \"cpu\" or \"cache\", but is \"vram\"",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn everything_is_documented() {
    let docs = fs::read_to_string(root().join("docs/configuration.md")).expect("the documentation");
    for knob in KNOBS {
        assert!(docs.contains(&format!("`{}`", knob.variable)), "{knob:?}");
        let (_, key) = knob.key.split_once('.').expect("table and key");
        assert!(docs.contains(&format!("`{key}`")), "{knob:?}");
        assert!(knob.flag.is_none_or(|flag| docs.contains(flag)), "{knob:?}");
    }
    for key in ["Server", "Memory", "Model", "Experts", "SamplingOverrides"]
        .map(schema_keys)
        .concat_all()
    {
        assert!(
            docs.contains(&format!("`{key}`")),
            "{key} is not in docs/configuration.md"
        );
    }
}

trait ConcatAll {
    fn concat_all(self) -> BTreeSet<String>;
}

impl<const N: usize> ConcatAll for [BTreeSet<String>; N] {
    fn concat_all(self) -> BTreeSet<String> {
        self.into_iter().flatten().collect()
    }
}

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
