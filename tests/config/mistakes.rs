//! Mistakes and warnings, and how they are told.

use std::path::Path;

use hearth::config::{Environment, Overrides, Severity, load_from, load_text};

use crate::{env, messages, model, parse};

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
    let overrides = Overrides::default().with("--parallel", Some(0));
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
            "`temperature` must be a finite number, but is NaN",
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
        (
            &model("upstream = { base_url = \"http://box/v1\" }"),
            "a model has `path` or `upstream`, not both",
        ),
        (
            "[[model]]\nname = \"a\"\nupstream = []\n",
            "`upstream` is an empty list",
        ),
        (
            "[[model]]\nname = \"a\"\nupstream = { model = \"x\" }\n",
            "[[model.upstream]] has no `base_url`",
        ),
        (
            "[[model]]\nname = \"a\"\nupstream = [{ base_url = \"box:80\" }]\n",
            "`base_url` must begin with http:// or https://, but begins with box:",
        ),
        (
            &model("fallback = [\"b\"]"),
            "`fallback` has `b`, but there is no such [[model]]",
        ),
        (
            &model("fallback = [\"a\"]"),
            "`fallback` has `a`, which is the model itself",
        ),
        (
            &(model("fallback = [\"b\"]") + &model("fallback = [\"a\"]").replacen("\"a\"", "\"b\"", 1)),
            "`fallback` goes round in a circle: a -> b -> a",
        ),
        (
            &model("fallback_on = [\"overload\"]"),
            "`fallback_on` must be a list of \"overloaded\", \"load_failed\", \"engine_error\", \"timeout\", \
             \"maintenance\", but has \"overload\"",
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
    let overrides = Overrides::default().with("--port", Some(9000));
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
fn who_may_ask_and_what_samples() {
    let server = |text: &str| parse(&format!("[server]\n{text}\n{}", model("")));
    let text = "allowed_hosts = [\"box.lan\", \"10.0.0.2:8443\", \"*\"]\n\
                cors = [\"https://chat.example\", \"tauri://localhost\", \"null\", \"*\"]\nstrict_models = true";
    let config = server(text).expect("a configuration").config.server;
    assert_eq!(config.allowed_hosts, ["box.lan", "10.0.0.2:8443", "*"]);
    assert_eq!(config.cors.len(), 4);
    assert!(config.strict_models);
    for (text, expect) in [
        ("allowed_hosts = [\"http://box.lan\"]", "without http://"),
        ("allowed_hosts = [\"box.lan/v1\"]", "without http://"),
        ("allowed_hosts = \"box.lan\"", "write allowed_hosts = [\"box.lan\"]"),
        ("cors = [\"box.lan\"]", "must be a list of origins"),
        ("cors = [\"https://box.lan/\"]", "without a path"),
        ("cors = [\"https://*.lan\"]", "must be a list of origins"),
        ("strict_models = 1", "must be true or false"),
    ] {
        let text = server(text).expect_err(text).to_string();
        assert!(text.contains(expect), "{text}");
    }
    let sampling = |text: &str| parse(&model(&format!("sampling = {{ {text} }}")));
    let config = sampling("samplers = [\"top-k\", \"temp\"], top_k = 5").expect("a configuration");
    let sampling_of = &config.config.models[0].sampling;
    assert_eq!(sampling_of.samplers.as_ref().map(Vec::len), Some(2));
    assert_eq!(sampling_of.top_k, Some(5));
    for (text, expect) in [
        ("samplers = [\"magic\"]", "`magic` is not the name of a sampler"),
        ("top_n_sigma = -2", "must be between -1 and 100"),
        ("dynatemp_range = 11", "must be between 0 and 10"),
    ] {
        let text = sampling(text).expect_err(text).to_string();
        assert!(text.contains(expect), "{text}");
    }
}

/// What stands in for a model lets its file be missing.
#[test]
fn a_missing_file_of_a_model_with_a_fallback_is_a_warning() {
    let text = "[[model]]\nname = \"a\"\npath = \"no-such.gguf\"\nfallback = [\"b\"]\n[[model]]\nname = \"b\"\n\
                upstream = { base_url = \"http://box/v1\", api_key_env = \"NOT_SET\" }\n";
    let loaded = parse(text).expect("only warnings");
    let warnings = loaded.warnings.to_string();
    assert!(
        warnings.contains("no-such.gguf") && warnings.contains("NOT_SET"),
        "{warnings}"
    );
    // What is shown is a configuration again.
    let shown = loaded.to_toml();
    assert!(shown.contains("[[model.upstream]]"), "{shown}");
    let again = parse(&shown).expect("what was shown");
    assert_eq!(again.config.models, loaded.config.models);
}
