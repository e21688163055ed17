//! What answers for a model that is not in memory.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::engine::{
    Embeddings, EngineError, EventStream, GenerateRequest, Health, InfillTokens, ModelInfo, Prompt, SlotCounts, Token,
    TokenEngine,
};

use crate::generation::{ChatBackend, ChatRequest, Conversation, GenerationError, OutputStream, TextRequest};

/// Stands in for a model that can take no request, and says why to everybody who asks.
#[derive(Debug)]
pub(super) struct Absent {
    info: ModelInfo,
    health: watch::Sender<Health>,
}

impl Absent {
    /// `health` is anything but ready.
    pub(super) fn new(info: ModelInfo, health: Health) -> Self {
        Self {
            info,
            health: watch::Sender::new(health),
        }
    }

    fn error(&self) -> EngineError {
        let model = self.info.name.clone();
        match &*self.health.borrow() {
            Health::Failed { reason } => EngineError::Unavailable {
                model,
                reason: reason.clone(),
            },
            Health::Loading { progress } => EngineError::Loading {
                model,
                progress: *progress,
            },
            Health::Unreachable { reason } => EngineError::Upstream {
                model,
                reason: reason.clone(),
                retry_after: None,
            },
            Health::Maintenance => EngineError::Maintenance { model },
            Health::ShuttingDown => EngineError::ShuttingDown,
            Health::Unloaded | Health::Ready => EngineError::NotLoaded { model },
        }
    }

    fn refuse<'a, T: Send + 'a>(&'a self) -> BoxFuture<'a, Result<T, EngineError>> {
        Box::pin(std::future::ready(Err(self.error())))
    }
}

impl ChatBackend for Absent {
    fn chat(&self, _: ChatRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
        Box::pin(std::future::ready(Err(self.error().into())))
    }

    fn continue_text(&self, _: TextRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
        Box::pin(std::future::ready(Err(self.error().into())))
    }

    fn render(&self, _: Conversation) -> BoxFuture<'_, Result<String, GenerationError>> {
        Box::pin(std::future::ready(Err(self.error().into())))
    }
}

impl TokenEngine for Absent {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn watch_health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    fn slots(&self) -> SlotCounts {
        SlotCounts::default()
    }

    fn submit(&self, _: GenerateRequest) -> BoxFuture<'_, Result<EventStream, EngineError>> {
        self.refuse()
    }

    fn embed(&self, _: Vec<Prompt>) -> BoxFuture<'_, Result<Embeddings, EngineError>> {
        self.refuse()
    }

    fn rank(&self, _: String, _: Vec<String>) -> BoxFuture<'_, Result<Embeddings, EngineError>> {
        self.refuse()
    }

    fn infill(&self, _: String, _: String) -> BoxFuture<'_, Result<Prompt, EngineError>> {
        self.refuse()
    }

    fn tokenize(&self, _: String, _: bool, _: bool) -> BoxFuture<'_, Result<Vec<Token>, EngineError>> {
        self.refuse()
    }

    fn token_pieces(&self, _: Vec<Token>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, EngineError>> {
        self.refuse()
    }

    fn infill_tokens(&self) -> Result<Option<InfillTokens>, EngineError> {
        Err(self.error())
    }

    fn shutdown(&self, _: Duration) -> BoxFuture<'_, ()> {
        self.health.send_replace(Health::ShuttingDown);
        Box::pin(std::future::ready(()))
    }
}
