//! What the handlers share: the models and the metrics.

use std::sync::Arc;

use super::error::ApiError;
use crate::engine::{Health, TokenEngine};
use crate::models::{Model, Registry};
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

    /// The model that a request means, see [`Registry::resolve`].
    pub(super) fn resolve(&self, name: Option<&str>) -> Result<&Arc<Model>, ApiError> {
        Ok(self.models.resolve(name)?)
    }

    /// The model with this name, alias or role.
    pub(super) fn named(&self, name: &str) -> Result<&Arc<Model>, ApiError> {
        Ok(self.models.named(Some(name))?)
    }

    /// The models of this listener, each with its state.
    pub(super) fn health(&self) -> Vec<(&str, Health)> {
        let models = self.served().iter();
        models.map(|model| (model.name(), model.engine.health())).collect()
    }
}
