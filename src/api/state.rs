//! What the handlers share: the models and the metrics.

use std::sync::Arc;

use super::body::Body;
use super::error::ApiError;
use super::presets;
use crate::engine::{Health, TokenEngine};
use crate::models::{Model, Preset, Registry, Target};
use crate::telemetry::Metrics;

/// The models of a listener, and the metrics of all. Cheap to clone.
#[derive(Clone)]
pub struct State {
    models: Registry,
    pub(super) metrics: Metrics,
}

impl State {
    /// Serves these models.
    #[must_use]
    pub fn new(models: Registry, metrics: Metrics) -> Self {
        Self { models, metrics }
    }

    /// The same, for a listener that serves only the model of this name; `None` if there is none.
    pub(super) fn only(&self, name: &str) -> Option<Self> {
        Some(Self {
            models: self.models.only(name)?,
            metrics: self.metrics.clone(),
        })
    }

    /// The engines of all listeners.
    pub(super) fn engines(&self) -> impl Iterator<Item = &dyn TokenEngine> {
        self.models.all().iter().map(|model| &*model.engine)
    }

    /// The models of this listener.
    pub(super) fn served(&self) -> &[Arc<Model>] {
        self.models.models()
    }

    /// The presets of this listener's models.
    pub(super) fn presets(&self) -> impl Iterator<Item = &Preset> {
        self.models.presets()
    }

    /// What a request means, see [`Registry::resolve`]. The body gets what a preset says and the request does not.
    pub(super) fn open(&self, body: &mut Body) -> Result<Target<'_>, ApiError> {
        let target = self.models.resolve(body.model()?)?;
        if let Some(preset) = target.preset {
            presets::apply(body, &preset.config);
        }
        Ok(target)
    }

    /// The model or preset with this name, alias or role.
    pub(super) fn named(&self, name: &str) -> Result<Target<'_>, ApiError> {
        Ok(self.models.named(Some(name))?)
    }

    /// The models of this listener, each with its state.
    pub(super) fn health(&self) -> Vec<(&str, Health)> {
        let models = self.served().iter();
        models.map(|model| (model.name(), model.engine.health())).collect()
    }
}
