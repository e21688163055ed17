//! `hearth doctor`, `ps`, `completions` and `man`, seen from outside.

#[path = "common/command.rs"]
mod command;

use std::process::Output;

use serde_json::Value;

fn hearth(args: &[&str]) -> Output {
    command::hearth(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Names of all subcommands, as the help lists them.
fn commands() -> Vec<String> {
    let help = stdout(&hearth(&["--help"]));
    let (_, list) = help.split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let names = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<String> = names
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .filter(|name| name != "help")
        .collect();
    assert!(names.len() > 10, "{help}");
    names
}

#[test]
fn completions_know_all_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = stdout(&hearth(&["completions", shell]));
        for command in commands() {
            assert!(script.contains(&command), "{shell} lacks {command}");
        }
        assert!(script.contains("model-path"), "{shell}");
    }
    let script = stdout(&hearth(&["completions", "bash"]));
    let mut bash = std::process::Command::new("bash");
    let checked = bash.args(["-n", "-c", &script]).status().unwrap();
    assert!(checked.success(), "bash reads it");
    assert_eq!(hearth(&["completions", "dos"]).status.code(), Some(2));
}

#[test]
fn manual_pages_are_there_for_all_commands() {
    let page = stdout(&hearth(&["man"]));
    assert!(page.contains(".TH hearth 1"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let written = hearth(&["man", "--to", folder.path().join("man1").to_str().unwrap()]);
    assert!(written.status.success(), "{}", stderr(&written));
    for command in commands() {
        assert!(page.contains(&command.replace('-', "\\-")), "{command}");
        let text = std::fs::read_to_string(folder.path().join(format!("man1/hearth-{command}.1"))).unwrap();
        assert!(text.contains(".SH OPTIONS"), "{command}");
    }
}

/// A configuration without fixed ports.
fn config(folder: &std::path::Path, text: &str) -> String {
    let file = folder.join("models.toml");
    std::fs::write(&file, format!("[server]\nport = 0\n{text}")).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn the_doctor_looks_at_everything_and_ends_with_the_right_code() {
    let folder = tempfile::tempdir().unwrap();
    let config_file = config(folder.path(), "");
    let told = hearth(&["doctor", "--config", &config_file, "--json"]);
    let report: Value = serde_json::from_slice(&told.stdout).unwrap_or_else(|_| panic!("{}", stderr(&told)));
    let findings = report["findings"].as_array().unwrap();
    let subjects: Vec<&str> = findings
        .iter()
        .map(|finding| finding["subject"].as_str().unwrap())
        .collect();
    for subject in [
        "cores",
        "instructions",
        "memory",
        "memory speed",
        "swap",
        "disk",
        "folders",
        "configuration",
        "GPU",
        "time",
    ] {
        assert!(subjects.contains(&subject), "no {subject} in {subjects:?}");
    }
    for finding in findings.iter().filter(|finding| finding["status"] != "ok") {
        for field in ["what", "why", "change"] {
            assert!(
                finding[field].is_string() || finding["subject"] == "configuration",
                "{finding}"
            );
        }
    }
    let expected = i32::from(report["status"] == "problem");
    assert_eq!(told.status.code(), Some(expected), "{report}");
    // A text says the same; a broken configuration is a problem for certain.
    let broken = config(folder.path(), "[[model]]\nname = \"x\"\npath = \"missing.gguf\"\n");
    let told = hearth(&["doctor", "--config", &broken, "--quick"]);
    assert_eq!(told.status.code(), Some(1));
    let text = stdout(&told);
    let problem = text
        .lines()
        .find(|line| line.starts_with("problem  configuration"))
        .unwrap();
    assert!(problem.contains("missing.gguf"), "{text}");
    let quiet = stdout(&hearth(&["doctor", "--config", &broken, "--quick", "--quiet"]));
    assert!(!quiet.contains("\nok") && !quiet.starts_with("ok"), "{quiet}");
}

#[test]
fn nobody_at_home_is_told_with_a_hint() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let told = hearth(&["ps", "--url", &url]);
    assert_eq!(told.status.code(), Some(1));
    assert!(
        stderr(&told).contains("nothing answers at") && stderr(&told).contains("--url"),
        "{}",
        stderr(&told)
    );
    assert_eq!(hearth(&["ps", "--url", "nonsense"]).status.code(), Some(2));
}
