//! The `hearth` command, for tests of what it prints.

// Each test takes what it needs.
#![allow(dead_code)]

use std::path::PathBuf;

use assert_cmd::Command;
use assert_cmd::assert::Assert;

/// `hearth`, whatever this machine sets of its variables.
pub fn hearth(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("hearth"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEARTH_") {
            command.env_remove(name);
        }
    }
    command.env("HEARTH_CACHE", cache()).args(args);
    command
}

/// One folder for all tests: unpacking at the same time must be safe.
pub fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache")
}

pub fn stdout(assert: &Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stdout).into_owned()
}

pub fn stderr(assert: &Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}
