//! What is asked of a plan.

use super::memory::Context;
use super::shape::{LayerShape, ModelShape};
use crate::config::{CacheDevice, CacheSize, ExpertPlacement, ExpertsConfig};
use crate::gguf::TensorType;
use crate::memory::{KvType, KvTypes};

/// What of a context is left to the plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choices {
    pub tokens: bool,
    pub parallel: bool,
    pub kv_type: bool,
    pub pool: bool,
    pub batch: bool,
}

/// Whether a model makes vectors of texts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Embeddings {
    #[default]
    None,
    /// In a second context.
    Beside,
    /// It does nothing else.
    Only,
}

/// Positions beyond those of the training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    pub factor: f32,
    /// Tokens of a sequence.
    pub trained: u32,
}

impl Choices {
    pub(super) fn any(self) -> bool {
        self.tokens || self.parallel || self.kv_type || self.pool || self.batch
    }
}

/// A model to be planned.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    pub name: String,
    pub shape: ModelShape,
    /// What is configured; the most where it is a choice.
    pub context: Context,
    pub choices: Choices,
    pub embeddings: Embeddings,
    /// Positions are stretched beyond those that it was trained for.
    pub stretch: Option<Stretch>,
    /// A small model makes drafts.
    pub draft_model: Option<ModelShape>,
    /// Its head for multi-token prediction makes drafts.
    pub head: bool,
    /// How much its speed counts beside that of others.
    pub importance: u32,
    pub experts: ExpertsConfig,
    /// Layers on the GPU, as llama.cpp counts them; `None` leaves them to the plan.
    pub gpu_layers: Option<u32>,
}

impl ModelRequest {
    /// The contexts of the model.
    pub(super) fn contexts(&self) -> Vec<Context> {
        match self.embeddings {
            Embeddings::None => vec![self.context],
            Embeddings::Beside => vec![self.context, self.context.of_embeddings(false)],
            Embeddings::Only => vec![self.context.of_embeddings(true)],
        }
    }

    /// The head, if it makes drafts.
    pub(super) fn head(&self) -> Option<&LayerShape> {
        self.shape.head.as_ref().filter(|_| self.head)
    }

    /// Bytes of one copy of an expert in every layer that has some.
    pub(super) fn cache_entry(&self) -> u64 {
        self.shape.cache_entry() + self.head().map_or(0, |head| head.expert)
    }

    /// Whether its keys and values can be made of whole blocks of these types; else the elements of such a block, and those of
    /// a head.
    pub(super) fn takes(&self, kv_type: KvTypes) -> Result<(), [u64; 2]> {
        let fits = |kind: KvType, length: u64| {
            let block = TensorType::from_name(kind.name()).map_or(1, |kind| kind.block);
            length.is_multiple_of(block).then_some(()).ok_or([block, length])
        };
        fits(kv_type.keys, self.shape.key_length)?;
        fits(kv_type.values, self.shape.value_length)
    }

    /// Whether its settings make no sense without a GPU.
    pub(super) fn needs_gpu(&self) -> bool {
        let cached = self.experts.placement == ExpertPlacement::Cache && self.experts.device == CacheDevice::Auto;
        let sized = self.experts.cache != CacheSize::Auto && self.experts.device == CacheDevice::Auto;
        self.gpu_layers.is_some_and(|layers| layers > 0)
            || self.shape.routed_experts() > 0 && (cached || sized || self.experts.placement == ExpertPlacement::Gpu)
    }
}
