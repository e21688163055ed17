//! `[[preset]]`: what is understood, and which mistakes are found.

use hearth::config::{Environment, Overrides, Severity, load_from};
use serde_json::json;

use crate::{messages, model, parse, preset};

#[test]
fn a_preset_is_read() {
    let text = preset(
        r#"system = "Be brief."
stop = ["\n"]
reasoning_effort = "low"
enable_thinking = false
chat_template_kwargs = { a = [1, 2.5, "x"], b = { c = true } }
sampling = { temperature = 0.5, max_tokens = 9 }
[preset.response_format]
type = "json_schema"
[preset.response_format.json_schema.schema]
type = "object"
properties = { z = { type = "string" }, a = { type = "integer" } }"#,
    );
    let loaded = parse(&text).expect("a configuration");
    let preset = &loaded.config.presets[0];
    assert_eq!((preset.name.as_str(), preset.model.as_str()), ("p", "a"));
    assert_eq!(preset.system.as_deref(), Some("Be brief."));
    assert_eq!(preset.stop, ["\n"]);
    assert_eq!(
        (preset.reasoning_effort, preset.enable_thinking),
        (Some("low"), Some(false))
    );
    assert_eq!(
        json!(preset.chat_template_kwargs),
        json!({"a": [1, 2.5, "x"], "b": {"c": true}})
    );
    assert_eq!(
        (preset.sampling.temperature, preset.sampling.max_tokens),
        (Some(0.5), Some(9))
    );
    // The order of properties is that of the answer.
    let format = preset.response_format.as_ref().expect("a format");
    assert_eq!(
        json!(format).to_string(),
        r#"{"type":"json_schema","json_schema":{"schema":{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"integer"}}}}}"#
    );
    let again = parse(&loaded.to_toml()).expect("what was shown");
    assert_eq!(again.config, loaded.config, "{}", loaded.to_toml());
    let shown = again.config.presets[0].response_format.as_ref().expect("a format");
    assert_eq!(json!(shown).to_string(), json!(format).to_string());
}

#[test]
fn a_schema_may_be_json_in_a_string() {
    let schema = r#"{"type": "json_schema", "json_schema": {"schema": {"enum": ["a", null]}}}"#;
    let loaded = parse(&preset(&format!("response_format = '{schema}'"))).expect("a configuration");
    let format = loaded.config.presets[0].response_format.clone().expect("a format");
    assert_eq!(format["json_schema"]["schema"], json!({"enum": ["a", null]}));
    // TOML has no null.
    let again = parse(&loaded.to_toml()).expect("what was shown");
    assert_eq!(again.config, loaded.config, "{}", loaded.to_toml());
}

#[test]
fn a_model_may_be_named_in_all_ways() {
    for name in ["a", "b", "r"] {
        let text = preset("").replace("model = \"a\"", &format!("model = {name:?}"));
        assert_eq!(messages(&text), [""; 0], "{name}");
    }
    // A preset may be called like the role of its own model.
    assert_eq!(messages(&preset("").replace("name = \"p\"", "name = \"r\"")), [""; 0]);
}

#[test]
fn mistakes_are_found() {
    let cases = [
        ("model = \"b\"\n", "not valid TOML"),
        (
            "stop = [\"\"]",
            "`stop` must have texts of 1 to 256 bytes, but one has 0",
        ),
        (
            "reasoning_effort = \"lots\"",
            "`reasoning_effort` must be one of \"none\"",
        ),
        (
            "response_format = \"json\"",
            "`response_format` must be a JSON object, but",
        ),
        (
            "response_format = []",
            "must be a table, or a JSON object in a string, but is a list",
        ),
        ("response_format = {}", "`response_format` must have a `type`"),
        ("response_format = { type = \"xml\" }", "but is \"xml\""),
        (
            "response_format = { type = \"json_schema\" }",
            "has no `json_schema.schema`",
        ),
        (
            "chat_template_kwargs = \"[]\"",
            "`chat_template_kwargs` must be a table",
        ),
        ("temperature = 0.5", "unknown key `temperature` in [[preset]]"),
        ("sampling = { temperature = 20 }", "`temperature`"),
    ];
    for (lines, expect) in cases {
        let errors = parse(&preset(lines)).expect_err(lines);
        let found = &errors.diagnostics()[0].message;
        assert!(found.contains(expect), "{lines}: {found}");
    }
    let many = format!("stop = {:?}", vec!["x"; 17]);
    assert_eq!(messages(&preset(&many)), ["`stop` has more than 16 texts"]);
}

#[test]
fn names_and_models_are_checked() {
    let more = |lines: &str| messages(&(preset("") + lines));
    let first = |lines: &str| more(lines).into_iter().next().unwrap_or_default();
    assert!(first("[[preset]]\nname = \"p\"\nmodel = \"a\"").starts_with("the preset `p` is already at "));
    assert!(
        first("[[preset]]\nname = \"a\"\nmodel = \"a\"")
            .starts_with("the preset `a` is called like the name of a model")
    );
    assert!(
        first("[[preset]]\nname = \"b\"\nmodel = \"a\"")
            .starts_with("the preset `b` is called like the alias of a model")
    );
    assert_eq!(
        more("[[preset]]\nname = \"q\"\nmodel = \"p\""),
        ["`model` is `p`, which is a preset itself"]
    );
    assert_eq!(
        more("[[preset]]\nname = \"q\"\nmodel = \"q\""),
        ["`model` is `q`, which is a preset itself"]
    );
    assert_eq!(
        more("[[preset]]\nname = \"q\"\nmodel = \"nobody\""),
        ["`model` is `nobody`, but there is no such [[model]]"]
    );
    assert_eq!(
        more("[[preset]]\n"),
        ["[[preset]] has no `name`", "[[preset]] has no `model`"]
    );
    // A role of another model would be hidden.
    let other =
        "[[model]]\nname = \"c\"\nrole = \"s\"\npath = \"demo:narrator\"\n[[preset]]\nname = \"s\"\nmodel = \"a\"";
    let loaded = parse(&(model("") + other)).expect("a configuration");
    let warning = &loaded.warnings.diagnostics()[0];
    assert!(warning.severity == Severity::Warning && warning.message.contains("role of another model"));
    let errors = parse(&(model("") + "[preset]\nname = \"p\"")).expect_err("no list");
    assert!(errors.to_string().contains("[[preset]]"), "{errors}");
}

#[test]
fn the_built_in_pair_has_presets() {
    let loaded = load_from(&Overrides::default(), &Environment::new()).expect("the built-in pair");
    let of = |preset: &hearth::config::PresetConfig| (preset.name.clone(), preset.model.clone());
    let presets: Vec<_> = loaded.config.presets.iter().map(of).collect();
    let expect = [
        ("reasoning", "demo-reasoner"),
        ("narrator", "demo-narrator"),
        ("intent", "demo-reasoner"),
        ("extract", "demo-reasoner"),
    ];
    assert_eq!(presets, expect.map(|(name, model)| (name.to_owned(), model.to_owned())));
    // As an editor would see it.
    let text = loaded.to_toml();
    assert_eq!(parse(&text).expect("what was shown").config, loaded.config);
}
