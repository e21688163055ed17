//! What a plan says.

use serde::Serialize;

use super::memory::Context;
use crate::host::Machine;
use crate::memory::{Kind, Row, Tier};

/// Where everything goes, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    pub machine: Machine,
    /// The GPU that is used, by its position among the machine's.
    pub device: Option<usize>,
    /// GPU and main memory are one.
    pub unified: bool,
    /// Weights are mapped from their files. They are read where a GPU fetches experts from main memory, if that is large
    /// enough; and with unified memory, since a map would hold them twice.
    pub mmap: bool,
    /// The GPU first; with unified memory the GPU alone.
    pub tiers: Vec<TierUse>,
    /// Bytes of main memory for saved states of each model that generates.
    pub prompt_cache: u64,
    /// In the order of the configuration.
    pub models: Vec<ModelPlan>,
    /// What decided, beyond single models.
    pub reasons: Vec<String>,
    /// What would make better use of the GPU.
    pub advice: Vec<String>,
}

/// What the models take of a tier, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TierUse {
    pub tier: Tier,
    pub total: u64,
    /// What they may take: what is free and allowed, less the headroom.
    pub budget: u64,
    pub used: u64,
}

/// One model's part of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelPlan {
    pub name: String,
    pub context: Context,
    /// Layers on the GPU, as llama.cpp counts them (the output is one); `None` for all.
    pub gpu_layers: Option<u32>,
    /// All layers, counted in the same way.
    pub all_layers: u32,
    pub experts: Experts,
    pub rows: Vec<Row>,
    /// What decided.
    pub reasons: Vec<String>,
    /// Decoding of a single stream.
    pub decode: Estimate,
    /// Seconds to the first token of a prompt of 2,048 tokens, a rough estimate for comparing plans.
    pub first_token: f64,
}

impl ModelPlan {
    /// Bytes on a tier.
    #[must_use]
    pub fn bytes(&self, tier: Tier) -> u64 {
        let rows = self.rows.iter().filter(|row| row.tier == tier);
        rows.map(|row| row.bytes).sum()
    }

    /// Bytes of one kind on a tier.
    #[must_use]
    pub fn kind(&self, tier: Tier, kind: Kind) -> u64 {
        let rows = self.rows.iter().filter(|row| row.tier == tier && row.kind == kind);
        rows.map(|row| row.bytes).sum()
    }
}

/// Tokens per second of a single stream, and what that is based on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Estimate {
    pub tokens_per_second: f64,
    /// The same if nothing is guessed.
    pub without_drafts: f64,
    /// Bytes that a token reads from the GPU's memory and from main memory.
    pub gpu_bytes: u64,
    pub ram_bytes: u64,
    /// Of a token's time, what GPU and CPU take to hand over to each other.
    pub hand_over_ms: f64,
    /// Share of the selected experts that have a copy, if there is a cache.
    pub hit_rate: Option<f64>,
    /// What the estimate takes for granted.
    pub assumptions: Vec<String>,
}

/// Where the routed experts of a model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "placement", rename_all = "kebab-case")]
pub enum Experts {
    /// The model has none.
    None,
    /// Where their layers are.
    Layers,
    /// All in main memory.
    Ram,
    /// All in main memory, with copies of some.
    Cache {
        /// What holds the copies.
        device: Tier,
        /// Experts of each layer that have a copy. One more entry per layer is all zeros.
        #[serde(flatten, serialize_with = "crate::renamed::capacity")]
        capacity: u32,
        /// Experts of each layer.
        of: u32,
    },
}

/// Why there is no plan, and what there could be one for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}{}", hints.iter().map(|hint| format!("\n  hint: {hint}")).collect::<String>())]
pub struct PlanError {
    /// What does not fit or contradicts itself, with numbers.
    pub what: String,
    /// What would fit.
    pub hints: Vec<String>,
}

impl PlanError {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hints: Vec::new(),
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}
