//! Least recently used.

use super::Policy;

/// An expert's value is the number of the last token that selected it.
#[derive(Debug)]
pub struct Lru {
    /// By expert; 0 is never.
    last: Vec<f64>,
    /// Number of the current token.
    clock: f64,
}

impl Lru {
    /// Where nothing was selected yet, `heat` of earlier runs decides.
    #[must_use]
    pub fn new(experts: usize, heat: &[f32]) -> Self {
        let mut last = vec![0.0; experts];
        let hottest = heat.iter().copied().fold(0.0, f32::max);
        if hottest > 0.0 {
            for (last, heat) in last.iter_mut().zip(heat) {
                *last = f64::from((heat / hottest).max(0.0));
            }
        }
        Self { last, clock: 1.0 }
    }
}

impl Policy for Lru {
    fn observe(&mut self, experts: &[u32]) {
        self.clock += 1.0;
        for expert in experts {
            if let Some(last) = self.last.get_mut(*expert as usize) {
                *last = self.clock;
            }
        }
    }

    /// The experts of a prompt were all used just now; among them, the frequent ones count as later.
    fn observe_prompt(&mut self, counts: &[u32], tokens: u32, _last: &[u32]) {
        if tokens == 0 {
            return;
        }
        for (last, count) in self.last.iter_mut().zip(counts) {
            if *count > 0 {
                *last = self.clock + (f64::from(*count) / f64::from(tokens)).min(1.0);
            }
        }
        self.clock += 1.0;
    }

    fn value(&self, expert: u32) -> f64 {
        self.last.get(expert as usize).copied().unwrap_or(0.0)
    }
}
