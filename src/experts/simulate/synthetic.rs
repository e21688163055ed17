//! Routing that nobody recorded, of a chosen shape.

use crate::experts::trace::{Phase, Trace, TraceError};

/// A generator of traces. Each expert has a popularity (a Zipf law over a random order, per layer) and an affinity to the
/// topic, which drifts within a request and is drawn anew for the next one; a token selects the experts for which
/// popularity, affinity and noise of its own add up to the most. The same parameters give the same trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Synthetic {
    pub layers: u32,
    pub experts: u32,
    /// Experts per token.
    pub experts_per_token: u32,
    /// Exponent of the Zipf law: 0 makes all experts equally popular.
    pub skew: f64,
    /// Standard deviation of the affinities, in nats: 0 makes tokens independent of each other.
    pub locality: f64,
    /// Tokens after which a topic has half forgotten itself.
    pub topic: f64,
    /// Number of requests.
    pub requests: u32,
    /// Prompt tokens of each.
    pub prompt: u32,
    /// Decoded tokens of each.
    pub decode: u32,
    pub seed: u64,
}

impl Synthetic {
    /// The built-in reasoner's shape: 32 experts, 4 per token, six layers.
    #[must_use]
    pub fn small() -> Self {
        Self {
            layers: 6,
            experts: 32,
            experts_per_token: 4,
            skew: 0.8,
            locality: 1.5,
            topic: 24.0,
            requests: 12,
            prompt: 128,
            decode: 128,
            seed: 1,
        }
    }

    /// The shape of Qwen3-Next-80B-A3B, in a few layers: 512 experts, 10 per token. Little skew, most of it locality: LRU
    /// lands near the published 67 % at 12.5 % of the experts and 81 % at 25 %.
    #[must_use]
    pub fn large() -> Self {
        Self {
            layers: 2,
            experts: 512,
            experts_per_token: 10,
            skew: 0.3,
            locality: 2.5,
            topic: 64.0,
            requests: 8,
            prompt: 256,
            decode: 256,
            seed: 1,
        }
    }

    /// Generates the trace.
    ///
    /// # Errors
    /// When no model has this shape.
    pub fn trace(&self) -> Result<Trace, TraceError> {
        let mut trace = Trace::new((0..self.layers).collect(), self.experts, self.experts_per_token)?;
        let mut random = fastrand::Rng::with_seed(self.seed);
        let (layers, experts) = (trace.layers().len(), trace.experts());
        let popularity: Vec<f64> = (0..layers).flat_map(|_| self.popularity(&mut random)).collect();
        let keep = (-1.0 / self.topic.max(1.0)).exp2();
        let fresh = (1.0 - keep * keep).sqrt();
        let mut topic = vec![0.0; layers * experts];
        let mut scores: Vec<(f64, u16)> = Vec::with_capacity(experts);
        let mut ids = Vec::new();
        for _ in 0..self.requests {
            topic.fill_with(|| normal(&mut random));
            for position in 0..self.prompt.saturating_add(self.decode) {
                ids.clear();
                for layer in 0..layers {
                    let row = layer * experts..(layer + 1) * experts;
                    scores.clear();
                    for (id, (topic, popularity)) in (0..).zip(topic[row.clone()].iter_mut().zip(&popularity[row])) {
                        *topic = keep * *topic + fresh * normal(&mut random);
                        scores.push((popularity + self.locality * *topic + gumbel(&mut random), id));
                    }
                    let count = trace.experts_per_token();
                    scores.select_nth_unstable_by(count - 1, |a, b| b.0.total_cmp(&a.0));
                    ids.extend(scores[..count].iter().map(|(_, id)| *id));
                }
                let phase = match position < self.prompt {
                    true => Phase::Prefill,
                    false => Phase::Decode,
                };
                trace.push(phase, &ids)?;
            }
        }
        Ok(trace)
    }

    /// Logarithms of the experts' popularity.
    fn popularity(&self, random: &mut fastrand::Rng) -> Vec<f64> {
        let mut popularity: Vec<f64> = (1..=self.experts)
            .map(|rank| -self.skew * f64::from(rank).ln())
            .collect();
        random.shuffle(&mut popularity);
        popularity
    }
}

/// Adding it to logarithms of weights and taking the largest draws by weight, without replacement.
fn gumbel(random: &mut fastrand::Rng) -> f64 {
    -(-random.f64().max(f64::MIN_POSITIVE).ln()).ln()
}

/// Standard normal, by Box and Muller.
fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * random.f64().max(f64::MIN_POSITIVE).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}
