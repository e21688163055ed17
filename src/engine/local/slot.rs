//! A slot: one sequence of llama.cpp's memory, and the request that is being computed in it.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::queue::Job;
use super::sampler::Sampler;
use super::text::TextAssembler;
use crate::engine::{Event, PrefillProgress, Timings, Token, Usage};

/// One sequence. It keeps its tokens after a request ends, so that a prompt that extends them is cheap.
#[derive(Debug)]
pub(super) struct Slot {
    /// llama.cpp's sequence id.
    pub(super) sequence: i32,
    /// The tokens that llama.cpp's memory holds for the sequence, in order.
    pub(super) cached: Vec<Token>,
    /// Value of the worker's clock when the slot was last used; the smallest is given away first.
    pub(super) last_used: u64,
    pub(super) active: Option<Active>,
}

/// A request in its slot.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) prompt: Vec<Token>,
    pub(super) sampler: Sampler,
    pub(super) text: TextAssembler,
    pub(super) events: UnboundedSender<Event>,
    pub(super) stop_tokens: Vec<Token>,
    pub(super) ignore_eos: bool,
    pub(super) special: bool,
    pub(super) progress: bool,
    pub(super) max_tokens: u32,
    /// Whether the slot keeps the sequence for requests that extend it.
    pub(super) keeps: bool,
    /// The token that was sampled and has not been computed yet; `None` during prefill.
    pub(super) next: Option<Token>,
    pub(super) generated: u32,
    /// Prompt tokens that were taken from the slot.
    pub(super) reused: usize,
    submitted: Instant,
    started: Instant,
    first_token: Option<Instant>,
    last_token: Instant,
}

impl Active {
    /// Starts a job whose first `reused` prompt tokens the slot already holds.
    pub(super) fn new(job: Job, reused: usize, sampler: Sampler, now: Instant) -> Self {
        Self {
            prompt: job.prompt,
            sampler,
            text: TextAssembler::new(job.stop),
            events: job.events,
            stop_tokens: job.stop_tokens,
            ignore_eos: job.ignore_eos,
            special: job.special,
            progress: job.progress,
            max_tokens: job.max_tokens,
            keeps: job.cache_prompt,
            next: None,
            generated: 0,
            reused,
            submitted: job.submitted,
            started: now,
            first_token: None,
            last_token: now,
        }
    }

    /// Counts a sampled token and returns the time since the one before (`None` for the first).
    pub(super) fn token_sampled(&mut self, now: Instant) -> Option<Duration> {
        self.generated += 1;
        let since = self.first_token.map(|_| now - self.last_token);
        self.first_token.get_or_insert(now);
        self.last_token = now;
        since
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: count(self.prompt.len()),
            completion_tokens: self.generated,
            cached_tokens: count(self.reused),
        }
    }

    pub(super) fn timings(&self) -> Timings {
        let first = self.first_token.unwrap_or(self.last_token);
        Timings {
            queue: self.started - self.submitted,
            prefill: first - self.started,
            decode: self.last_token - first,
        }
    }

    /// Time since the request was submitted.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now - self.submitted
    }

    /// Time since the request got its slot.
    pub(super) fn held(&self, now: Instant) -> Duration {
        now - self.started
    }

    pub(super) fn prefill_progress(&self, processed: usize, now: Instant) -> PrefillProgress {
        PrefillProgress {
            total: count(self.prompt.len()),
            cached: count(self.reused),
            processed: count(processed),
            elapsed: now - self.started,
        }
    }
}

impl Slot {
    pub(super) fn new(sequence: i32) -> Self {
        Self {
            sequence,
            cached: Vec::new(),
            last_used: 0,
            active: None,
        }
    }

    /// Prompt tokens that still have to be computed; 0 when idle or decoding.
    pub(super) fn prefill_left(&self) -> usize {
        match &self.active {
            Some(active) if active.next.is_none() => active.prompt.len() - self.cached.len(),
            _ => 0,
        }
    }

    /// How many leading tokens of `prompt` need not be computed again in this slot.
    ///
    /// At least one token is always left to compute: it yields the logits of the first answer token. A memory that
    /// cannot drop its last tokens (`can_trim` false: recurrent state, sliding windows) is only of use when all it
    /// holds is a beginning of the prompt.
    pub(super) fn reusable(&self, prompt: &[Token], can_trim: bool) -> usize {
        let common = self.cached.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let common = common.min(prompt.len().saturating_sub(1));
        if can_trim || common == self.cached.len() {
            common
        } else {
            0
        }
    }
}

/// The idle slot for a prompt: the one that saves most, else the one that was not used for longest.
pub(super) fn choose(slots: &[Slot], reusable: impl Fn(&Slot) -> usize) -> Option<(usize, usize)> {
    slots
        .iter()
        .enumerate()
        .filter(|(_, slot)| slot.active.is_none())
        .map(|(index, slot)| (index, reusable(slot), slot))
        .max_by_key(|(_, reuse, slot)| (*reuse, std::cmp::Reverse(slot.last_used)))
        .map(|(index, reuse, _)| (index, reuse))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(cached: &[Token], last_used: u64) -> Slot {
        Slot {
            cached: cached.to_vec(),
            last_used,
            ..Slot::new(0)
        }
    }

    #[test]
    fn an_extended_prompt_is_reused_by_any_memory() {
        let slot = slot(&[1, 2, 3], 0);
        assert_eq!(slot.reusable(&[1, 2, 3, 4], false), 3);
        assert_eq!(slot.reusable(&[1, 2, 3, 4], true), 3);
    }

    #[test]
    fn a_changed_prompt_is_reused_only_by_a_memory_that_can_trim() {
        let slot = slot(&[1, 2, 3], 0);
        assert_eq!(slot.reusable(&[1, 2, 9], false), 0);
        assert_eq!(slot.reusable(&[1, 2, 9], true), 2);
        // The same prompt again: one token must be computed for its logits.
        assert_eq!(slot.reusable(&[1, 2, 3], false), 0);
        assert_eq!(slot.reusable(&[1, 2, 3], true), 2);
    }

    #[test]
    fn the_most_saving_slot_wins_then_the_oldest() {
        let slots = [slot(&[1, 2], 5), slot(&[1, 2, 3], 9), slot(&[7], 1)];
        let pick = |prompt: &[Token]| choose(&slots, |slot| slot.reusable(prompt, true));
        assert_eq!(pick(&[1, 2, 3, 4]), Some((1, 3)));
        assert_eq!(pick(&[8, 8]), Some((2, 0)));
    }
}
