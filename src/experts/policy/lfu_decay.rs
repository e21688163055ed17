//! Least frequently used, with a fading past: the default.

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
        let total: f64 = heat.iter().copied().filter(|heat| *heat > 0.0).map(f64::from).sum();
        if total > 0.0 {
            for (expert, heat) in (0..).zip(heat) {
                counts.add(expert, f64::from(*heat) / total * config.prompt_weight);
            }
        }
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

    /// A prompt is as many tokens of its average routing as it has, up to [`PolicyConfig::prompt_weight`]: decayed token
    /// by token, only the end of a long prompt would be left.
    fn observe_prompt(&mut self, counts: &[u32], tokens: u32) {
        if tokens == 0 {
            return;
        }
        let weight = self.prompt_weight.min(f64::from(tokens));
        self.counts.age(weight);
        for (expert, count) in (0..).zip(counts) {
            self.counts.add(expert, f64::from(*count) / f64::from(tokens) * weight);
        }
    }

    fn value(&self, expert: u32) -> f64 {
        self.counts.get(expert)
    }

    fn hysteresis(&self) -> f64 {
        self.hysteresis
    }
}
