//! The face of an upstream model as an engine: what is known about it, and whether its servers answer.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, FutureExt, join_all};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::backend::{Shared, Task};
use super::embedding;
use crate::config::ModelConfig;
use crate::engine::{
    Embeddings, EngineError, EventStream, GenerateRequest, Health, ModelInfo, Prompt, SlotCounts, Token, TokenEngine,
};

/// Pause between two looks at the servers, while all is well and while none answers.
const LOOK: Duration = Duration::from_secs(15);
const LOOK_SOON: Duration = Duration::from_secs(2);

/// A model without tokens of its own.
pub(super) struct Engine {
    shared: Arc<Shared>,
    /// Of the connections.
    runtime: Handle,
    configured: ModelInfo,
    /// The same with what the servers tell.
    told: Arc<OnceLock<ModelInfo>>,
}

impl Engine {
    pub(super) fn new(config: &ModelConfig, shared: Arc<Shared>, runtime: Handle) -> Self {
        let slots = shared
            .replicas
            .all()
            .iter()
            .map(|replica| replica.client.config.max_requests);
        Self {
            configured: describe(config, slots.sum()),
            told: Arc::default(),
            shared,
            runtime,
        }
    }

    /// Looks at the servers from time to time, as long as the model is there.
    pub(super) fn look(&self) -> impl Future<Output = ()> + Send + 'static {
        look(Arc::downgrade(&self.shared), self.configured.clone(), self.told.clone())
    }

    fn not_known<T: Send + 'static>(&self, what: &str) -> BoxFuture<'static, Result<T, EngineError>> {
        let message = format!(
            "model `{}` is computed by another server: {what}; /v1/chat/completions, /v1/completions, /v1/responses, \
             /v1/messages and /v1/embeddings work",
            self.shared.name
        );
        async { Err(EngineError::NotSupported { message }) }.boxed()
    }
}

/// What the configuration says; 0 is not known.
fn describe(config: &ModelConfig, slots: u32) -> ModelInfo {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ModelInfo {
        architecture: "upstream".to_owned(),
        context_train: config.context.unwrap_or(0),
        parallel: config.parallel.unwrap_or(slots),
        created: now.as_secs(),
        ..ModelInfo::of_config(config)
    }
}

async fn look(shared: Weak<Shared>, configured: ModelInfo, told: Arc<OnceLock<ModelInfo>>) {
    loop {
        let Some(model) = shared.upgrade() else { return };
        let looks = join_all(model.replicas.all().iter().map(|replica| replica.client.look())).await;
        let contexts = looks
            .iter()
            .flatten()
            .filter_map(|found| found.max_model_len.or(found.context_length));
        // The shortest, as any of them may answer.
        if let Some(context) = contexts.filter(|context| *context > 0).min()
            && configured.context == 0
        {
            // Told once: what a model says of itself does not change while it is served.
            let _ = told.set(ModelInfo {
                context,
                context_train: context,
                ..configured.clone()
            });
        }
        let answers = looks.iter().any(Result::is_ok);
        let health = match looks.into_iter().filter_map(Result::err).next() {
            Some(reason) if !answers => Health::Unreachable { reason },
            _ => Health::Ready,
        };
        let mut ends = false;
        model.health.send_if_modified(|now| {
            ends = *now == Health::ShuttingDown;
            if ends || *now == health {
                return false;
            }
            match &health {
                Health::Unreachable { reason } => tracing::warn!(model = model.name, "no server answers: {reason}"),
                _ => tracing::info!(model = model.name, "its servers answer"),
            }
            *now = health;
            true
        });
        drop(model);
        if ends {
            return;
        }
        sleep(if answers { LOOK } else { LOOK_SOON }).await;
    }
}

impl TokenEngine for Engine {
    fn info(&self) -> &ModelInfo {
        self.told.get().unwrap_or(&self.configured)
    }

    fn watch_health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    fn slots(&self) -> SlotCounts {
        SlotCounts {
            total: self.configured.parallel,
            busy: self.shared.running.load(Ordering::Relaxed),
            ..SlotCounts::default()
        }
    }

    fn submit(&self, _: GenerateRequest) -> BoxFuture<'_, Result<EventStream, EngineError>> {
        self.not_known("it takes no tokens from here")
    }

    fn embed(&self, texts: Vec<Prompt>) -> BoxFuture<'_, Result<Embeddings, EngineError>> {
        async move {
            if *self.shared.health.borrow() == Health::ShuttingDown {
                return Err(EngineError::ShuttingDown);
            }
            let mut task = Task(self.runtime.spawn(embedding::embed(self.shared.clone(), texts)));
            (&mut task.0).await.unwrap_or(Err(EngineError::ShuttingDown))
        }
        .boxed()
    }

    fn tokenize(&self, _: String, _: bool, _: bool) -> BoxFuture<'_, Result<Vec<Token>, EngineError>> {
        self.not_known("its tokenizer is not known here")
    }

    fn token_pieces(&self, _: Vec<Token>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, EngineError>> {
        self.not_known("its tokenizer is not known here")
    }

    fn shutdown(&self, grace: Duration) -> BoxFuture<'_, ()> {
        async move {
            self.shared.health.send_replace(Health::ShuttingDown);
            let deadline = Instant::now() + grace;
            let runs = || self.shared.running.load(Ordering::Relaxed) > 0;
            while runs() && Instant::now() < deadline {
                sleep(Duration::from_millis(20)).await;
            }
            self.shared.stop.send_replace(true);
        }
        .boxed()
    }
}
