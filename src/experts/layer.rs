//! One layer of a model: who has a copy, what was selected, and where the copies are.

use std::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

use super::handover::Guarded;
use super::policy::{DecayingCounts, LayerCache, LayerCounts};
use super::residency::Upload;
use super::trace::Phase;

/// Tokens after which half of a layer's long-term heat is gone.
const HEAT_HALF_LIFE: f64 = 100_000.0;

/// Memory for copies of a layer's experts on the cache device.
pub(super) trait Copies: Any + std::fmt::Debug + Send + Sync {
    /// Copies an expert from main memory and waits until all of it is there. Called for uploads that the residency has
    /// reserved, so nobody reads the entry, and not after [`ExpertCache::close`](super::ExpertCache), so the weights exist.
    fn upload(&self, upload: Upload);
}

/// What a device gave for a layer.
pub(super) struct Allocation {
    pub(super) copies: Arc<dyn Copies>,
    /// Bytes of one expert, all weights together.
    pub(super) expert_bytes: usize,
    /// Bytes of all entries.
    pub(super) bytes: u64,
}

/// One layer with its copies. Replaced as a whole when its capacity changes.
#[derive(Debug)]
pub(super) struct Layer {
    /// Its number in the model.
    pub(super) number: u32,
    /// Bytes of one expert, all weights together.
    pub(super) expert_bytes: usize,
    /// Bytes of all entries.
    pub(super) bytes: u64,
    pub(super) state: Mutex<LayerState>,
    pub(super) copies: Arc<dyn Copies>,
}

/// What changes from token to token.
#[derive(Debug)]
pub(super) struct LayerState {
    pub(super) cache: LayerCache,
    /// By expert: selections since the model was loaded, decoded tokens and prompts.
    pub(super) selected: Vec<u64>,
    /// The same, the past fading slowly; kept over restarts.
    pub(super) heat: DecayingCounts,
    /// Counts of the caches that were here before.
    pub(super) before: LayerCounts,
    /// The step that was seen last, and how many of its decoded tokens are still to come.
    step: Step,
}

/// A call of llama.cpp, which may compute it in several passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Tells steps apart.
    pub(super) number: u32,
    /// Tokens that continue a text; the others are parts of prompts.
    pub(super) decoded: u32,
}

impl LayerState {
    pub(super) fn new(cache: LayerCache, heat: &[f32]) -> Self {
        let experts = cache.entries().experts();
        let mut counts = DecayingCounts::new(experts, HEAT_HALF_LIFE);
        for (expert, heat) in (0..).zip(heat) {
            counts.add(expert, f64::from(*heat));
        }
        Self {
            cache,
            selected: vec![0; experts],
            heat: counts,
            before: LayerCounts::default(),
            step: Step::default(),
        }
    }

    /// Since the model was loaded.
    pub(super) fn counts(&self) -> LayerCounts {
        let mut counts = self.before;
        counts += self.cache.counts();
        counts
    }

    /// Takes in what the tokens of a pass selected: `ids` are those of the experts, token by token. The decoded tokens of a
    /// step count as decoded, whatever else is in it; which ones of a pass they are, llama.cpp does not tell, so it is the
    /// first ones.
    pub(super) fn observe(&mut self, step: Step, ids: &[u32], experts_per_token: usize) {
        if self.step.number != step.number {
            self.step = step;
        }
        for token in ids.chunks_exact(experts_per_token.max(1)) {
            for expert in token {
                if let Some(count) = self.selected.get_mut(*expert as usize) {
                    *count += 1;
                }
            }
            self.heat.observe(token);
            match self.next_phase() {
                Phase::Decode => self.cache.decoded(token),
                Phase::Prefill => self.cache.prefilled(token),
            }
        }
    }

    fn next_phase(&mut self) -> Phase {
        match self.step.decoded.checked_sub(1) {
            Some(left) => {
                self.step.decoded = left;
                Phase::Decode
            }
            None => Phase::Prefill,
        }
    }
}

impl Guarded for Mutex<LayerState> {
    fn with<R>(&self, action: impl FnOnce(&mut LayerCache) -> R) -> R {
        action(&mut self.lock().cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experts::policy::PolicyConfig;

    /// Eight sequences are decoded beside a prompt, in two passes as llama.cpp splits them for hybrid models.
    #[test]
    fn decoded_tokens_of_a_mixed_step_count_as_decoded() {
        let cache = LayerCache::new(32, 8, PolicyConfig::default(), None);
        let mut state = LayerState::new(cache, &[]);
        let ids: Vec<u32> = (0..32).collect();
        let step = Step { number: 1, decoded: 8 };
        state.observe(step, &ids[..18], 2);
        assert_eq!(state.counts().tokens, 8);
        state.observe(step, &ids[..14], 2);
        assert_eq!((state.counts().tokens, state.selected[0]), (8, 2));
        state.observe(Step { number: 2, decoded: 1 }, &[1, 2], 2);
        assert_eq!(state.counts().tokens, 9);
    }
}
