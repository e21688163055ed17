//! From `models.toml`, `HEARTH_*` and flags to a checked [`Config`].
//!
//! Precedence, lowest first: the file, the environment, the flags. All mistakes are reported at once.

mod file;
mod mistakes;
mod overrides;
mod schema;
mod section;
mod types;
mod units;

use std::path::{Path, PathBuf};

pub use mistakes::{ConfigErrors, Mistake};
pub use overrides::Overrides;
pub use schema::schema;
pub use types::{Config, MemoryConfig, MemoryLimit, ModelConfig, ModelSource, ServerConfig};

/// A configuration, and the file that it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// `None`: no file, the built-in pair.
    pub file: Option<PathBuf>,
    /// What is legal but may not be meant.
    pub warnings: Vec<String>,
}

/// Reads the configuration that the flags and the environment ask for.
///
/// The file is the one of `--config` or `HEARTH_CONFIG`, else `hearth/models.toml` in the user's configuration
/// directory if there is one. Without a file, hearth serves the GGUF files of `--model-path`, or the built-in pair.
///
/// # Errors
/// [`ConfigErrors`] with all mistakes.
pub fn load(overrides: &Overrides) -> Result<Loaded, ConfigErrors> {
    let file = overrides.config.clone().or_else(|| {
        let usual =
            etcetera::BaseStrategy::config_dir(&etcetera::choose_base_strategy().ok()?).join("hearth/models.toml");
        (overrides.model_path.is_empty() && usual.is_file()).then_some(usual)
    });
    let mut warnings =
        overrides::unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()));
    let mut config = match &file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                ConfigErrors::general(
                    format!("cannot read {}: {error}", path.display()),
                    "--config or HEARTH_CONFIG names the configuration file",
                )
            })?;
            parse(&text, path)?
        }
        None => Config {
            server: ServerConfig::default(),
            memory: MemoryConfig::default(),
            models: Vec::new(),
        },
    };
    overrides.apply(&mut config)?;
    if config.models.is_empty() {
        config.models = types::built_in_pair();
        overrides.apply_to_models(&mut config.models);
    }
    for (index, model) in config.models.iter().enumerate() {
        let twin = config.models[..index]
            .iter()
            .find(|other| other.role.is_some() && other.role == model.role);
        if let (Some(twin), Some(role)) = (twin, &model.role) {
            warnings.push(format!(
                "models `{}` and `{}` have the same role: requests for `{role}` go to the first",
                twin.name, model.name
            ));
        }
    }
    Ok(Loaded { config, file, warnings })
}

/// Reads the text of a configuration file; relative paths in it are relative to the file.
///
/// # Errors
/// [`ConfigErrors`] with all mistakes.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigErrors> {
    file::parse(text, path)
}

#[cfg(test)]
mod tests;
