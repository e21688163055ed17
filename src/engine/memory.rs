//! What a model takes of the machine's memory.

use serde::Serialize;

use crate::memory::{Kind, Row, Tier};

/// What was planned, and what is allocated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryUse {
    pub planned: Vec<Row>,
    pub actual: Vec<Buffers>,
}

/// Buffers of one kind on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Buffers {
    /// As llama.cpp names the memory: `CPU`, `CUDA0`, `Hearth_Host`.
    pub device: String,
    pub kind: Kind,
    pub tier: Tier,
    pub bytes: u64,
    /// A view of the model's file: its pages come and go with use.
    pub mapped: bool,
}

impl MemoryUse {
    /// Bytes of a tier, planned and allocated, without what is mapped from files.
    #[must_use]
    pub fn allocated(&self, tier: Tier) -> (u64, u64) {
        // Mapped are the weights in main memory; then the same rows are left out of the plan.
        let mapped = |kind: Kind| {
            let mut buffers = self.actual.iter().filter(|buffers| buffers.tier == tier);
            let of_weights = |kind| matches!(kind, Kind::Weights | Kind::Experts);
            of_weights(kind) && buffers.any(|buffers| buffers.mapped && of_weights(buffers.kind))
        };
        let planned = self.planned.iter().filter(|row| row.tier == tier && !mapped(row.kind));
        let actual = self
            .actual
            .iter()
            .filter(|buffers| buffers.tier == tier && !mapped(buffers.kind));
        (
            planned.map(|row| row.bytes).sum(),
            actual.map(|buffers| buffers.bytes).sum(),
        )
    }
}
