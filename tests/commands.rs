//! The commands that need no server, seen from outside.

#[path = "common/command.rs"]
mod command;

use command::{stderr, stdout};

fn hearth(args: &[&str]) -> assert_cmd::assert::Assert {
    command::hearth(args).assert()
}

#[test]
fn mistakes_exit_with_2() {
    hearth(&["serve", "--port", "99999"]).code(2);
    hearth(&["no-such-command"]).code(2);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("models.toml");
    std::fs::write(&config, "[[model]]\nnam = \"x\"\n").unwrap();
    let config = config.to_str().unwrap();
    let checked = hearth(&["config", "check", "--config", config]).code(2);
    assert!(
        stderr(&checked).contains("did you mean `name`?"),
        "{}",
        stderr(&checked)
    );
    let served = hearth(&["serve", "--config", config]).code(2);
    assert!(stderr(&served).contains("3 mistakes"), "{}", stderr(&served));
    let json = hearth(&["config", "check", "--json", "--config", config]).code(2);
    let report: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(report["ok"], false);
}

#[test]
fn damaged_models_exit_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    for content in [
        &b"GGUF\x03\x00"[..],
        b"",
        b"PK\x03\x04",
        b"GGUF\x03\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        std::fs::write(&file, content).unwrap();
        let path = file.to_str().unwrap();
        let inspected = hearth(&["inspect", path]).code(1);
        assert!(stderr(&inspected).contains("at byte"), "{}", stderr(&inspected));
        if !content.starts_with(b"GGUF") {
            // No model at all: a mistake in the arguments.
            hearth(&["serve", "--port", "0", "--model-path", path]).code(2);
            continue;
        }
        for args in [
            &["generate", "x", "--model-path", path][..],
            &["serve", "--port", "0", "--model-path", path],
        ] {
            let failed = hearth(args).code(1);
            assert!(stderr(&failed).contains("at byte"), "{}", stderr(&failed));
        }
    }
}

#[test]
fn schema_and_help_are_printed() {
    let schema = hearth(&["config", "schema"]).success();
    serde_json::from_str::<serde_json::Value>(&stdout(&schema)).unwrap();
    let help = hearth(&["--help"]).success();
    for command in ["serve", "generate", "models", "inspect", "config", "benchmark"] {
        assert!(stdout(&help).contains(command));
    }
}

#[cfg(feature = "demo")]
mod with_models {
    use super::*;

    #[test]
    fn the_defaults_are_shown() {
        let shown = hearth(&["config", "show"]).success();
        assert!(stdout(&shown).contains("demo-reasoner"));
        let again: toml::Value = toml::from_str(&stdout(&shown)).unwrap();
        assert_eq!(again["server"]["port"].as_integer(), Some(8080));
        let models = hearth(&["models", "--json"]).success();
        let models: serde_json::Value = serde_json::from_str(&stdout(&models)).unwrap();
        assert_eq!(models[0]["architecture"], "qwen3next");
        assert_eq!(models[1]["architecture"], "llama");
        let path = models[0]["path"].as_str().unwrap();
        let inspected = hearth(&["inspect", path, "--json"]).success();
        let inspected: serde_json::Value = serde_json::from_str(&stdout(&inspected)).unwrap();
        assert!(inspected["geometry"]["experts"].as_u64().unwrap() >= 32);
        assert_eq!(inspected["geometry"]["mtp_layers"], 1);
    }

    #[test]
    fn prompts_are_answered() {
        let json = hearth(&["generate", "hello", "--temperature", "0", "--max-tokens", "8", "--json"]).success();
        let answer: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
        assert!(answer["completion_tokens"].as_u64().unwrap() <= 8);
        let text = hearth(&["generate", "hello", "-t", "0", "-n", "8"]).success();
        assert_eq!(stdout(&text).trim_end(), answer["text"].as_str().unwrap().trim_end());
        let unknown = hearth(&["generate", "hello", "--model", "nobody"]).code(1);
        assert!(stderr(&unknown).contains("there is no model `nobody`"));
    }

    #[test]
    fn a_file_of_prompts_is_answered_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prompts.jsonl");
        std::fs::write(
            &file,
            "\"hello\"\n\n{\"prompt\": \"bye\", \"max_tokens\": 2}\n\"thanks\"\n",
        )
        .unwrap();
        let batch = hearth(&["generate", "--batch", file.to_str().unwrap(), "-t", "0", "-n", "4"]).success();
        let lines: Vec<serde_json::Value> = stdout(&batch)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            lines
                .iter()
                .map(|line| line["index"].as_u64().unwrap())
                .collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert!(lines[1]["completion_tokens"].as_u64().unwrap() <= 2);
        std::fs::write(&file, "{\"promt\": 1}\n").unwrap();
        let wrong = hearth(&["generate", "--batch", file.to_str().unwrap()]).code(1);
        assert!(stderr(&wrong).contains("line 1"));
    }
}

#[test]
fn empty_variables_count_as_unset() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("here");
    std::fs::create_dir(&here).unwrap();
    let models = |format: &str| {
        let mut command = command::hearth(&["models"]);
        command
            .current_dir(&here)
            .env("XDG_CACHE_HOME", folder.path())
            .env("HOME", folder.path())
            .env("HEARTH_LOG", "")
            .env("HEARTH_LOG_FORMAT", format);
        for name in ["HEARTH_CACHE", "HEARTH_CONFIG", "HEARTH_PORT"] {
            command.env(name, "");
        }
        command.assert()
    };
    models("").success();
    models("json").success();
    assert_eq!(
        std::fs::read_dir(&here).unwrap().count(),
        0,
        "nothing is unpacked into the working folder"
    );
    let wrong = models("xml").code(2);
    assert!(
        stderr(&wrong).contains("`HEARTH_LOG_FORMAT` must be text or json"),
        "{}",
        stderr(&wrong)
    );
}

/// Killed without warning while it unpacks the built-in models: the next start removes what is half written.
#[cfg(feature = "demo")]
#[test]
fn what_a_killed_start_left_is_removed() {
    let names = |folder: &std::path::Path, wanted: fn(&str) -> bool| {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| wanted(name)).count()
    };
    let unfinished = |name: &str| name.starts_with(".demo-unpacking-") && name != ".demo-unpacking-lock";
    let mut killed = 0;
    for _ in 0..20 {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path();
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_hearth"))
            .env("HEARTH_CACHE", folder)
            .arg("models")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        while names(folder, unfinished) == 0 && child.try_wait().unwrap().is_none() {}
        // SIGKILL: nothing can be done about it.
        child.kill().unwrap();
        child.wait().unwrap();
        if names(folder, unfinished) == 0 {
            // It was faster.
            continue;
        }
        killed += 1;
        let mut again = command::hearth(&["models"]);
        again.env("HEARTH_CACHE", folder).assert().success();
        assert_eq!(names(folder, unfinished), 0);
        assert_eq!(names(folder, |name| name.ends_with(".gguf")), 2);
        if killed == 3 {
            break;
        }
    }
    assert!(killed > 0, "no process was killed while it wrote");
}
