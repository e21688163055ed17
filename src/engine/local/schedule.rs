//! Which tokens go into the next batch: pure functions over plain numbers.

use std::time::Duration;

/// Tokens of one `llama_decode` call at most. Equal to llama.cpp's default physical batch, so that one call is one
/// pass over the weights.
pub(super) const BATCH: usize = 512;

/// While others are decoding, a step with prefill in it should not take much longer than this: it is what they see
/// as a pause between two tokens.
const STEP_TARGET: Duration = Duration::from_millis(100);

/// Below this a prefill makes no use of the batch, and would take forever on a slow machine.
const LEAST_CHUNK: usize = 32;

/// Learns how long a prompt token takes, to keep steps short.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// Seconds per prompt token, as a moving average; zero before the first measurement.
    seconds_per_token: f64,
}

impl Pacer {
    /// Prompt tokens for the next step, beside `decoding` single tokens.
    ///
    /// A prefill that disturbs nobody takes the whole batch, unless somewhat less of it keeps the step short: a client that
    /// leaves is only noticed between steps. A model that would need many more steps for that is not slowed down.
    pub(super) fn budget(&self, decoding: usize) -> usize {
        let room = BATCH - decoding.min(BATCH);
        if self.seconds_per_token == 0.0 {
            return room;
        }
        let affordable = STEP_TARGET.as_secs_f64() / self.seconds_per_token;
        // Saturates; the number is positive.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturating, positive"
        )]
        let affordable = affordable as usize;
        if decoding == 0 && affordable < BATCH / 2 {
            return room;
        }
        affordable.max(LEAST_CHUNK).min(room)
    }

    /// Takes note of a step that computed `tokens` prompt tokens.
    pub(super) fn observe(&mut self, tokens: usize, took: Duration) {
        // Small batches are dominated by the fixed cost of a pass.
        if tokens < LEAST_CHUNK {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "at most BATCH")]
        let now = took.as_secs_f64() / tokens as f64;
        self.seconds_per_token = if self.seconds_per_token == 0.0 {
            now
        } else {
            0.8 * self.seconds_per_token + 0.2 * now
        };
    }
}

/// Divides `budget` tokens fairly: nobody gets more than it needs, and what one leaves goes to the others.
///
/// `remaining` and `shares` are per slot; a slot that needs nothing gets nothing. With fewer tokens than slots the
/// first ones are served.
pub(super) fn share(mut budget: usize, remaining: &[usize], shares: &mut Vec<usize>) {
    shares.clear();
    shares.resize(remaining.len(), 0);
    loop {
        let hungry = remaining
            .iter()
            .zip(shares.iter())
            .filter(|(need, got)| got < need)
            .count();
        if hungry == 0 || budget == 0 {
            return;
        }
        let portion = (budget / hungry).max(1);
        for (need, got) in remaining.iter().zip(shares.iter_mut()) {
            let more = portion.min(need - *got).min(budget);
            *got += more;
            budget -= more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lone_prompt_gets_the_whole_batch() {
        assert_eq!(Pacer::default().budget(0), BATCH);
        assert_eq!(Pacer::default().budget(3), BATCH - 3);
    }

    #[test]
    fn a_slow_machine_gets_short_steps_while_others_decode() {
        let mut pacer = Pacer::default();
        pacer.observe(512, Duration::from_millis(1024));
        assert_eq!(pacer.budget(1), 50);
        assert_eq!(pacer.budget(0), BATCH);
        for _ in 0..100 {
            pacer.observe(512, Duration::from_secs(60));
        }
        assert_eq!(pacer.budget(1), LEAST_CHUNK);
    }

    #[test]
    fn a_lone_prefill_has_short_steps_where_they_cost_little() {
        let mut pacer = Pacer::default();
        pacer.observe(500, Duration::from_millis(125));
        assert_eq!(pacer.budget(0), 400);
        let mut fast = Pacer::default();
        fast.observe(512, Duration::from_millis(10));
        assert_eq!(fast.budget(0), BATCH);
    }

    proptest! {
        #[test]
        fn shares_are_fair(budget in 0usize..600, remaining in prop::collection::vec(0usize..1000, 0..8)) {
            let mut shares = Vec::new();
            share(budget, &remaining, &mut shares);
            let total: usize = shares.iter().sum();
            prop_assert_eq!(total, budget.min(remaining.iter().sum()));
            for (index, (got, need)) in shares.iter().zip(&remaining).enumerate() {
                prop_assert!(got <= need);
                // Who got less than another one (by more than the rounding) needs no more.
                if got < need {
                    prop_assert!(shares.iter().all(|other| *other <= got + remaining.len()), "slot {} starves", index);
                }
            }
        }
    }
}
