//! From `models.toml`, `HEARTH_*` and flags to a checked [`Config`].
//!
//! `keys` declares every key once. The layers, lowest first: defaults, the file, the environment, the flags. Each puts its
//! values into a `PartialConfig` that remembers where every value came from; `check` compares the values with each other and
//! with the disk. No layer stops at a mistake: all of them are collected and reported at once, as [`ConfigErrors`].

mod builtin;
mod check;
mod diagnostic;
mod docs;
mod fallback;
mod file;
mod key_file;
mod keys;
mod kind;
mod locate;
mod overrides;
mod path;
mod reader;
mod sampling;
mod schema;
mod secret;
mod section;
mod setting;
mod show;
mod suggest;
mod types;
mod upstream;
mod value;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use crate::memory::{KvType, KvTypes};
pub use diagnostic::{ConfigErrors, Diagnostic, Origin, Severity, SourceFile};
pub use docs::keys_as_markdown;
pub use keys::{
    Config, DraftConfig, ExpertsConfig, KeyConfig, MemoryConfig, ModelConfig, PresetConfig, RopeConfig, ServerConfig,
    keys,
};
pub use overrides::Overrides;
pub use schema::schema;
pub use secret::ApiKey;
pub use section::Key;
pub use types::{
    CacheDevice, CacheSize, DraftKind, Environment, ExpertPlacement, FallbackOn, KvMemory, LoadAt, MemoryLimit,
    ModelSource, STOP_BYTES, STOPS, UpstreamKind, UpstreamReasoning,
};
pub use upstream::UpstreamConfig;

use diagnostic::Problems;
use keys::PartialConfig;
use path::Base;

/// The variables of this process. Text that is not UTF-8 is replaced where it is broken.
pub fn environment() -> Environment {
    std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect()
}

/// A configuration together with the story of how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// What is legal, but hardly meant.
    pub warnings: ConfigErrors,
    partial: PartialConfig,
}

/// Finds, reads and checks the configuration that the flags and the environment of this process ask for.
///
/// # Errors
/// [`ConfigErrors`] with every mistake that was found in the file, the environment and the flags.
pub fn load(overrides: &Overrides) -> Result<Loaded, ConfigErrors> {
    load_from(overrides, &environment())
}

/// Like [`load`], with another environment.
///
/// # Errors
/// [`ConfigErrors`] with every mistake that was found in the file, the environment and the flags.
pub fn load_from(overrides: &Overrides, env: &Environment) -> Result<Loaded, ConfigErrors> {
    match locate::locate(overrides, env) {
        Ok(locate::Found::File(source)) => resolve(Some(source), overrides, env),
        Ok(locate::Found::BuiltIn | locate::Found::Flags) => resolve(None, overrides, env),
        Err(diagnostic) => {
            // The file is lost, but mistakes in the environment and the flags can still be told.
            let problems = Problems::new(None);
            problems.push(*diagnostic);
            overrides::apply(&mut PartialConfig::default(), overrides, env, &problems);
            Err(problems.into_errors())
        }
    }
}

/// Like [`load_from`], with the text of the file at hand; `path` is only used for messages and relative paths.
///
/// # Errors
/// [`ConfigErrors`] with every mistake that was found in the text, the environment and the flags.
pub fn load_text(text: &str, path: &Path, overrides: &Overrides, env: &Environment) -> Result<Loaded, ConfigErrors> {
    let source = SourceFile {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    resolve(Some(source), overrides, env)
}

/// Bytes of a size with a unit, such as `16GiB`, as in the configuration.
///
/// # Errors
/// A sentence on what is wrong with it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    value::size(text).map_err(sentence)
}

/// A time span with a unit, such as `200ms`, as in the configuration.
///
/// # Errors
/// A sentence on what is wrong with it.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    value::duration(text).map_err(sentence)
}

fn sentence(fault: value::Fault) -> String {
    match fault.hint {
        Some(hint) => format!("{}; {hint}", fault.message),
        None => fault.message,
    }
}

fn resolve(source: Option<SourceFile>, overrides: &Overrides, env: &Environment) -> Result<Loaded, ConfigErrors> {
    // What messages quote, and what stays in memory, has no keys in it.
    let hidden = source.as_ref().map(|source| SourceFile {
        path: source.path.clone(),
        text: secret::hidden(&source.text),
    });
    let problems = Problems::new(hidden);
    let mut partial = match source {
        Some(source) => file::read(&source.text, &Base::of_file(&source.path, env), &problems),
        None if overrides.model_path.is_empty() => builtin::config(&problems),
        None => overrides::models_of_flags(overrides, env, &problems),
    };
    overrides::apply(&mut partial, overrides, env, &problems);
    key_file::complete(&mut partial, env, &problems);
    check::check(&partial, env, &problems);
    let file = problems.source().map(|source| source.path.clone());
    let problems = problems.into_errors();
    match partial.build() {
        Some(config) if !problems.has_errors() => Ok(Loaded {
            config,
            file,
            warnings: problems,
            partial,
        }),
        _ => Err(problems),
    }
}
