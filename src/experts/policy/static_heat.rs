//! The policy `static`, which is a keyword in Rust.

use super::Policy;

/// An expert's value is what a profile says about it. Nothing that happens changes it: the entries fill up with the best
/// experts and stay as they are.
#[derive(Debug)]
pub struct StaticHeat {
    heat: Vec<f32>,
}

impl StaticHeat {
    /// `heat` is by expert, in any unit. Without any, nothing ever gets an entry.
    #[must_use]
    pub fn new(experts: usize, heat: &[f32]) -> Self {
        let mut heat = heat.to_vec();
        heat.resize(experts, 0.0);
        Self { heat }
    }
}

impl Policy for StaticHeat {
    fn observe(&mut self, _experts: &[u32]) {}

    fn observe_prompt(&mut self, _counts: &[u32], _tokens: u32, _last: &[u32]) {}

    fn value(&self, expert: u32) -> f64 {
        // What is negative or no number is nothing.
        self.heat
            .get(expert as usize)
            .map_or(0.0, |heat| f64::from(heat.max(0.0)))
    }
}
