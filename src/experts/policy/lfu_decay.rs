//! Least frequently used, with a fading past.

use super::{DecayingCounts, Policy, PolicyConfig};

/// An expert's value is its selections, each halved every [`PolicyConfig::half_life`] tokens, so it lies between recency
/// and frequency as LRFU does (Lee et al., *LRFU: a spectrum of policies that subsumes the least recently used and least
/// frequently used policies*, IEEE Transactions on Computers 50, 2001).
#[derive(Debug)]
pub struct LfuDecay {
    counts: DecayingCounts,
    hysteresis: f64,
    prompt_weight: f64,
}

impl LfuDecay {
    /// `heat` of earlier runs weighs as much as a prompt.
    #[must_use]
    pub fn new(experts: usize, heat: &[f32], config: &PolicyConfig) -> Self {
        let mut counts = DecayingCounts::new(experts, config.half_life);
        counts.seed(heat, config.prompt_weight);
        Self {
            counts,
            hysteresis: config.hysteresis.max(1.0),
            prompt_weight: config.prompt_weight.max(0.0),
        }
    }
}

impl Policy for LfuDecay {
    fn observe(&mut self, experts: &[u32]) {
        self.counts.observe(experts);
    }

    fn observe_prompt(&mut self, counts: &[u32], tokens: u32, _last: &[u32]) {
        self.counts.observe_prompt(counts, tokens, self.prompt_weight);
    }

    fn value(&self, expert: u32) -> f64 {
        self.counts.get(expert)
    }

    fn pays(&self, newcomer: f64, resident: f64, _left: f64) -> bool {
        newcomer > resident * self.hysteresis
    }
}
