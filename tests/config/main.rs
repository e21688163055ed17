//! Whole configurations: what is understood, and how mistakes are told.

mod documents;
mod garbage;
mod layers;
mod mistakes;
mod paths;
mod presets;

use std::fs;
use std::path::{Path, PathBuf};

use hearth::config::{ConfigErrors, Environment, Loaded, Overrides, load_text};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn env(variables: &[(&str, &str)]) -> Environment {
    variables
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

pub fn parse(text: &str) -> Result<Loaded, ConfigErrors> {
    load_text(
        text,
        Path::new("models.toml"),
        &Overrides::default(),
        &Environment::new(),
    )
}

/// A file as one model with `path = "demo:reasoner"` and these further lines.
pub fn model(lines: &str) -> String {
    format!("[[model]]\nname = \"a\"\npath = \"demo:reasoner\"\n{lines}\n")
}

/// The same with a preset of the model with these lines.
pub fn preset(lines: &str) -> String {
    format!(
        "{}[[preset]]\nname = \"p\"\nmodel = \"a\"\n{lines}\n",
        model("role = \"r\"\naliases = [\"b\"]")
    )
}

pub fn messages(text: &str) -> Vec<String> {
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

pub fn gguf(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, b"GGUF").expect("a model to be written");
    path
}
