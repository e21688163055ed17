//! Counts whose past fades.

/// How often each expert was selected, where a selection loses half of its weight in a number of tokens.
///
/// Instead of making all counts smaller with each token, the weight of the next token grows; now and then everything is
/// divided by it.
#[derive(Debug, Clone, PartialEq)]
pub struct DecayingCounts {
    counts: Vec<f64>,
    /// Weight of one selection by the current token, in the unit of `counts`.
    unit: f64,
    /// What `unit` is multiplied with at each token; at least 1.
    growth: f64,
}

/// Where the unit starts again at 1; far from where an `f64` loses digits that matter.
const LARGEST_UNIT: f64 = 1e30;

impl DecayingCounts {
    /// `half_life` is in tokens; infinity, or what is no positive number, is for counts that never fade.
    #[must_use]
    pub fn new(experts: usize, half_life: f64) -> Self {
        let growth = match half_life > 0.0 {
            // More than a factor of two per token would be LRU, and overflow sooner.
            true => (1.0 / half_life.max(1.0)).exp2(),
            false => 1.0,
        };
        Self {
            counts: vec![0.0; experts],
            unit: 1.0,
            growth,
        }
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.counts.len()
    }

    /// Counts one token's selection. Unknown experts are ignored.
    pub fn observe(&mut self, experts: &[u32]) {
        self.age(1.0);
        for expert in experts {
            self.add(*expert, 1.0);
        }
    }

    /// Lets `tokens` tokens pass.
    pub fn age(&mut self, tokens: f64) {
        // After so much growth nothing is left of the past anyway.
        let factor = self.growth.powf(tokens.max(0.0)).min(LARGEST_UNIT);
        if self.unit * factor < LARGEST_UNIT {
            self.unit *= factor;
            return;
        }
        for count in &mut self.counts {
            *count = *count / self.unit / factor;
        }
        self.unit = 1.0;
    }

    /// Counts `selections` of an expert that happen now. What is negative or no number counts as nothing.
    pub fn add(&mut self, expert: u32, selections: f64) {
        if let Some(count) = self.counts.get_mut(expert as usize)
            && selections.is_finite()
            && selections > 0.0
        {
            *count += selections.min(LARGEST_UNIT) * self.unit;
        }
    }

    /// Starts from counts of earlier runs, in any unit, as if `tokens` selections had been spread like them.
    pub fn seed(&mut self, heat: &[f32], tokens: f64) {
        let total: f64 = heat
            .iter()
            .filter(|heat| **heat > 0.0)
            .map(|heat| f64::from(*heat))
            .sum();
        if total > 0.0 {
            for (expert, heat) in (0..).zip(heat) {
                self.add(expert, f64::from(*heat) / total * tokens);
            }
        }
    }

    /// Counts a prompt, whose tokens selected each expert `counts` times, as that many tokens of its average routing, but
    /// at most `weight`: token by token only the end of a long prompt would be left.
    pub fn observe_prompt(&mut self, counts: &[u32], tokens: u32, weight: f64) {
        if tokens == 0 {
            return;
        }
        let weight = weight.min(f64::from(tokens));
        self.age(weight);
        for (expert, count) in (0..).zip(counts) {
            self.add(expert, f64::from(*count) / f64::from(tokens) * weight);
        }
    }

    /// Selections of an expert, those of the past faded; 0 for an unknown one.
    #[must_use]
    pub fn get(&self, expert: u32) -> f64 {
        self.counts.get(expert as usize).map_or(0.0, |count| count / self.unit)
    }

    /// All counts, by expert.
    pub fn iter(&self) -> impl Iterator<Item = f64> {
        self.counts.iter().map(|count| count / self.unit)
    }

    /// Writes all counts as shares of one of them, by expert: without a division for each.
    pub fn shares(&self, of: u32, shares: &mut [f32]) {
        let whole = self.counts.get(of as usize).copied().unwrap_or(0.0);
        let scale = if whole > 0.0 { whole.recip() } else { 0.0 };
        for (share, count) in shares.iter_mut().zip(&self.counts) {
            #[expect(clippy::cast_possible_truncation, reason = "half as many digits are enough")]
            {
                *share = (count * scale) as f32;
            }
        }
    }

    /// All counts with half as many digits, which are enough for a heat map.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
    pub fn rounded(&self) -> Vec<f32> {
        self.iter().map(|count| count as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_of_it_is_gone_after_the_half_life() {
        let mut counts = DecayingCounts::new(2, 10.0);
        counts.observe(&[1, 7]);
        counts.age(10.0);
        assert!((counts.get(1) - 0.5).abs() < 1e-9);
        counts.age(1e9);
        assert!(counts.get(1) < 1e-20);
        assert_eq!(counts.get(9), 0.0);
        counts.observe(&[0]);
        assert!((counts.get(0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn shares_are_of_one_count() {
        let mut counts = DecayingCounts::new(3, 10.0);
        let mut shares = [7.0; 2];
        counts.shares(2, &mut shares);
        assert_eq!(shares, [0.0; 2], "nothing was counted");
        for _ in 0..400 {
            counts.observe(&[1, 2]);
            counts.observe(&[2]);
        }
        counts.shares(2, &mut shares);
        assert_eq!(shares[0], 0.0);
        assert!((f64::from(shares[1]) - counts.get(1) / counts.get(2)).abs() < 1e-6);
        counts.shares(9, &mut shares);
        assert_eq!(shares, [0.0; 2], "there is no such count");
    }

    #[test]
    fn without_a_half_life_nothing_fades() {
        let mut counts = DecayingCounts::new(1, f64::INFINITY);
        for _ in 0..1000 {
            counts.observe(&[0]);
        }
        assert!((counts.get(0) - 1000.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn counts_stay_numbers(half_life in any::<f64>(), ages in prop::collection::vec(any::<f64>(), 0..50)) {
            let mut counts = DecayingCounts::new(2, half_life);
            for age in ages {
                counts.observe(&[0]);
                counts.add(1, age);
                counts.age(age);
                prop_assert!(counts.iter().all(|count| count.is_finite() && count >= 0.0));
            }
        }
    }
}
