//! What the handlers share: the models and the metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::ApiError;
use crate::engine::{Engine, Health, ModelCard};
use crate::generation::{ChatBackend, LocalBackend};
use crate::telemetry::Metrics;

/// The models of this server. Cheap to clone.
#[derive(Clone)]
pub struct State {
    served: Arc<[Arc<Served>]>,
    pub(super) metrics: Metrics,
    /// The one model of this listener; `None` serves all.
    only: Option<usize>,
    /// A model must be asked for by one of its names.
    strict: bool,
}

/// A model: what answers conversations, and the engine below it.
pub(super) struct Served {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) chat: Arc<dyn ChatBackend>,
}

impl Served {
    pub(super) fn name(&self) -> &str {
        &self.engine.card().name
    }
}

impl State {
    /// Serves these engines, the first of them for requests that name none.
    #[must_use]
    pub fn new(engines: Vec<Arc<dyn Engine>>, metrics: Metrics) -> Self {
        let served = engines.into_iter().map(|engine| {
            Arc::new(Served {
                chat: Arc::new(LocalBackend::new(engine.clone())),
                engine,
            })
        });
        Self {
            served: served.collect(),
            metrics,
            only: None,
            strict: false,
        }
    }

    /// The same, but names that no model has are refused even where only one model is served.
    pub(super) fn strict(self, strict: bool) -> Self {
        Self { strict, ..self }
    }

    /// The same, for a listener that serves only one model.
    pub(super) fn only(&self, index: usize) -> Self {
        Self {
            only: Some(index),
            ..self.clone()
        }
    }

    /// The engines of all listeners.
    pub(super) fn engines(&self) -> impl Iterator<Item = &dyn Engine> {
        self.served.iter().map(|served| &*served.engine)
    }

    /// The models of this listener.
    pub(super) fn served(&self) -> &[Arc<Served>] {
        match self.only {
            Some(index) => self.served.get(index..=index).unwrap_or_default(),
            None => &self.served,
        }
    }

    /// The model that a request means: by name, alias or role, or the first one if it names none.
    ///
    /// A listener with one model takes any name but that of another model, since many clients cannot leave theirs out
    /// or know only OpenAI's; unless it is strict.
    pub(super) fn resolve(&self, name: Option<&str>) -> Result<&Arc<Served>, ApiError> {
        let served = self.served();
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return served.first().ok_or_else(|| self.unknown(""));
        };
        match (find(served, name), served) {
            (Some(found), _) => Ok(found),
            (None, [only]) if !self.strict && find(&self.served, name).is_none() => {
                static TOLD: AtomicBool = AtomicBool::new(false);
                if !TOLD.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        asked = name.chars().take(64).collect::<String>(),
                        answers = only.name(),
                        "a request names a model that is not here; the only model answers (said once; \
                         `strict_models = true` in [server] refuses such requests)"
                    );
                }
                Ok(only)
            }
            _ => Err(self.unknown(name)),
        }
    }

    /// The model with this name, alias or role.
    pub(super) fn named(&self, name: &str) -> Result<&Arc<Served>, ApiError> {
        find(self.served(), name).ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> ApiError {
        let known: Vec<&str> = self.served().iter().map(|served| served.name()).collect();
        ApiError::no_model(name, &known)
    }

    /// The models of this listener, each with its state.
    pub(super) fn health(&self) -> Vec<(&str, Health)> {
        self.served()
            .iter()
            .map(|served| (served.name(), served.engine.health()))
            .collect()
    }
}

/// By name, then by alias, then by role. Clients that prefix a provider (`openai:qwen3-next`) are understood.
fn find<'s>(served: &'s [Arc<Served>], name: &str) -> Option<&'s Arc<Served>> {
    let by = |name: &str| {
        let first = |test: &dyn Fn(&ModelCard) -> bool| served.iter().find(|served| test(served.engine.card()));
        first(&|card| card.name == name)
            .or_else(|| first(&|card| card.aliases.iter().any(|alias| alias == name)))
            .or_else(|| first(&|card| card.role.as_deref() == Some(name)))
    };
    by(name).or_else(|| by(name.strip_prefix("openai:").or_else(|| name.strip_prefix("openai/"))?))
}
