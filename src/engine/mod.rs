//! What stands between the HTTP layer and whatever computes tokens.
//!
//! [`TokenEngine`] is the one trait: the local llama.cpp engine ([`local`]) implements it, and models
//! that other servers compute show their state with it. The types
//! here are plain data: they know neither HTTP nor llama.cpp.

mod action;
mod embedding;
mod error;
mod event;
mod info;
pub mod local;
mod memory;
mod request;

pub use action::{SlotAction, SlotOutcome};
pub use embedding::{Embeddings, Pooling};
pub use error::EngineError;
pub use event::{
    Candidate, Event, EventStream, FinishReason, MAX_ROUTED_TOKENS, PrefillProgress, RoutedExperts, Timings,
    TokenLogprob, Usage,
};
pub use info::{Health, InfillTokens, ModelFile, ModelInfo, SlotCounts, SlotRequest, SlotState};
pub use memory::{Buffers, MemoryUse};
pub use request::{Border, GenerateRequest, Grammar, Prompt, ReasoningBudget, Token, Trigger};

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::experts::{Change, ChangeError, ExpertStats};
pub use crate::sampling::{DryParams, SamplerKind, Sampling, SamplingOverrides};

/// A model that answers.
///
/// All methods may be called from an async worker: none blocks it.
pub trait TokenEngine: Send + Sync + 'static {
    /// What is known about the model; complete before the weights are loaded.
    fn info(&self) -> &ModelInfo;

    /// Whether the model can take requests, now and from now on.
    fn watch_health(&self) -> watch::Receiver<Health>;

    /// Whether the model can take requests now.
    fn health(&self) -> Health {
        self.watch_health().borrow().clone()
    }

    /// How many of the slots are in use, and how many requests wait.
    fn slots(&self) -> SlotCounts;

    /// How long the engine has shown no sign of life although it has work; zero for one that computes, or has nothing to do.
    fn silence(&self) -> Duration {
        Duration::ZERO
    }

    /// What each slot does, in their order.
    fn slot_states(&self) -> Vec<SlotState> {
        let counts = self.slots();
        let state = |slot| SlotState {
            busy: slot < counts.busy,
            tokens: 0,
            last: None,
        };
        (0..counts.total).map(state).collect()
    }

    /// Does something with a slot as soon as it computes nothing.
    fn act_on_slot(&self, slot: u32, action: SlotAction) -> BoxFuture<'_, Result<SlotOutcome, EngineError>> {
        let _ = (slot, action);
        let message = "what the slots of this model hold cannot be saved, restored or erased".to_owned();
        Box::pin(async { Err(EngineError::NotSupported { message }) })
    }

    /// What the cache of experts did; `None` for a model without one.
    fn experts(&self) -> Option<ExpertStats> {
        None
    }

    /// What the model takes of the memory; `None` before it is loaded, and for models that are computed elsewhere.
    fn memory(&self) -> Option<MemoryUse> {
        None
    }

    /// Changes the cache of experts while it is used; `None` for a model without one, else what is wrong with the change.
    fn change_experts(&self, change: Change) -> Option<Result<(), ChangeError>> {
        let _ = change;
        None
    }

    /// Checks and queues a request.
    ///
    /// Everything that can be checked is checked here, so that an error can still become an HTTP status: a prompt
    /// that does not fit, a full queue, a model that is still loading, numbers out of range.
    ///
    /// # Cancel safety
    /// Dropping the future before it resolves queues nothing; dropping the returned stream cancels the request
    /// within one decode step and frees its slot.
    fn submit(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, EngineError>>;

    /// How the model makes vectors of texts; `None` if it makes none.
    fn pooling(&self) -> Option<Pooling> {
        None
    }

    /// The vectors of texts, as the model gives them: not normalised.
    fn embed(&self, texts: Vec<Prompt>) -> BoxFuture<'_, Result<Embeddings, EngineError>> {
        let _ = texts;
        Box::pin(async { Err(self.no_embeddings()) })
    }

    /// Whether it computes beginnings of prompts that may come, while there are no requests.
    fn prepares(&self) -> bool {
        false
    }

    /// Computes the beginning of a prompt that may come when there are no requests; the next one that comes ends that.
    fn prepare(&self, beginning: Vec<Token>) {
        let _ = beginning;
    }

    /// How well each document answers a query: one number each, the higher the better.
    fn rank(&self, query: String, documents: Vec<String>) -> BoxFuture<'_, Result<Embeddings, EngineError>> {
        let _ = (query, documents);
        Box::pin(async { Err(self.no_embeddings()) })
    }

    /// What is told of a model that makes no vectors.
    fn no_embeddings(&self) -> EngineError {
        EngineError::InvalidRequest {
            field: "model",
            message: format!("model `{}` makes no embeddings", self.info().name),
        }
    }

    /// The prompt for a text that goes between two others, in the form that the model learnt.
    fn infill(&self, before: String, after: String) -> BoxFuture<'_, Result<Prompt, EngineError>> {
        let _ = (before, after);
        Box::pin(async {
            Err(EngineError::InvalidRequest {
                field: "suffix",
                message: format!("model `{}` has not learnt to fill in", self.info().name),
            })
        })
    }

    /// Splits text into tokens. `add_special` adds BOS/EOS as the model is configured to, `parse_special` reads
    /// control tokens such as `<|im_start|>` from the text.
    fn tokenize(
        &self,
        text: String,
        add_special: bool,
        parse_special: bool,
    ) -> BoxFuture<'_, Result<Vec<Token>, EngineError>>;

    /// The bytes of each token, control tokens included. Pieces need not be valid UTF-8 one by one.
    fn token_pieces(&self, tokens: Vec<Token>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, EngineError>>;

    /// How the model is asked to fill in text; `None` if it cannot.
    ///
    /// # Errors
    /// When the model is not loaded.
    fn infill_tokens(&self) -> Result<Option<InfillTokens>, EngineError> {
        Ok(None)
    }

    /// Stops taking requests; running ones end with [`EngineError::ShuttingDown`] after `grace`.
    fn shutdown(&self, grace: Duration) -> BoxFuture<'_, ()>;
}
