//! Which tokens are computed next: pure functions over plain numbers.
//!
//! A step decodes one token of every running sequence, and then computes a part of the prompts that wait, as a pass of its
//! own: with a KV stream per slot llama.cpp computes a batch in which sequences have unequal lengths in several passes
//! anyway, and streams that run get their tokens before the prompts' pass begins.

use std::time::Duration;

/// While nobody decodes, a pass should not take much longer than this where that costs little: a client that leaves is
/// only noticed between two passes.
const LONE_PASS: Duration = Duration::from_millis(100);

/// A smaller part of a prompt makes no use of a pass, and would take forever on a slow machine.
const MIN_CHUNK: usize = 64;

/// Prompts up to this length share a pass: its fixed price is larger than what the first of them gains alone.
const SHORT_PROMPT: usize = 64;

/// Measurements older than about so many passes no longer count.
const MEMORY: f64 = 0.9;

/// Learns what a prompt's pass costs, to keep the pauses of running streams short.
///
/// A pass has a fixed price (on a GPU that is lent the experts of main memory, nearly all of it) and a price per token: a
/// line through the latest passes, weighted by age.
#[derive(Debug)]
pub(super) struct Pacer {
    /// The longest pause that prompts may cause in a running stream.
    max_pause: Duration,
    /// Tokens of one `llama_decode` call at most.
    batch: usize,
    // Weighted sums over the passes that were observed: their number, tokens, seconds, and products.
    weight: f64,
    tokens: f64,
    seconds: f64,
    tokens_squared: f64,
    tokens_seconds: f64,
}

impl Pacer {
    pub(super) fn new(max_pause: Duration, batch: usize) -> Self {
        Self {
            max_pause,
            batch,
            weight: 0.0,
            tokens: 0.0,
            seconds: 0.0,
            tokens_squared: 0.0,
            tokens_seconds: 0.0,
        }
    }

    /// Prompt tokens for the next pass, beside `decoding` running streams, while `waiting` prompts (at least one) are not
    /// computed yet.
    ///
    /// A prefill that disturbs nobody takes the whole batch, unless somewhat less of it keeps the pass short. Beside running
    /// streams a pass may take a share of the longest pause that grows with the number of prompts: 1/2 for one, 7/8 for
    /// seven. Where the fixed price of a pass alone is more than that, smaller passes would only be more of them: then
    /// the batch is full.
    pub(super) fn budget(&self, decoding: usize, waiting: usize) -> usize {
        let Some((fixed, per_token)) = self.price() else {
            return self.batch;
        };
        let affordable = |pause: Duration| {
            let left = pause.as_secs_f64() - fixed;
            // Saturates; a price of zero makes it infinite.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating")]
            let tokens = (left / per_token) as usize;
            (left > 0.0).then_some(tokens)
        };
        if decoding == 0 {
            return match affordable(LONE_PASS) {
                Some(tokens) if tokens >= self.batch / 2 => tokens.min(self.batch),
                _ => self.batch,
            };
        }
        #[expect(clippy::cast_precision_loss, reason = "as many as slots")]
        let share = waiting as f64 / (waiting + 1) as f64;
        match affordable(self.max_pause.mul_f64(share)) {
            Some(tokens) => tokens.clamp(MIN_CHUNK.min(self.batch), self.batch),
            None => self.batch,
        }
    }

    /// Seconds of a pass, and of each of its tokens; `None` before the first measurement.
    fn price(&self) -> Option<(f64, f64)> {
        if self.weight == 0.0 {
            return None;
        }
        let (tokens, seconds) = (self.tokens / self.weight, self.seconds / self.weight);
        let variance = self.tokens_squared / self.weight - tokens * tokens;
        // Passes of nearly one size tell nothing of a fixed price.
        let slope = if variance > (tokens / 20.0).powi(2) {
            (self.tokens_seconds / self.weight - tokens * seconds) / variance
        } else {
            seconds / tokens
        };
        let slope = slope.clamp(0.0, seconds / tokens);
        Some((seconds - slope * tokens, slope))
    }

    /// Takes note of a pass over `tokens` prompt tokens.
    pub(super) fn observe(&mut self, tokens: usize, took: Duration) {
        if tokens == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "at most a batch")]
        let (tokens, seconds) = (tokens as f64, took.as_secs_f64());
        let add = |sum: &mut f64, value: f64| *sum = *sum * MEMORY + value;
        add(&mut self.weight, 1.0);
        add(&mut self.tokens, tokens);
        add(&mut self.seconds, seconds);
        add(&mut self.tokens_squared, tokens * tokens);
        add(&mut self.tokens_seconds, tokens * seconds);
    }
}

/// A prompt that is not computed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) slot: usize,
    /// Tokens that are left.
    pub(super) left: usize,
    /// Tokens that were computed for other prompts while this one waited.
    pub(super) passed: u64,
}

/// Chooses the prompts of the next pass and how many tokens of each, as `(slot, tokens)`.
///
/// The prompt with the fewest tokens left comes first, since equal shares would make everyone as late as the last. Half of
/// what was computed for others meanwhile counts as if it were done, so that a long prompt is not overtaken for ever (all of
/// it would make equal prompts take turns). Short prompts share a pass.
pub(super) fn choose_prompts(waiting: &mut [Waiting], mut budget: usize, chosen: &mut Vec<(usize, usize)>) {
    chosen.clear();
    // Stable: of equal prompts the one of the lowest slot comes first.
    waiting.sort_by_key(|prompt| {
        u64::try_from(prompt.left)
            .unwrap_or(u64::MAX)
            .saturating_sub(prompt.passed / 2)
    });
    for prompt in waiting {
        let tokens = prompt.left.min(budget);
        let joins = prompt.left <= SHORT_PROMPT && tokens == prompt.left;
        if tokens == 0 || !(chosen.is_empty() || joins) {
            break;
        }
        chosen.push((prompt.slot, tokens));
        budget -= tokens;
        if !joins {
            break;
        }
    }
    // llama.cpp computes neighbouring sequences together when they are given in their order.
    chosen.sort_unstable();
}

/// Passes in which llama.cpp computes one token of each of these sequences: a pass takes sequences with consecutive
/// numbers (`llama_batch_allocr::split_equal` in `src/llama-batch.cpp`).
pub(super) fn passes(sequences: impl IntoIterator<Item = usize>) -> usize {
    let mut last = None;
    let mut passes = 0;
    for sequence in sequences {
        passes += usize::from(last.is_none_or(|last: usize| last + 1 != sequence));
        last = Some(sequence);
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BATCH: usize = 512;
    const PAUSE: Duration = Duration::from_millis(500);

    /// A machine whose passes cost `fixed` and `per_token` milliseconds.
    fn machine(fixed: f64, per_token: f64) -> Pacer {
        let mut pacer = Pacer::new(PAUSE, BATCH);
        for tokens in [32_u16, 512, 100, 256, 480] {
            let took = Duration::from_secs_f64((fixed + per_token * f64::from(tokens)) / 1000.0);
            pacer.observe(usize::from(tokens), took);
        }
        pacer
    }

    #[test]
    fn nothing_known_takes_the_whole_batch() {
        assert_eq!(Pacer::new(PAUSE, BATCH).budget(0, 1), BATCH);
        assert_eq!(Pacer::new(PAUSE, BATCH).budget(3, 1), BATCH);
    }

    #[test]
    fn pauses_are_bounded_and_the_share_of_prompts_grows_with_their_number() {
        let slow = machine(0.0, 2.0);
        assert_eq!(slow.budget(0, 1), BATCH);
        assert!((124..=125).contains(&slow.budget(1, 1)), "{}", slow.budget(1, 1));
        assert!((218..=219).contains(&slow.budget(1, 7)), "{}", slow.budget(1, 7));
        assert_eq!(machine(0.0, 1000.0).budget(1, 1), MIN_CHUNK);
        assert_eq!(machine(0.0, 0.1).budget(8, 1), BATCH);
    }

    #[test]
    fn passes_of_one_size_are_a_price_per_token() {
        let mut pacer = Pacer::new(PAUSE, BATCH);
        for _ in 0..20 {
            pacer.observe(512, Duration::from_millis(1024));
        }
        assert!((124..=125).contains(&pacer.budget(1, 1)), "{}", pacer.budget(1, 1));
    }

    #[test]
    fn a_pass_that_is_dear_whatever_its_size_is_full() {
        assert_eq!(machine(1800.0, 0.1).budget(1, 1), BATCH);
    }

    #[test]
    fn a_lone_prefill_has_short_passes_where_they_cost_little() {
        let budget = machine(0.0, 0.25).budget(0, 1);
        assert!((399..=400).contains(&budget), "{budget}");
        assert_eq!(machine(0.0, 0.02).budget(0, 1), BATCH);
    }

    fn prompt(slot: usize, left: usize, passed: u64) -> Waiting {
        Waiting { slot, left, passed }
    }

    fn chosen(mut waiting: Vec<Waiting>, budget: usize) -> Vec<(usize, usize)> {
        let mut chosen = Vec::new();
        choose_prompts(&mut waiting, budget, &mut chosen);
        chosen
    }

    #[test]
    fn equal_prompts_come_one_after_the_other() {
        let four = (0..4).map(|slot| prompt(slot, 350, 0)).collect();
        assert_eq!(chosen(four, BATCH), [(0, 350)]);
        assert_eq!(chosen(vec![prompt(0, 350, 250), prompt(3, 100, 0)], 64), [(3, 64)]);
    }

    #[test]
    fn short_prompts_come_first_and_share_a_pass() {
        let mixed = vec![
            prompt(0, 30_000, 0),
            prompt(1, 20, 0),
            prompt(2, 64, 0),
            prompt(3, 65, 0),
        ];
        assert_eq!(chosen(mixed, BATCH), [(1, 20), (2, 64)]);
    }

    #[test]
    fn a_long_prompt_is_not_overtaken_for_ever() {
        assert_eq!(
            chosen(vec![prompt(0, 30_000, 59_400), prompt(1, 350, 0)], 100),
            [(0, 100)]
        );
    }

    #[test]
    fn gaps_cost_passes() {
        assert_eq!(passes([0, 1, 2]), 1);
        assert_eq!(passes([0, 2, 3, 7]), 3);
        assert_eq!(passes([]), 0);
    }

    proptest! {
        #[test]
        fn something_is_computed_and_never_too_much(
            budget in 1usize..600,
            prompts in prop::collection::vec((1usize..1000, 0u64..2000), 1..12),
        ) {
            let waiting: Vec<Waiting> = prompts.iter().enumerate().map(|(slot, (left, passed))| prompt(slot, *left, *passed)).collect();
            let chosen = chosen(waiting.clone(), budget);
            prop_assert!(!chosen.is_empty());
            prop_assert!(chosen.iter().map(|(_, tokens)| tokens).sum::<usize>() <= budget);
            for (slot, tokens) in &chosen {
                prop_assert!(*tokens >= 1 && *tokens <= waiting[*slot].left);
            }
            prop_assert!(chosen.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }

        #[test]
        fn every_prompt_ends(mut left in prop::collection::vec(1usize..3000, 1..8), budget in 32usize..512) {
            let mut passed = vec![0u64; left.len()];
            let mut steps = 0;
            while left.iter().any(|left| *left > 0) {
                let waiting = (0..left.len()).filter(|slot| left[*slot] > 0).map(|slot| prompt(slot, left[slot], passed[slot])).collect();
                for (slot, tokens) in chosen(waiting, budget) {
                    left[slot] -= tokens;
                    for (other, passed) in passed.iter_mut().enumerate() {
                        *passed += if other == slot { 0 } else { tokens as u64 };
                    }
                }
                steps += 1;
                prop_assert!(steps < 10_000);
            }
        }
    }
}
