//! How many uploads a layer may begin.

/// What tokens earn.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct BudgetConfig {
    /// Uploads that a decoded token earns.
    pub per_token: f64,
    /// Uploads that a token of a prompt earns: it is computed about ten times as fast.
    pub per_prompt_token: f64,
    /// Uploads that can be saved up.
    pub most: f64,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            per_token: 0.25,
            per_prompt_token: 0.025,
            most: 32.0,
        }
    }
}

/// A token bucket: tokens earn uploads, and uploads that evict an expert spend them. Those into free entries, as when a
/// cache fills up for the first time, are not counted. A budget begins empty.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    config: BudgetConfig,
    saved: f64,
}

impl Budget {
    pub(super) fn new(config: BudgetConfig) -> Self {
        Self { config, saved: 0.0 }
    }

    /// A token was decoded.
    pub(super) fn earn(&mut self) {
        self.add(self.config.per_token);
    }

    /// A prompt of so many tokens is over.
    pub(super) fn earn_prompt(&mut self, tokens: u32) {
        self.add(self.config.per_prompt_token * f64::from(tokens));
    }

    fn add(&mut self, uploads: f64) {
        self.saved = (self.saved + uploads).min(self.config.most);
    }

    /// Uploads that may begin now.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few; saturates"
    )]
    pub(super) fn whole(&self) -> usize {
        self.saved as usize
    }

    /// Share that is left of all that can be saved up, 0 to 1.
    pub(super) fn left(&self) -> f64 {
        match self.config.most > 0.0 {
            true => (self.saved / self.config.most).clamp(0.0, 1.0),
            false => 0.0,
        }
    }

    /// An upload begins.
    pub(super) fn spend(&mut self) {
        self.saved = (self.saved - 1.0).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_earned_can_be_spent_once() {
        let mut budget = Budget::new(BudgetConfig::default());
        (0..7).for_each(|_| budget.earn());
        assert_eq!(budget.whole(), 1);
        budget.spend();
        assert_eq!(budget.whole(), 0);
        budget.earn();
        assert_eq!(budget.whole(), 1, "three quarters were left");
        budget.earn_prompt(400);
        assert_eq!(budget.whole(), 11);
        (0..1000).for_each(|_| budget.earn());
        assert_eq!(budget.whole(), 32);
        assert!((budget.left() - 1.0).abs() < 1e-9);
    }
}
