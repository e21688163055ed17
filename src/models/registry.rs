//! The models of a process, by their names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::names::{Named, find};
use crate::config::PresetConfig;
use crate::engine::{ModelInfo, TokenEngine};
use crate::generation::{ChatBackend, LocalBackend};

/// A model that is served: what answers conversations, and the engine below it. Loading a model anew makes another `Model`.
pub struct Model {
    pub engine: Arc<dyn TokenEngine>,
    pub chat: Arc<dyn ChatBackend>,
    /// Cloned by each [`Target`].
    in_use: Arc<()>,
}

impl Model {
    /// A model whose conversations are rendered with its own template.
    #[must_use]
    pub fn new(engine: Arc<dyn TokenEngine>) -> Self {
        let chat = Arc::new(LocalBackend::new(engine.clone()));
        Self::with_chat(engine, chat)
    }

    /// A model whose conversations are somebody else's business.
    #[must_use]
    pub fn with_chat(engine: Arc<dyn TokenEngine>, chat: Arc<dyn ChatBackend>) -> Self {
        Self {
            engine,
            chat,
            in_use: Arc::default(),
        }
    }

    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        self.engine.info()
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.info().name
    }

    /// Whether a request is being prepared, waits or is computed.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let slots = self.engine.slots();
        Arc::strong_count(&self.in_use) > 1 || slots.busy > 0 || slots.waiting > 0
    }

    pub(super) fn failure(&self, reason: &str) -> ModelFailure {
        ModelFailure {
            model: self.name().to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// A model under a name of its own, with defaults for requests.
pub struct Preset {
    pub config: PresetConfig,
    pub model: Arc<Model>,
}

/// What a name means. The model is not unloaded while somebody has a target.
#[derive(Clone)]
pub struct Target {
    pub model: Arc<Model>,
    /// Where the name is that of a preset.
    pub preset: Option<Arc<Preset>>,
    chat: Arc<dyn ChatBackend>,
    /// For [`Model::is_busy`].
    _in_use: Arc<()>,
}

impl Target {
    fn new(model: &Arc<Model>, preset: Option<&Arc<Preset>>) -> Self {
        Self {
            model: model.clone(),
            preset: preset.cloned(),
            chat: model.chat.clone(),
            _in_use: model.in_use.clone(),
        }
    }

    /// What answers: the model, and where it cannot those that stand in for it.
    #[must_use]
    pub fn chat(&self) -> &Arc<dyn ChatBackend> {
        &self.chat
    }

    /// The same, but that something else answers.
    pub(super) fn answered_by(self, chat: Arc<dyn ChatBackend>) -> Self {
        Self { chat, ..self }
    }

    /// What answers call it: the model, or the preset.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.preset {
            Some(preset) => &preset.config.name,
            None => self.model.name(),
        }
    }
}

/// Whether who asks may be answered by a target.
pub type Permission = Arc<dyn Fn(&Target) -> bool + Send + Sync>;

impl From<&Arc<Model>> for Target {
    fn from(model: &Arc<Model>) -> Self {
        Self::new(model, None)
    }
}

impl From<&Arc<Preset>> for Target {
    fn from(preset: &Arc<Preset>) -> Self {
        Self::new(&preset.model, Some(preset))
    }
}

/// Something with a name.
#[derive(Clone, Copy)]
enum Candidate<'r> {
    Model(&'r Arc<Model>),
    Preset(&'r Arc<Preset>),
}

impl Candidate<'_> {
    fn target(self) -> Target {
        match self {
            Self::Model(model) => model.into(),
            Self::Preset(preset) => preset.into(),
        }
    }
}

impl Named for Candidate<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Model(model) => model.name(),
            Self::Preset(preset) => &preset.config.name,
        }
    }

    fn aliases(&self) -> &[String] {
        match self {
            Self::Model(model) => &model.info().aliases,
            Self::Preset(_) => &[],
        }
    }

    fn role(&self) -> Option<&str> {
        match self {
            Self::Model(model) => model.info().role.as_deref(),
            Self::Preset(_) => None,
        }
    }
}

/// Nobody has the name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no model `{name}`; there are: {}", known.join(", "))]
pub struct UnknownModel {
    pub name: String,
    /// Names that would have been right.
    pub known: Vec<String>,
}

/// A model that could not be loaded, or whose engine died.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model `{model}`: {reason}")]
pub struct ModelFailure {
    pub model: String,
    /// For people.
    pub reason: String,
}

/// Models and presets as they are at one moment, and which of them are to be seen. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    all: Arc<[Arc<Model>]>,
    presets: Arc<[Arc<Preset>]>,
    /// The one model of a listener of its own; `None` shows all.
    only: Option<Arc<Model>>,
    /// A model must be asked for by one of its names.
    strict: bool,
}

impl Registry {
    /// These models, the first of them for who names none. `strict`: a name that nobody has is refused even where there is
    /// only one model.
    #[must_use]
    pub fn new(models: impl IntoIterator<Item = Arc<Model>>, strict: bool) -> Self {
        Self {
            all: models.into_iter().collect(),
            presets: Arc::new([]),
            only: None,
            strict,
        }
    }

    /// The same, with these presets; one whose model is not here is left out.
    #[must_use]
    pub fn with_presets(self, presets: &[PresetConfig]) -> Self {
        let preset = |config: &PresetConfig| {
            let index = find(self.all.iter().map(|model| model.info()), Some(&config.model))?;
            Some(Arc::new(Preset {
                config: config.clone(),
                model: self.all.get(index)?.clone(),
            }))
        };
        Self {
            presets: presets.iter().filter_map(preset).collect(),
            ..self
        }
    }

    /// The same, with only the model of this name to be seen; `None` if there is none.
    #[must_use]
    pub fn only(&self, name: &str) -> Option<Self> {
        let only = self.all.iter().find(|model| model.name() == name)?.clone();
        Some(Self {
            only: Some(only),
            ..self.clone()
        })
    }

    /// All models, whichever are to be seen.
    #[must_use]
    pub fn all(&self) -> &[Arc<Model>] {
        &self.all
    }

    /// The models that are to be seen.
    #[must_use]
    pub fn models(&self) -> &[Arc<Model>] {
        match &self.only {
            Some(only) => std::slice::from_ref(only),
            None => &self.all,
        }
    }

    /// The presets of the models that are to be seen.
    pub fn presets(&self) -> impl Iterator<Item = &Arc<Preset>> + Clone {
        let seen = |preset: &&Arc<Preset>| match &self.only {
            Some(only) => Arc::ptr_eq(only, &preset.model),
            None => true,
        };
        self.presets.iter().filter(seen)
    }

    /// The model with this name or alias, the preset with this name, or the model with this role; the first model without a
    /// name.
    ///
    /// # Errors
    /// When nothing that is to be seen has the name.
    pub fn named(&self, name: Option<&str>) -> Result<Target, UnknownModel> {
        let models = self.models().iter().map(Candidate::Model);
        let mut candidates = models.chain(self.presets().map(Candidate::Preset));
        match find(candidates.clone(), name).and_then(|index| candidates.nth(index)) {
            Some(found) => Ok(found.target()),
            None => {
                let models = self.models().iter().map(|model| model.name());
                let known = models.chain(self.presets().map(|preset| preset.config.name.as_str()));
                Err(UnknownModel {
                    name: name.unwrap_or_default().to_owned(),
                    known: known.map(str::to_owned).collect(),
                })
            }
        }
    }

    /// As [`Registry::named`]; but a single model takes any name that nothing else has, unless names are strict: many clients
    /// cannot leave theirs out, or know only OpenAI's.
    ///
    /// # Errors
    /// As [`Registry::named`].
    pub fn resolve(&self, name: Option<&str>) -> Result<Target, UnknownModel> {
        let unknown = match self.named(name) {
            Ok(target) => return Ok(target),
            Err(unknown) => unknown,
        };
        let all = self.all.iter().map(Candidate::Model);
        let elsewhere = find(all.chain(self.presets.iter().map(Candidate::Preset)), name);
        match self.models() {
            [only] if !self.strict && elsewhere.is_none() => {
                static TOLD: AtomicBool = AtomicBool::new(false);
                if !TOLD.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        asked = unknown.name.chars().take(64).collect::<String>(),
                        answers = only.name(),
                        "a request names a model that is not here; the only model answers (said once; \
                         `strict_models = true` in [server] refuses such requests)"
                    );
                }
                Ok(only.into())
            }
            _ => Err(unknown),
        }
    }
}
