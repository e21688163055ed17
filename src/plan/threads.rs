//! How many threads compute a model on the CPU.
//!
//! The threads of a model meet after each operation. With more threads than cores, which models side by side easily have, a
//! meeting takes as long as the system takes to run all of them: much for small models, little for large ones, whose
//! operations are long. So cores are shared out among models only where a model is small, and the smallest take a single
//! thread. Measured on four cores, two models at once in tokens/s: the built-in pair 187 and 696 with four threads each, 1700
//! and 2650 with one each; two of 710 MiB 20 and 20 with four threads each, 24 and 24 with two each, but one of them alone
//! then 27 instead of 40.

use super::outcome::{Experts, Plan};
use super::shape::ModelShape;

/// Threads of one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// For single tokens.
    pub decode: u32,
    /// For prompts, which have more work between meetings.
    pub prefill: u32,
}

impl From<u32> for Threads {
    fn from(threads: u32) -> Self {
        Self {
            decode: threads,
            prefill: threads,
        }
    }
}

/// Weights that a thread should have to go through for a token.
const WORTH_A_THREAD: u64 = 16 << 20;
/// Weights for a token from which on a model takes all cores, whoever else does.
const LARGE: u64 = 128 << 20;

/// The threads of one of `sharing` models that compute on the CPU.
#[must_use]
pub fn threads(shape: &ModelShape, cores: u32, sharing: u32) -> Threads {
    let bytes = per_token(shape);
    let share = if bytes >= LARGE { cores } else { cores / sharing.max(1) };
    let share = share.max(1);
    let useful = u32::try_from(bytes.div_ceil(WORTH_A_THREAD)).unwrap_or(u32::MAX);
    Threads {
        decode: useful.clamp(1, share),
        prefill: share,
    }
}

/// Bytes of the weights that compute one token.
fn per_token(shape: &ModelShape) -> u64 {
    let experts = shape.routed_experts();
    let used = match shape.experts {
        0 => 0,
        all => experts / u64::from(all) * u64::from(shape.experts_per_token),
    };
    (shape.weights() - experts - shape.embeddings().min(shape.weights() - experts)) + used
}

impl Plan {
    /// Models of which at least a part is computed on the CPU.
    #[must_use]
    pub fn on_cpu(&self) -> u32 {
        let partly = |model: &&super::ModelPlan| {
            self.device.is_none()
                || model.gpu_layers.is_some()
                || matches!(model.experts, Experts::Ram | Experts::Cache { .. })
        };
        u32::try_from(self.models.iter().filter(partly).count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::shape;
    use crate::synthetic::Arch;

    #[test]
    fn small_models_take_few_and_large_ones_all() {
        let shape = |preset| shape(Arch::Qwen3next, preset, false);
        let (large, tiny) = (shape("80b-a3b"), shape("tiny"));
        assert_eq!(threads(&large, 16, 1), Threads::from(16));
        assert_eq!(threads(&large, 16, 2), Threads::from(16));
        assert_eq!(threads(&large, 1, 2), Threads::from(1));
        assert_eq!(threads(&tiny, 16, 2), Threads { decode: 1, prefill: 8 });
    }
}
