//! What comes next, learnt from what came after what.

use super::pairs::Pairs;
use super::{DecayingCounts, Policy, PolicyConfig};

/// An expert's value is the probability that the next token selects it, and a little of its frequency for the time after
/// that.
///
/// Three things say something about the next token: how often an expert was selected lately, how often ever, and how often
/// it followed those that the current token selected. For the last one it counts, for each pair of experts, how often the
/// second followed the first, as naive Bayes does. How much each of the three counts is learnt as well, by logistic
/// regression while tokens go by: where routing hangs on the topic, the recent past decides, and where it hangs on the
/// token, what follows what. When several sequences are decoded at once, the current token is seldom the one before, and
/// the pairs lose their weight by themselves.
#[derive(Debug)]
pub struct Predictive {
    pairs: Pairs,
    /// By expert: what speaks for it, in logarithms.
    evidence: Vec<Evidence>,
    /// By expert: probability that the next token selects it.
    next: Vec<f32>,
    /// By expert: product of the ratios that the current experts give.
    ratios: Vec<f32>,
    weights: Evidence,
    /// Squares of all steps so far, by weight: the more a weight has moved, the smaller its steps (AdaGrad).
    moved: Evidence,
    frequency: DecayingCounts,
    half_life: f64,
    prompt_weight: f64,
    hysteresis: f64,
}

/// Bias, recent frequency, frequency, and what the current experts say.
type Evidence = [f32; 4];

/// How many tokens' worth of plain frequency a pair starts with.
const PRIOR: f32 = 4.0;
/// Before anything was learnt: half recent, half ever, and all current experts together a little more than one of them.
const START: Evidence = [0.0, 0.5, 0.5, 1.2];

/// How far a weight moves at once, before AdaGrad.
const STEP: f32 = 0.1;
/// Weight of the frequency beside the probability.
const LATER: f64 = 0.2;
/// Faded selections before the first one: logarithms of zero help nobody.
const FAINT: f64 = 0.1;

impl Predictive {
    /// Where nothing was learnt yet, `heat` of earlier runs decides.
    #[must_use]
    pub fn new(experts: usize, heat: &[f32], config: &PolicyConfig) -> Self {
        let mut frequency = DecayingCounts::new(experts, config.half_life);
        frequency.seed(heat, config.prompt_weight);
        Self {
            pairs: Pairs::new(experts, &[1.0]),
            evidence: vec![Evidence::default(); experts],
            next: vec![0.0; experts],
            ratios: vec![1.0; experts],
            weights: START,
            moved: [1e-3; 4],
            frequency,
            half_life: config.half_life.max(1.0),
            prompt_weight: config.prompt_weight.max(0.0),
            hysteresis: config.hysteresis.max(1.0),
        }
    }

    /// Moves the weights towards what would have said better which experts come.
    fn correct(&mut self, experts: &[u32]) {
        let mut slope = Evidence::default();
        let mut add = |evidence: &Evidence, error: f32| {
            for (slope, evidence) in slope.iter_mut().zip(evidence) {
                *slope += evidence * error;
            }
        };
        for (evidence, next) in self.evidence.iter().zip(&self.next) {
            add(evidence, -next);
        }
        for expert in experts {
            if let Some(evidence) = self.evidence.get(*expert as usize) {
                add(evidence, 1.0);
            }
        }
        for ((weight, moved), slope) in self.weights.iter_mut().zip(&mut self.moved).zip(slope) {
            *moved += slope * slope;
            *weight = (*weight + STEP * slope / moved.sqrt()).clamp(-4.0, 4.0);
        }
    }

    fn predict(&mut self) {
        // Half a selection before the first one, for the same reason as `FAINT`.
        let share = 1.0 / (self.pairs.tokens() + 1.0);
        let usual = |selected: f32| (selected + 0.5) * share;
        self.ratios.fill(1.0);
        for before in self.pairs.current() {
            let (row, selected) = self.pairs.after(*before);
            let given = 1.0 / (selected + PRIOR);
            for ((ratio, pairs), selected) in self.ratios.iter_mut().zip(row).zip(self.pairs.selected()) {
                let usual = usual(*selected);
                *ratio *= (pairs + PRIOR * usual) * given / usual;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "experts of one token")]
        let power = 1.0 / self.pairs.current().len().max(1) as f32;
        // What an expert that every token selects comes to.
        let always = self.half_life / std::f64::consts::LN_2 + 1.0;
        #[expect(clippy::cast_possible_truncation, reason = "half as many digits are enough")]
        let recent = |count: f64| ((count + FAINT) / always) as f32;
        let recent = self.frequency.iter().map(recent);
        for (((ratio, recent), selected), (evidence, next)) in self
            .ratios
            .iter()
            .zip(recent)
            .zip(self.pairs.selected())
            .zip(self.evidence.iter_mut().zip(&mut self.next))
        {
            let ratio = ratio.clamp(1e-30, 1e30);
            *evidence = [1.0, ln(recent), ln(usual(*selected)), ln(ratio) * power];
            let score: f32 = evidence.iter().zip(&self.weights).map(|(a, b)| a * b).sum();
            *next = 1.0 / (1.0 + (-score).exp());
        }
    }
}

/// Natural logarithm of a normal positive number, to five digits: four times as fast as the exact one, since the compiler
/// computes several at once.
fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    // x = 2^exponent * mantissa, and ln(mantissa) = 2 artanh((mantissa - 1) / (mantissa + 1)).
    #[expect(clippy::cast_precision_loss, reason = "8 bits")]
    let exponent = (bits >> 23) as f32 - 127.0;
    let mantissa = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    let y = (mantissa - 1.0) / (mantissa + 1.0);
    let square = y * y;
    let series = 1.0 + square * (1.0 / 3.0 + square * (1.0 / 5.0 + square / 7.0));
    exponent * std::f32::consts::LN_2 + 2.0 * y * series
}

impl Policy for Predictive {
    fn observe(&mut self, experts: &[u32]) {
        if !self.pairs.current().is_empty() {
            self.correct(experts);
        }
        self.pairs.observe(experts);
        self.frequency.observe(experts);
        self.predict();
    }

    /// A prompt shifts the frequency; what follows what is learnt from decoding alone.
    fn observe_prompt(&mut self, counts: &[u32], tokens: u32, _last: &[u32]) {
        self.frequency.observe_prompt(counts, tokens, self.prompt_weight);
        // The last token was of another sequence.
        self.pairs.restart(&[]);
        self.predict();
    }

    fn value(&self, expert: u32) -> f64 {
        let next = self.next.get(expert as usize).copied().unwrap_or(0.0);
        f64::from(next) + LATER * self.frequency.get(expert) / self.half_life
    }

    fn pays(&self, newcomer: f64, resident: f64, _left: f64) -> bool {
        newcomer > resident * self.hysteresis
    }

    fn looks_ahead(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the experts of the highest value are those.
    fn best(policy: &Predictive, experts: &[u32]) -> bool {
        let mut all: Vec<u32> = (0..16).collect();
        all.sort_by(|a, b| policy.value(*b).total_cmp(&policy.value(*a)));
        let mut best = all[..experts.len()].to_vec();
        best.sort_unstable();
        best == experts
    }

    #[test]
    fn what_follows_is_foreseen() {
        let mut policy = Predictive::new(16, &[], &PolicyConfig::default());
        let tokens = [[0, 1], [4, 5], [8, 9], [12, 13]];
        for token in 0..200 {
            policy.observe(&tokens[token % 4]);
        }
        for token in 200..204 {
            policy.observe(&tokens[token % 4]);
            assert!(best(&policy, &tokens[(token + 1) % 4]), "{:?}", policy.next);
        }
        assert!(policy.weights[3] > START[3], "{:?}", policy.weights);
    }

    #[test]
    fn pairs_that_say_nothing_lose_their_weight() {
        let mut policy = Predictive::new(16, &[], &PolicyConfig::default());
        let mut random = fastrand::Rng::with_seed(1);
        // Half of the tokens select one of two experts, whatever came before.
        for _ in 0..3000 {
            policy.observe(&[random.u32(0..2), random.u32(2..16)]);
        }
        assert!(best(&policy, &[0, 1]));
        assert!(policy.weights[3] < START[3] / 2.0, "{:?}", policy.weights);
    }

    #[test]
    fn logarithms_are_close() {
        for power in -290..290i16 {
            let x = (f32::from(power) / 10.0).exp();
            assert!((ln(x) - x.ln()).abs() < 1e-4, "{x}");
        }
    }

    #[test]
    fn nothing_becomes_no_number() {
        let mut policy = Predictive::new(16, &[1.0; 16], &PolicyConfig::default());
        for token in 0..2000u32 {
            policy.observe(&(0..token % 17).collect::<Vec<_>>());
            policy.observe(&[99]);
        }
        assert!((0..16).all(|expert| policy.value(expert).is_finite()), "{policy:?}");
    }
}
