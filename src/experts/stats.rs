//! What a cache of experts holds and did, as plain data.

use super::policy::{LayerCounts, PolicyKind};
use super::settings::Device;
use super::work::{PhaseTimes, WorkCounts};

/// One model's cache.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpertStats {
    pub device: Device,
    pub policy: PolicyKind,
    pub experts_per_token: u32,
    /// Over the last minute, or since the start if that is shorter; all layers together.
    pub minute: LayerCounts,
    /// By layer; a layer appears with its first token.
    pub layers: Vec<LayerStats>,
    /// How often the heat map could not be written.
    pub heat_errors: u64,
    /// What was done for its blocks, and how long the phases of a block take.
    pub work: WorkCounts,
    pub phases: Vec<PhaseTimes>,
}

/// One layer's part of [`ExpertStats`].
#[derive(Debug, Clone, PartialEq)]
pub struct LayerStats {
    /// Its number in the model.
    pub layer: u32,
    pub experts: usize,
    /// Experts that can have a copy.
    pub capacity: usize,
    /// Bytes of all entries.
    pub cache_bytes: u64,
    /// Bytes of one expert.
    pub expert_bytes: usize,
    /// Whether the copies are used: not below break-even.
    pub in_use: bool,
    /// Since the model was loaded.
    pub counts: LayerCounts,
    /// Experts with a copy.
    pub resident: Vec<u32>,
    /// By expert: selections by decoded tokens and prompts, as far as they pass through the cache.
    pub selected: Vec<u64>,
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

    /// Bytes of all entries, the spare ones in each layer included.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.cache_bytes).sum()
    }

    /// Bytes that were uploaded.
    #[must_use]
    pub fn upload_bytes(&self) -> u64 {
        let bytes = |layer: &LayerStats| layer.counts.uploads * layer.expert_bytes as u64;
        self.layers.iter().map(bytes).sum()
    }
}

impl LayerStats {
    /// Experts that were selected at least once.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.selected.iter().filter(|count| **count > 0).count()
    }

    /// Entropy of the selections in bits: log2 of the number of experts if all are used alike.
    #[must_use]
    pub fn entropy(&self) -> f64 {
        entropy(&self.selected)
    }

    /// The experts that were selected most, with their selections and whether they have a copy.
    #[must_use]
    pub fn top(&self, most: usize) -> Vec<(u32, u64, bool)> {
        let mut all: Vec<(u32, u64)> = (0..).zip(self.selected.iter().copied()).collect();
        all.sort_unstable_by_key(|(expert, count)| (std::cmp::Reverse(*count), *expert));
        all.truncate(most);
        let resident = |expert| self.resident.contains(&expert);
        all.into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(expert, count)| (expert, count, resident(expert)))
            .collect()
    }
}

/// Entropy of counts in bits.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a statistic")]
pub fn entropy(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    let term = |count: &u64| {
        let share = *count as f64 / total as f64;
        -share * share.log2()
    };
    counts.iter().filter(|count| **count > 0).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_and_top() {
        let layer = LayerStats {
            layer: 0,
            experts: 4,
            capacity: 1,
            cache_bytes: 16,
            expert_bytes: 8,
            in_use: true,
            counts: LayerCounts::default(),
            resident: vec![2],
            selected: vec![5, 0, 5, 0],
        };
        assert!((layer.entropy() - 1.0).abs() < 1e-9);
        assert_eq!(layer.distinct(), 2);
        assert_eq!(layer.top(3), [(0, 5, false), (2, 5, true)]);
    }
}
