//! What the handlers share: the engines, their templates, the metrics.

use std::sync::{Arc, OnceLock};

use crate::chat::{Template, TemplateError};
use crate::engine::{Engine, Health};
use crate::telemetry::Metrics;

use super::error::ApiError;

/// The engines of this server. Cheap to clone.
#[derive(Clone)]
pub struct State {
    served: Arc<[Arc<Served>]>,
    pub(super) metrics: Metrics,
    /// The one model of this listener; `None` serves all.
    only: Option<usize>,
}

/// An engine with its template, compiled when it is first used.
pub(super) struct Served {
    pub(super) engine: Arc<dyn Engine>,
    template: OnceLock<Result<Template, TemplateError>>,
}

impl Served {
    pub(super) fn template(&self) -> Result<&Template, ApiError> {
        self.template
            .get_or_init(|| {
                let card = self.engine.card();
                if card.chat_template.is_none() {
                    tracing::warn!(
                        model = card.name,
                        "the file has no chat template; conversations use ChatML"
                    );
                }
                Template::of(card)
            })
            .as_ref()
            .map_err(|error| error.clone().into())
    }
}

impl State {
    /// Serves these engines, the first of them for requests that name none.
    #[must_use]
    pub fn new(engines: Vec<Arc<dyn Engine>>, metrics: Metrics) -> Self {
        let served = engines.into_iter().map(|engine| {
            Arc::new(Served {
                engine,
                template: OnceLock::new(),
            })
        });
        Self {
            served: served.collect(),
            metrics,
            only: None,
        }
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
    /// Clients that prefix a provider (`openai:qwen3-next`) are understood.
    pub(super) fn resolve(&self, name: Option<&str>) -> Result<&Arc<Served>, ApiError> {
        let served = self.served();
        let known = || {
            served
                .iter()
                .map(|served| served.engine.card().name.as_str())
                .collect::<Vec<_>>()
        };
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return served.first().ok_or_else(|| ApiError::no_model("", &known()));
        };
        let find = |name: &str| {
            let card =
                |served: &&Arc<Served>, test: &dyn Fn(&crate::engine::ModelCard) -> bool| test(served.engine.card());
            served
                .iter()
                .find(|served| card(served, &|card| card.name == name))
                .or_else(|| {
                    served
                        .iter()
                        .find(|served| card(served, &|card| card.aliases.iter().any(|alias| alias == name)))
                })
                .or_else(|| {
                    served
                        .iter()
                        .find(|served| card(served, &|card| card.role.as_deref() == Some(name)))
                })
        };
        find(name)
            .or_else(|| find(name.strip_prefix("openai:").or_else(|| name.strip_prefix("openai/"))?))
            .ok_or_else(|| ApiError::no_model(name, &known()))
    }

    /// The models of this listener, each with its state.
    pub(super) fn health(&self) -> Vec<(&str, Health)> {
        self.served()
            .iter()
            .map(|served| (served.engine.card().name.as_str(), served.engine.health()))
            .collect()
    }
}
