//! Models that stand in for others, as the configuration says.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};

use super::live::Models;
use super::registry::{Permission, Target};
use crate::generation::{
    Alternatives, ChatBackend, ChatRequest, Conversation, Fallback, GenerationError, OutputStream, Substitutes,
    TextRequest,
};

/// The models that may answer somebody.
struct Permitted {
    models: Models,
    permission: Permission,
}

impl Models {
    /// The same target, answered by others where its model cannot: by those that who asks may use. The models of a preset take
    /// the place of the model's own.
    pub(super) fn with_fallback(&self, target: Target, permission: Permission) -> Target {
        let preset = target
            .preset
            .as_ref()
            .filter(|preset| !preset.config.fallback.is_empty());
        let (name, substitutes) = if let Some(preset) = preset {
            let (models, on) = (preset.config.fallback.clone(), preset.config.fallback_on.clone());
            (&preset.config.name, Substitutes { models, on })
        } else {
            let Some(member) = self.member(target.model.name()) else {
                return target;
            };
            if member.config.fallback.is_empty() {
                return target;
            }
            let (models, on) = (member.config.fallback.clone(), member.config.fallback_on.clone());
            (&target.model.info().name, Substitutes { models, on })
        };
        let metrics = self.0.metrics.clone();
        let permitted = Permitted {
            models: self.clone(),
            permission,
        };
        let chat = Fallback::new(name, target.chat().clone(), substitutes, Arc::new(permitted), metrics);
        target.answered_by(Arc::new(chat))
    }

    /// Whether others answer where this model cannot.
    #[must_use]
    pub fn has_fallback(&self, model: &str) -> bool {
        self.member(model)
            .is_some_and(|member| !member.config.fallback.is_empty())
    }
}

impl Alternatives for Permitted {
    fn named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Arc<dyn ChatBackend>>> {
        async move {
            let Self { models, permission } = self;
            // A single model takes any name, but is not what is meant. Nobody has a model loaded that is not for them.
            let meant = models.registry().named(Some(name)).ok()?;
            if !permission(&meant) {
                tracing::debug!(
                    model = name,
                    "the caller's key is not for this model, which would have answered"
                );
                return None;
            }
            drop(meant);
            let target = models.open(None, Some(name), true, permission.clone()).await.ok()?;
            Some(Arc::new(Held(target)) as Arc<dyn ChatBackend>)
        }
        .boxed()
    }
}

/// A model that is not unloaded while it is asked.
struct Held(Target);

impl ChatBackend for Held {
    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
        self.0.chat().chat(request)
    }

    fn continue_text(&self, request: TextRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
        self.0.chat().continue_text(request)
    }

    fn render(&self, conversation: Conversation) -> BoxFuture<'_, Result<String, GenerationError>> {
        self.0.chat().render(conversation)
    }
}
