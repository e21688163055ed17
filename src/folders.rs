//! Where hearth keeps files of its own.

use std::path::PathBuf;

use etcetera::BaseStrategy;

/// What can be made again: `HEARTH_CACHE` unless it is empty, or `hearth` in the user's cache directory.
#[must_use]
pub fn cache() -> PathBuf {
    if let Some(folder) = std::env::var_os("HEARTH_CACHE").filter(|folder| !folder.is_empty()) {
        return folder.into();
    }
    match etcetera::choose_base_strategy() {
        Ok(strategy) => strategy.cache_dir().join("hearth"),
        // A service user without a home directory.
        Err(_) => std::env::temp_dir().join("hearth"),
    }
}

/// Which model files were tried and can be used.
#[must_use]
pub fn tried() -> PathBuf {
    cache().join("tried")
}

/// Heat maps of models: how often which expert was used.
#[must_use]
pub fn heat() -> PathBuf {
    cache().join("heat")
}

/// Models that were fetched: `HEARTH_MODELS` unless it is empty, or `hearth/models` in the user's folder for data.
#[must_use]
pub fn models() -> PathBuf {
    if let Some(folder) = std::env::var_os("HEARTH_MODELS").filter(|folder| !folder.is_empty()) {
        return folder.into();
    }
    match etcetera::choose_base_strategy() {
        Ok(strategy) => strategy.data_dir().join("hearth").join("models"),
        Err(_) => cache().join("models"),
    }
}
