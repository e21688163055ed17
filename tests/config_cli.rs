//! `hearth config` from outside.

#[path = "common/command.rs"]
mod command;

use std::fs;

use assert_cmd::Command;
use serde_json::Value;

/// The command, without what the surroundings of the test may have configured.
fn hearth(arguments: &[&str]) -> Command {
    let mut command = command::hearth(arguments);
    command.env_remove("XDG_CONFIG_HOME").env("HOME", "/nonexistent");
    command
}

fn stdout(command: &mut Command) -> String {
    String::from_utf8(command.assert().success().get_output().stdout.clone()).expect("UTF-8")
}

#[test]
fn the_built_in_pair_is_shown() {
    let text = stdout(&mut hearth(&["config", "show"]));
    assert!(
        text.starts_with("# no file was read: these are the built-in models"),
        "{text}"
    );
    assert!(text.contains("path = \"demo:reasoner\""), "{text}");

    let json: Value = serde_json::from_str(&stdout(&mut hearth(&["config", "show", "--json"]))).expect("JSON");
    assert_eq!(json["server"]["port"], 8080);
    assert_eq!(json["model"][1]["name"], "demo-narrator");
    assert_eq!(json["model"][0]["sampling"]["temperature"], 0.7);
}

#[test]
fn the_example_in_the_checkout_is_not_read_by_itself() {
    let mut command = hearth(&["config", "check"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(stdout(&mut command).starts_with("ok: no file was read"));
}

#[test]
fn flags_win_over_the_environment() {
    let mut command = hearth(&["config", "show", "--json", "--port", "9001"]);
    let json: Value = serde_json::from_str(&stdout(command.env("HEARTH_PORT", "9000"))).expect("JSON");
    assert_eq!(json["server"]["port"], 9001);
    let mut command = hearth(&["config", "show"]);
    let text = stdout(command.env("HEARTH_PORT", "9000"));
    assert!(
        text.lines()
            .any(|line| line.starts_with("port = 9000") && line.ends_with("# HEARTH_PORT")),
        "{text}"
    );
}

#[test]
fn mistakes_exit_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("models.toml");
    fs::write(
        &file,
        "[server]\nprot = 1\n[[model]]\nname = \"\"\npath = \"demo:narrator\"\n",
    )
    .expect("a file");
    let file = file.to_str().expect("UTF-8");

    let assert = hearth(&["config", "check", "--config", file]).assert().code(2);
    let text = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    for expected in [
        "unknown key `prot` in [server]",
        "models.toml:2:1",
        "did you mean `port`?",
        "2 mistakes",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(assert.get_output().stdout.is_empty());

    let assert = hearth(&["config", "check", "--json", "--config", file])
        .assert()
        .code(2);
    let json: Value = serde_json::from_slice(&assert.get_output().stdout).expect("JSON");
    assert_eq!(json["ok"], false);
    assert_eq!(json["diagnostics"][1]["line"], 4);

    hearth(&["config", "show", "--config", file]).assert().code(2);
    hearth(&["config", "show", "--config", file, "--model-path", file])
        .assert()
        .code(2);
}

#[test]
fn the_schema_is_the_documented_one() {
    let documented = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/models.schema.json");
    assert_eq!(
        stdout(&mut hearth(&["config", "schema"])),
        fs::read_to_string(documented).expect("the schema")
    );
}
