//! What the handlers share: the models and the metrics.

use std::borrow::Cow;
use std::sync::Arc;

use super::body::Body;
use super::error::ApiError;
use super::keys::{Caller, Keys};
use super::presets;
use crate::config::Config;
use crate::engine::TokenEngine;
use crate::models::{Models, Registry, Reloaded, Target, UnknownModel};
use crate::telemetry::Metrics;

/// Characters of a request that are logged, if they are.
const LOGGED: usize = 2000;

/// The models of a listener, and the metrics of all. Cheap to clone.
#[derive(Clone)]
pub struct State {
    models: Models,
    /// The one model of this listener; `None` shows all.
    only: Option<Arc<str>>,
    /// Where the configuration is read again.
    configuration: Option<Configuration>,
    pub(super) metrics: Metrics,
    log_prompts: bool,
    pub(super) keys: Keys,
}

/// Reads the configuration that a server was started with.
#[derive(Clone)]
pub struct Configuration(Arc<dyn Fn() -> anyhow::Result<Config> + Send + Sync>);

impl Configuration {
    /// `read` may block.
    pub fn new(read: impl Fn() -> anyhow::Result<Config> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads it as it is now. Blocks.
    ///
    /// # Errors
    /// When it has mistakes.
    pub fn read(&self) -> anyhow::Result<Config> {
        (self.0)()
    }
}

impl State {
    /// Serves these models.
    #[must_use]
    pub fn new(models: Models, metrics: Metrics) -> Self {
        Self {
            models,
            only: None,
            configuration: None,
            metrics,
            log_prompts: false,
            keys: Keys::default(),
        }
    }

    /// The same, which writes what requests ask into the log, if wanted.
    pub(super) fn log_prompts(self, log_prompts: bool) -> Self {
        Self { log_prompts, ..self }
    }

    /// The same, for clients with these keys.
    #[must_use]
    pub fn with_keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    /// Takes over another configuration.
    pub fn reload(&self, next: Config) -> Reloaded {
        self.keys.replace(&next);
        self.models.reload(next)
    }

    /// The same, with a configuration that can be read again.
    #[must_use]
    pub fn with_configuration(self, configuration: Configuration) -> Self {
        Self {
            configuration: Some(configuration),
            ..self
        }
    }

    pub(super) fn configuration(&self) -> Option<&Configuration> {
        self.configuration.as_ref()
    }

    /// The same, for a listener that serves only the model of this name.
    pub(super) fn only(&self, name: &str) -> Self {
        Self {
            only: Some(name.into()),
            ..self.clone()
        }
    }

    /// The models of all listeners.
    pub(super) fn models(&self) -> &Models {
        &self.models
    }

    /// The engines of all listeners.
    pub(super) fn engines(&self) -> Vec<Arc<dyn TokenEngine>> {
        let registry = self.models.registry();
        registry.all().iter().map(|model| model.engine.clone()).collect()
    }

    /// The models and presets of this listener, as they are now; none where its one model was taken out of the configuration.
    pub(super) fn registry(&self) -> Registry {
        self.seen().unwrap_or_else(|_| Registry::new([], true))
    }

    fn seen(&self) -> Result<Registry, UnknownModel> {
        self.models.seen(self.only.as_deref())
    }

    /// The name of the model that a caller means: who gives none means the first one that it may use.
    fn meant<'n>(&self, caller: &Caller, name: Option<&'n str>) -> Option<Cow<'n, str>> {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            return Some(name.into());
        }
        let registry = self.registry();
        let mut models = registry.models().iter().map(Target::from);
        let first = models.find(|target| caller.sees(target))?;
        Some(first.name().to_owned().into())
    }

    /// What a request means, without loading it, if it may.
    pub(super) fn resolve(&self, body: &Body) -> Result<Target, ApiError> {
        let caller = body.caller();
        let name = self.meant(caller, body.model()?);
        let target = self.seen().and_then(|seen| seen.resolve(name.as_deref()));
        let target = target.map_err(|unknown| caller.unknown(unknown))?;
        caller.check(&target)?;
        Ok(target)
    }

    /// What a request means, see [`Models::open`]. The body gets what a preset says and the request does not.
    pub(super) async fn open(&self, body: &mut Body) -> Result<Target, ApiError> {
        // Who may not use a model cannot have it loaded either.
        self.resolve(body)?;
        if self.log_prompts {
            tracing::info!(body = body.excerpt(LOGGED), "a request asks");
        }
        let caller = body.caller().clone();
        let name = self.meant(&caller, body.model()?);
        let permission = Arc::new(move |target: &Target| caller.sees(target));
        let target = self
            .models
            .open(self.only.as_deref(), name.as_deref(), body.autoload, permission)
            .await?;
        if let Some(preset) = &target.preset {
            presets::apply(body, &preset.config);
        }
        Ok(target)
    }

    /// The model or preset with this name, alias or role.
    pub(super) fn named(&self, name: &str) -> Result<Target, ApiError> {
        Ok(self.seen()?.named(Some(name))?)
    }

    /// The same, for somebody who may not use all.
    pub(super) fn named_for(&self, caller: &Caller, name: &str) -> Result<Target, ApiError> {
        let name = self.meant(caller, Some(name));
        let target = self.seen().and_then(|seen| seen.named(name.as_deref()));
        let target = target.map_err(|unknown| caller.unknown(unknown))?;
        caller.check(&target)?;
        Ok(target)
    }

    /// The models of this listener that the caller may use.
    pub(super) fn models_for(&self, caller: &Caller) -> Vec<Target> {
        let registry = self.registry();
        let models = registry.models().iter().map(Target::from);
        models.filter(|target| caller.sees(target)).collect()
    }
}
