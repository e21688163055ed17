//! The engine on top of llama.cpp: one thread owns a model and its context.
//!
//! [`LocalEngine`] is the handle: it checks and tokenizes requests on the caller's side and puts them into a bounded
//! queue. The thread ([`worker`]) takes them into slots and sends events back.

mod allocated;
mod bare;
mod checkpoints;
mod drafts;
mod embedder;
mod error;
mod gauge;
mod grammar;
mod infill;
mod load;
mod logprobs;
mod prompt;
mod queue;
mod quiet;
mod sampler;
mod schedule;
mod sealed;
mod slot;
pub mod text;
mod thinking;
mod thread;
mod tokenize;
mod worker;

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use parking_lot::Mutex;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::{oneshot, watch};

pub use error::{ComputeError, LoadError};
pub use load::{ALL_LAYERS, DraftSource, DraftSpec, EmbeddingSpec, LoadSpec, Placement, initialise};
pub use sampler::argmax;
pub use sealed::SavedSequences;

use self::embedder::{Call, Embedder};
use self::grammar::Grammars;
use self::queue::{QueuedRequest, Refused, Shared, SlotJob, SlotWork};
use self::sealed::Draft;
use self::thinking::Thinking;
use self::thread::{Thread, memory};
use self::tokenize::{Tokenizer, aside, split};
use super::{
    Embeddings, EngineError, EventStream, GenerateRequest, Health, InfillTokens, MAX_ROUTED_TOKENS, MemoryUse,
    ModelInfo, Pooling, Prompt, SlotAction, SlotCounts, SlotOutcome, SlotState, Token, TokenEngine,
};
use crate::experts::{Change, ChangeError, ExpertCache, ExpertStats};
use crate::telemetry::ModelMetrics;

/// A model that llama.cpp computes in this process.
#[derive(Debug)]
pub struct LocalEngine {
    info: ModelInfo,
    spec: LoadSpec,
    shared: Arc<Shared>,
    metrics: ModelMetrics,
    model: Arc<OnceLock<Arc<LlamaModel>>>,
    /// There before the model is ready.
    tokenizer: Arc<OnceLock<Arc<Tokenizer>>>,
    grammars: Arc<Grammars>,
    /// There is one when the model is loaded and makes embeddings.
    embedder: Arc<OnceLock<Embedder>>,
    /// What it takes, when it is loaded, without the cache of experts.
    memory: Arc<OnceLock<MemoryUse>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LocalEngine {
    /// Starts the engine thread and returns at once; the model loads in the background.
    ///
    /// `queue` is the number of requests that may wait for a slot.
    ///
    /// # Errors
    /// When the system does not give a thread.
    pub fn start(info: ModelInfo, spec: LoadSpec, queue: usize, metrics: ModelMetrics) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(spec.parallel, queue));
        let model = Arc::new(OnceLock::new());
        let tokenizer = Arc::new(OnceLock::new());
        let memory = Arc::new(OnceLock::new());
        let embedder = Arc::new(OnceLock::new());
        let thread = Thread {
            name: info.name.clone(),
            spec: spec.clone(),
            shared: shared.clone(),
            model: model.clone(),
            tokenizer: tokenizer.clone(),
            memory: memory.clone(),
            embedder: Arc::downgrade(&embedder),
            metrics: metrics.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("engine {}", info.name))
            .spawn(move || thread.main())?;
        Ok(Self {
            info,
            spec,
            shared,
            metrics,
            model,
            tokenizer,
            grammars: Arc::default(),
            embedder,
            memory,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Blocks until the model is loaded. `progress` hears llama.cpp's own progress, 0 to 1, a few times a second.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when the load failed.
    pub fn wait_until_loaded(&self, progress: impl FnMut(f32)) -> Result<(), EngineError> {
        match self.shared.wait_until_loaded(progress) {
            Health::Ready => Ok(()),
            Health::Failed { reason } | Health::Unreachable { reason } => Err(self.unavailable(reason)),
            // The other states are not those of an engine.
            _ => Err(EngineError::ShuttingDown),
        }
    }

    /// Ends the engine and waits until its memory is given back, for who loads another one next. Blocks.
    pub fn finish(self) {
        self.shared.stop();
        let thread = self.thread.lock().take();
        // The thread frees the model when nobody else holds it.
        drop(self);
        if let Some(thread) = thread {
            // A panic was caught and told within the thread.
            let _ = thread.join();
        }
    }

    /// Measures a bare `llama_decode` loop on this engine's model: the time of `steps` greedy tokens after `prompt`.
    /// The engine must be idle. Blocks.
    ///
    /// # Errors
    /// [`EngineError::Compute`] when llama.cpp fails, or the model is not loaded.
    pub fn bare_decode(&self, prompt: &[Token], steps: u32) -> Result<Duration, EngineError> {
        bare::decode(&self.spec, &*self.model()?, prompt, steps).map_err(|error| EngineError::Compute {
            model: self.info.name.clone(),
            reason: error.to_string(),
        })
    }

    /// The loaded model, or why there is none.
    fn model(&self) -> Result<Arc<LlamaModel>, EngineError> {
        match self.shared.health() {
            Health::Ready => {}
            Health::Loading { progress } => {
                return Err(EngineError::Loading {
                    model: self.info.name.clone(),
                    progress,
                });
            }
            Health::Failed { reason } | Health::Unreachable { reason } => return Err(self.unavailable(reason)),
            // The others are not those of an engine.
            Health::ShuttingDown | Health::Unloaded | Health::Maintenance => return Err(EngineError::ShuttingDown),
        }
        self.model
            .get()
            .cloned()
            .ok_or_else(|| self.unavailable("the model is gone".into()))
    }

    /// The cache of experts, for who records or profiles.
    #[must_use]
    pub fn expert_cache(&self) -> Option<&Arc<ExpertCache>> {
        self.spec.experts.as_ref()
    }

    fn unavailable(&self, reason: String) -> EngineError {
        EngineError::Unavailable {
            model: self.info.name.clone(),
            reason,
        }
    }

    /// What a call for vectors needs; an error if the model makes none.
    fn embedding_call(&self) -> Result<Call<'_>, EngineError> {
        let name = &self.info.name;
        let none = || {
            invalid(
                "model",
                &format!("model `{name}` makes no embeddings; `embeddings = true` in its [[model]] lets it"),
            )
        };
        let spec = self.spec.embedding.ok_or_else(none)?;
        let model = self.model()?;
        Ok(Call {
            name,
            model,
            embedder: self.embedder.get().ok_or_else(none)?,
            max_tokens: spec.max_tokens,
        })
    }

    async fn slot_action(&self, slot: u32, action: SlotAction) -> Result<SlotOutcome, EngineError> {
        self.model()?;
        if slot >= self.info.parallel || self.spec.embedding.is_some_and(|embedding| embedding.only) {
            let name = &self.info.name;
            return Err(invalid("slot", &format!("model `{name}` has no slot {slot}")));
        }
        let saved = self.spec.saved.clone().ok_or_else(|| EngineError::NotSupported {
            message: "this server saves no slots: start it with `slot_save_path` in [server]".to_owned(),
        });
        match action {
            SlotAction::Erase => self.slot_job(slot, SlotWork::Erase).await,
            SlotAction::Save(name) => self.save_slot(slot, name, saved?).await,
            SlotAction::Restore(name) => self.restore_slot(slot, &name, saved?).await,
        }
    }

    async fn restore_slot(&self, slot: u32, name: &str, saved: SavedSequences) -> Result<SlotOutcome, EngineError> {
        let path = saved.folder.join(name);
        let (file, context) = (path.clone(), self.info.context);
        let checked = aside(move || sealed::check(&file, &saved.model, context)).await?;
        let bytes = checked.map_err(|error| invalid("filename", &format!("`{name}` {error}")))?;
        let done = self.slot_job(slot, SlotWork::Restore(path)).await?;
        Ok(SlotOutcome { bytes, ..done })
    }

    async fn save_slot(&self, slot: u32, name: String, saved: SavedSequences) -> Result<SlotOutcome, EngineError> {
        let SavedSequences { folder, model } = saved;
        let failed = |error: std::io::Error| EngineError::Compute {
            model: self.info.name.clone(),
            reason: format!("`{name}` cannot be written: {error}"),
        };
        let draft = aside(move || Draft::new(&folder)).await?.map_err(failed)?;
        let done = self.slot_job(slot, SlotWork::Save(draft.path().to_owned())).await?;
        let file = name.clone();
        let bytes = aside(move || draft.publish(&file, &model)).await?.map_err(failed)?;
        Ok(SlotOutcome { bytes, ..done })
    }

    /// Has something done by the engine's thread.
    async fn slot_job(&self, slot: u32, work: SlotWork) -> Result<SlotOutcome, EngineError> {
        let (done, outcome) = oneshot::channel();
        let slot = usize::try_from(slot).unwrap_or(usize::MAX);
        if !self.shared.push_slot_job(SlotJob { slot, work, done }) {
            return Err(EngineError::ShuttingDown);
        }
        outcome.await.unwrap_or(Err(EngineError::ShuttingDown))
    }

    async fn queue(&self, request: GenerateRequest) -> Result<EventStream, EngineError> {
        let submitted = Instant::now();
        let model = self.model()?;
        if self.spec.embedding.is_some_and(|embedding| embedding.only) {
            let name = &self.info.name;
            return Err(invalid(
                "model",
                &format!("model `{name}` makes embeddings, and no texts"),
            ));
        }
        check_tokens("stop_token_ids", &request.stop_tokens, &model)?;
        if let Some((token, _)) = request
            .sampling
            .logit_bias
            .iter()
            .find(|(token, _)| !in_vocabulary(*token, &model))
        {
            return Err(invalid(
                "logit_bias",
                &format!("token {token} is not in the model's vocabulary"),
            ));
        }
        check_tokens("preserved", &request.preserved, &model)?;
        if request.logprobs.is_some_and(|top| top > MAX_LOGPROBS) {
            return Err(invalid(
                "logprobs",
                &format!("at most the {MAX_LOGPROBS} likeliest tokens are told"),
            ));
        }
        if request.routed_experts && self.spec.experts.is_none() {
            let name = &self.info.name;
            return Err(invalid(
                "return_routed_experts",
                &format!("model `{name}` is computed without an expert cache, which is what sees the experts"),
            ));
        }
        if let Some(budget) = &request.reasoning_budget {
            check_tokens("reasoning_budget_tokens", &budget.start, &model)?;
            check_tokens("reasoning_budget_tokens", &budget.end, &model)?;
            if budget.start.is_empty() || budget.end.is_empty() {
                return Err(invalid(
                    "reasoning_budget_tokens",
                    "it is not known how the model's thoughts begin and end",
                ));
            }
        }
        if request.stop.iter().any(String::is_empty) {
            return Err(invalid("stop", "a stop string is empty"));
        }
        let prompt = self.prompt_tokens(model.clone(), request.prompt).await?;
        let context = self.info.context;
        let rest = usize::try_from(context)
            .unwrap_or(usize::MAX)
            .saturating_sub(prompt.len());
        let rest = u32::try_from(rest).unwrap_or(u32::MAX);
        if rest == 0 {
            return Err(EngineError::ContextExceeded {
                model: self.info.name.clone(),
                prompt_tokens: prompt.len(),
                context,
            });
        }
        let grammar = match request.grammar {
            Some(grammar) => {
                let preserved = request.preserved.clone();
                let matcher = self.grammars.matcher(model, grammar, preserved, request.special);
                Some(matcher.await?)
            }
            None => None,
        };
        let most = if request.routed_experts {
            rest.min(MAX_ROUTED_TOKENS)
        } else {
            rest
        };
        let (events, receiver) = unbounded_channel();
        let request = QueuedRequest {
            prompt,
            sampling: request.sampling,
            max_tokens: request.max_tokens.unwrap_or(most).clamp(1, most),
            stop: request.stop,
            stop_tokens: request.stop_tokens,
            ignore_eos: request.ignore_eos,
            cache_prompt: request.cache_prompt,
            borders: request.borders,
            special: request.special,
            preserved: request.preserved,
            progress: request.progress,
            grammar,
            thinking: request.reasoning_budget.map(Thinking::new),
            logprobs: request.logprobs,
            routed_experts: request.routed_experts,
            events,
            submitted,
            span: tracing::Span::current(),
        };
        match self.shared.push(request) {
            Ok(()) => Ok(EventStream::new(receiver)),
            Err(Refused::Full { retry_after }) => Err(EngineError::QueueFull {
                model: self.info.name.clone(),
                limit: self.shared.limit(),
                retry_after,
            }),
            Err(Refused::Stopped) => Err(EngineError::ShuttingDown),
        }
    }
}

impl TokenEngine for LocalEngine {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn watch_health(&self) -> watch::Receiver<Health> {
        self.shared.watch_health()
    }

    fn slots(&self) -> SlotCounts {
        let sequences = if self.spec.pool { 1 } else { self.spec.parallel };
        SlotCounts {
            tokens: u64::from(self.spec.context) * u64::from(sequences),
            ..self.shared.counts()
        }
    }

    fn silence(&self) -> Duration {
        self.shared.silence()
    }

    fn slot_states(&self) -> Vec<SlotState> {
        self.shared.slot_states()
    }

    fn act_on_slot(&self, slot: u32, action: SlotAction) -> BoxFuture<'_, Result<SlotOutcome, EngineError>> {
        self.slot_action(slot, action).boxed()
    }

    fn experts(&self) -> Option<ExpertStats> {
        self.spec.experts.as_ref().map(|cache| cache.stats())
    }

    fn memory(&self) -> Option<MemoryUse> {
        memory(&self.spec, &self.memory)
    }

    fn change_experts(&self, change: Change) -> Option<Result<(), ChangeError>> {
        self.spec.experts.as_ref().map(|cache| cache.change(change))
    }

    fn submit(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, EngineError>> {
        async move {
            let queued = self.queue(request).await;
            if let Err(error) = &queued {
                self.metrics.count_refused(error.reason());
            }
            queued
        }
        .boxed()
    }

    fn prepares(&self) -> bool {
        self.spec.prepares
    }

    fn prepare(&self, beginning: Vec<Token>) {
        self.shared.push_turn(beginning);
    }

    fn pooling(&self) -> Option<Pooling> {
        self.spec.embedding.map(|embedding| embedding.pooling)
    }

    fn embed(&self, texts: Vec<Prompt>) -> BoxFuture<'_, Result<Embeddings, EngineError>> {
        async move {
            let call = self.embedding_call()?;
            let mut tokens = Vec::with_capacity(texts.len());
            for text in texts {
                let text = self.prompt_tokens(call.model.clone(), text).await;
                tokens.push(text.map_err(|error| error.about("input"))?);
            }
            call.embed(tokens).await
        }
        .boxed()
    }

    fn rank(&self, query: String, documents: Vec<String>) -> BoxFuture<'_, Result<Embeddings, EngineError>> {
        async move {
            let call = self.embedding_call()?;
            if self.pooling() != Some(Pooling::Rank) {
                let message = format!(
                    "model `{}` ranks no documents: its pooling is not `rank`",
                    self.info.name
                );
                return Err(invalid("model", &message));
            }
            let mut pairs = Vec::with_capacity(documents.len());
            for document in &documents {
                pairs.push(call.pair(&query, document).await?);
            }
            call.embed(pairs).await
        }
        .boxed()
    }

    fn infill(&self, before: String, after: String) -> BoxFuture<'_, Result<Prompt, EngineError>> {
        async move {
            let model = self.model()?;
            let Some(marks) = infill::tokens(&model) else {
                let name = &self.info.name;
                let message = format!("model `{name}` has no tokens for filling in, so it cannot take a `suffix`");
                return Err(invalid("suffix", &message));
            };
            infill::prompt(model, marks, before, after).await
        }
        .boxed()
    }

    fn tokenize(
        &self,
        text: String,
        add_special: bool,
        parse_special: bool,
    ) -> BoxFuture<'_, Result<Vec<Token>, EngineError>> {
        async move {
            let model = self.model()?;
            if parse_special {
                return self.text_tokens(model, text, add_special).await;
            }
            split(model, text, add_special, false).await
        }
        .boxed()
    }

    fn token_pieces(&self, tokens: Vec<Token>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, EngineError>> {
        async move {
            let model = self.model()?;
            check_tokens("tokens", &tokens, &model)?;
            let vocab = model.vocab();
            Ok(tokens
                .into_iter()
                .map(|token| vocab.token_to_piece(LlamaToken(token), true, None))
                .collect())
        }
        .boxed()
    }

    fn infill_tokens(&self) -> Result<Option<InfillTokens>, EngineError> {
        Ok(infill::tokens(&*self.model()?))
    }

    fn shutdown(&self, grace: Duration) -> BoxFuture<'_, ()> {
        async move {
            self.shared.set_health(Health::ShuttingDown);
            let deadline = Instant::now() + grace;
            while !self.shared.idle() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            self.shared.stop();
            // The process may end before the engine's thread comes to it.
            if let Some(cache) = self.spec.experts.clone() {
                let _ = tokio::task::spawn_blocking(move || cache.save_heat()).await;
            }
            // Nor before it has written what is kept over restarts.
            let thread = self.spec.saved.as_ref().and_then(|_| self.thread.lock().take());
            if let Some(thread) = thread {
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
        }
        .boxed()
    }
}

impl Drop for LocalEngine {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// Tokens that are told beside each token at most.
const MAX_LOGPROBS: u32 = 128;

fn in_vocabulary(token: Token, model: &LlamaModel) -> bool {
    (0..model.n_vocab()).contains(&token)
}

fn check_tokens(field: &'static str, tokens: &[Token], model: &LlamaModel) -> Result<(), EngineError> {
    match tokens.iter().find(|token| !in_vocabulary(**token, model)) {
        Some(token) => Err(invalid(
            field,
            &format!(
                "token {token} is not in the model's vocabulary of {} tokens",
                model.n_vocab()
            ),
        )),
        None => Ok(()),
    }
}

fn invalid(field: &'static str, message: &str) -> EngineError {
    EngineError::InvalidRequest {
        field,
        message: message.to_owned(),
    }
}
