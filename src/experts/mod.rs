//! Experts that are used often stay on a fast device, the others are computed where they lie.
//!
//! `plugin` is a ggml backend of our own, registered beside llama.cpp's: it owns the weights of routed experts in main
//! memory, recognises the nodes that compute an expert block, and computes the experts that have a copy on the cache
//! device there, the others on the CPU. `layer` decides which experts have a copy.

pub mod heat;
pub mod layer;
mod plugin;
pub mod policy;
pub mod residency;
pub mod simulate;
pub mod trace;

pub use plugin::{ExpertCache, load_with};

use layer::LayerCounts;

/// What the cache of one model holds, and what it did since the model was loaded.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ExpertStats {
    /// By layer; a layer appears with its first token.
    pub layers: Vec<LayerStats>,
}

/// One layer's part of [`ExpertStats`].
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LayerStats {
    pub layer: u32,
    pub experts: usize,
    /// Experts that can have a copy.
    pub slots: usize,
    /// Bytes of one expert.
    pub expert_bytes: usize,
    #[serde(flatten)]
    pub counts: LayerCounts,
}

impl ExpertStats {
    /// Over all layers; a token counts in each.
    #[must_use]
    pub fn total(&self) -> LayerCounts {
        let mut sum = LayerCounts::default();
        for layer in &self.layers {
            sum += layer.counts;
        }
        sum
    }
}
