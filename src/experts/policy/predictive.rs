//! What comes next, learnt from what came after what.

use super::{DecayingCounts, Policy, PolicyConfig};

/// An expert's value is the probability that the next token selects it, given what the current one selected, and a little
/// of its frequency for the time after that.
///
/// For each pair of experts it counts how often the second followed the first in the next token. The ratios that these
/// counts give, one per current expert, are combined as in naive Bayes, but tempered: current experts say much the same,
/// and each would count fully. One table of experts x experts per layer, 4 bytes each: 1 MiB for 512 experts.
///
/// It follows one sequence: tokens of several sequences should not be mixed in one layer.
#[derive(Debug)]
pub struct Predictive {
    /// [before, after], in tokens.
    followed: Vec<f32>,
    /// Tokens that selected an expert, by expert.
    selected: Vec<f32>,
    /// Tokens, as far as they are remembered.
    tokens: f32,
    current: Vec<u32>,
    /// By expert: probability that the next token selects it.
    next: Vec<f64>,
    frequency: DecayingCounts,
    half_life: f64,
    prompt_weight: f64,
    hysteresis: f64,
}

/// Tokens after which all that was learnt counts half.
const MEMORY: f32 = 65_536.0;
/// How many tokens' worth of plain frequency a pair starts with.
const PRIOR: f64 = 4.0;
/// What the ratios of all current experts count together, in ratios.
const SHARPNESS: f64 = 1.2;
/// Weight of the frequency beside the probability.
const LATER: f64 = 0.1;

impl Predictive {
    /// Where nothing was learnt yet, `heat` of earlier runs decides.
    #[must_use]
    pub fn new(experts: usize, heat: &[f32], config: &PolicyConfig) -> Self {
        let mut frequency = DecayingCounts::new(experts, config.half_life);
        frequency.seed(heat, config.prompt_weight);
        Self {
            followed: vec![0.0; experts * experts],
            selected: vec![0.0; experts],
            tokens: 0.0,
            current: Vec::with_capacity(experts),
            next: vec![0.0; experts],
            frequency,
            half_life: config.half_life.max(1.0),
            prompt_weight: config.prompt_weight.max(0.0),
            hysteresis: config.hysteresis.max(1.0),
        }
    }

    fn learn(&mut self, experts: &[u32]) {
        let count = self.selected.len();
        for before in &self.current {
            let row = *before as usize * count;
            let Some(row) = self.followed.get_mut(row..row + count) else {
                continue;
            };
            for after in experts {
                if let Some(pair) = row.get_mut(*after as usize) {
                    *pair += 1.0;
                }
            }
        }
        for expert in experts {
            if let Some(selected) = self.selected.get_mut(*expert as usize) {
                *selected += 1.0;
            }
        }
        self.tokens += 1.0;
        if self.tokens > MEMORY {
            let all = self.followed.iter_mut().chain(&mut self.selected);
            all.for_each(|number| *number *= 0.5);
            self.tokens *= 0.5;
        }
    }

    fn predict(&mut self) {
        let count = self.selected.len();
        #[expect(clippy::cast_precision_loss, reason = "experts of one token")]
        let power = SHARPNESS / self.current.len().max(1) as f64;
        for (after, next) in self.next.iter_mut().enumerate() {
            // Half a selection before the first one: logarithms of zero help nobody.
            let usual = (f64::from(self.selected[after]) + 0.5) / (f64::from(self.tokens) + 1.0);
            let mut ratio = 1.0;
            for before in &self.current {
                let before = *before as usize;
                let pairs = f64::from(self.followed[before * count + after]);
                let given = (pairs + PRIOR * usual) / (f64::from(self.selected[before]) + PRIOR);
                ratio *= given / usual;
            }
            *next = (usual * ratio.powf(power)).min(1.0);
        }
    }
}

impl Policy for Predictive {
    fn observe(&mut self, experts: &[u32]) {
        self.learn(experts);
        self.frequency.observe(experts);
        self.current.clear();
        let known = experts
            .iter()
            .filter(|expert| (**expert as usize) < self.selected.len());
        self.current.extend(known.take(self.selected.len()));
        self.predict();
    }

    /// A prompt shifts the frequency; what follows what is learnt from decoding alone.
    fn observe_prompt(&mut self, counts: &[u32], tokens: u32) {
        self.frequency.observe_prompt(counts, tokens, self.prompt_weight);
        // The last token was of another sequence.
        self.current.clear();
        self.predict();
    }

    fn value(&self, expert: u32) -> f64 {
        let next = self.next.get(expert as usize).copied().unwrap_or(0.0);
        next + LATER * self.frequency.get(expert) / self.half_life
    }

    fn hysteresis(&self) -> f64 {
        self.hysteresis
    }

    fn looks_ahead(&self) -> bool {
        true
    }
}
