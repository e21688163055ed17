//! A slot: one sequence of llama.cpp's memory, and the request that is being computed in it.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llama_cpp_2::context::session::SeqState;
use tokio::sync::mpsc::UnboundedSender;

use super::checkpoints::{Checkpoint, reusable};
use super::queue::QueuedRequest;
use super::sampler::Sampler;
use super::schedule::{Waiting, passes};
use super::text::{Released, TextAssembler};
use crate::engine::{Event, PrefillProgress, RoutedExperts, Timings, Token, TokenLogprob, Usage};
use crate::experts::Routing;

/// One sequence. It keeps its tokens after a request ends, so that a prompt that extends them is cheap.
#[derive(Debug)]
pub(super) struct Slot {
    /// llama.cpp's sequence id.
    pub(super) sequence: i32,
    /// The tokens that llama.cpp's memory holds for the sequence, in order.
    pub(super) cached: Vec<Token>,
    /// States of beginnings of `cached`, shorter ones first; only where the memory cannot drop its last tokens.
    pub(super) checkpoints: Vec<Checkpoint>,
    /// What cannot be cut back, as it was before the last pass, if that had guesses.
    pub(super) undo: Option<SeqState>,
    /// Value of the worker's clock when the slot was last used; the smallest is given away first.
    pub(super) last_used: u64,
    pub(super) active: Option<Sequence>,
}

/// A request in its slot.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) prompt: Vec<Token>,
    pub(super) sampler: Sampler,
    pub(super) text: TextAssembler,
    pub(super) events: UnboundedSender<Event>,
    pub(super) stop_tokens: Vec<Token>,
    pub(super) ignore_eos: bool,
    pub(super) special: bool,
    /// Control tokens that are printed.
    preserved: Vec<Token>,
    pub(super) progress: bool,
    /// How many of the likeliest tokens are told with each.
    pub(super) logprobs: Option<u32>,
    /// Who computed each token so far, if that is told.
    pub(super) routed: Option<RoutedExperts>,
    /// Of tokens whose text has not left.
    held_logprobs: VecDeque<TokenLogprob>,
    pub(super) max_tokens: u32,
    /// Whether the slot keeps the sequence for requests that extend it.
    pub(super) keeps: bool,
    /// Lengths of the prompt at which a state is to be saved, the next one last.
    pub(super) saves_at: Vec<usize>,
    /// The logits of the first token, where the whole prompt was there.
    pub(super) first_logits: Option<Arc<[f32]>>,
    /// Tokens that were sampled and are not computed, or must be computed again; none during prefill.
    pub(super) pending: Vec<Token>,
    /// Guesses for what follows them, for the next pass.
    pub(super) guesses: Vec<Token>,
    /// Guesses that were made so far, and those that were right.
    pub(super) drafted: u32,
    pub(super) accepted: u32,
    /// The slot that computes the same prompt; this one takes it over when it is done.
    pub(super) follows: Option<usize>,
    pub(super) generated: u32,
    /// Prompt tokens that were taken from the slot.
    pub(super) reused: usize,
    /// Prompt tokens that the engine had computed when this one came.
    prefilled_before: u64,
    submitted: Instant,
    /// Log lines about the request belong to it.
    pub(super) span: tracing::Span,
    started: Instant,
    first_token: Option<Instant>,
    last_token: Instant,
}

impl Sequence {
    /// Starts a request whose first `reused` prompt tokens the slot already holds.
    ///
    /// `prefilled` counts the prompt tokens that the engine has computed so far.
    pub(super) fn new(request: QueuedRequest, reused: usize, prefilled: u64, sampler: Sampler, now: Instant) -> Self {
        Self {
            prompt: request.prompt,
            sampler,
            text: TextAssembler::new(request.stop),
            events: request.events,
            stop_tokens: request.stop_tokens,
            ignore_eos: request.ignore_eos,
            special: request.special,
            preserved: request.preserved,
            progress: request.progress,
            logprobs: request.logprobs,
            routed: request.routed_experts.then(RoutedExperts::default),
            held_logprobs: VecDeque::new(),
            max_tokens: request.max_tokens,
            keeps: request.cache_prompt,
            saves_at: Vec::new(),
            first_logits: None,
            pending: Vec::new(),
            guesses: Vec::new(),
            drafted: 0,
            accepted: 0,
            follows: None,
            generated: 0,
            reused,
            prefilled_before: prefilled,
            submitted: request.submitted,
            span: request.span,
            started: now,
            first_token: None,
            last_token: now,
        }
    }

    /// Whether a token is printed if it is a control token.
    pub(super) fn prints(&self, token: Token) -> bool {
        self.special || self.preserved.contains(&token)
    }

    /// Keeps how likely a token was until its text leaves.
    pub(super) fn hold_logprob(&mut self, logprob: TokenLogprob) {
        self.held_logprobs.push_back(logprob);
    }

    /// Takes note of who computed the token at this place of a pass that had so many.
    pub(super) fn route(&mut self, routing: &Routing, place: usize, tokens: usize) {
        if let Some(routed) = &mut self.routed
            && let Some(row) = routing.token(place, tokens)
        {
            routed.push(row);
        }
    }

    /// Sends who computed the answer, if that is told.
    pub(super) fn send_routed(&mut self) {
        if let Some(routed) = self.routed.take() {
            // The client may be gone.
            let _ = self.events.send(Event::RoutedExperts(routed));
        }
    }

    /// Sends text with the tokens that it completes.
    pub(super) fn send(&mut self, released: Released) {
        let count = released.tokens.len().min(self.held_logprobs.len());
        let mut logprobs: Vec<TokenLogprob> = self.held_logprobs.drain(..count).collect();
        if let Some(last) = logprobs.last_mut() {
            let bytes = &mut last.chosen.bytes;
            bytes.truncate(bytes.len().saturating_sub(released.overhang));
        }
        if !released.text.is_empty() {
            // The client may be gone.
            let _ = self.events.send(Event::Delta {
                text: released.text,
                tokens: released.tokens,
                logprobs,
            });
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
            draft_tokens: self.drafted,
            accepted_tokens: self.accepted,
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

    pub(super) fn prefill_progress(&self, slot: u32, processed: usize, now: Instant) -> PrefillProgress {
        PrefillProgress {
            slot,
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
            checkpoints: Vec::new(),
            undo: None,
            last_used: 0,
            active: None,
        }
    }

    /// Takes note that the sequence is empty: the slot is the first to be given away.
    pub(super) fn forget(&mut self) {
        self.truncate(0);
        self.last_used = 0;
    }

    /// Takes note that the sequence has only its first `length` tokens.
    pub(super) fn truncate(&mut self, length: usize) {
        self.cached.truncate(length);
        self.checkpoints.retain(|checkpoint| checkpoint.length <= length);
    }

    /// Whether the slot has one token to compute, whose logits are wanted. The last token of a prompt is one where its experts
    /// are told: only in passes of single tokens is it known which ones are whose.
    pub(super) fn decodes(&self) -> bool {
        let decodes = |active: &Sequence| {
            !active.pending.is_empty() || (active.routed.is_some() && self.cached.len() + 1 == active.prompt.len())
        };
        self.active.as_ref().is_some_and(decodes)
    }

    /// The prompt that is not computed yet, if there is one; `prefilled` counts all prompt tokens that the engine computed.
    pub(super) fn waiting(&self, index: usize, prefilled: u64) -> Option<Waiting> {
        let computes = |active: &&Sequence| active.pending.is_empty() && active.follows.is_none();
        let active = self.active.as_ref().filter(computes)?;
        let own = self.cached.len() - active.reused;
        let left = active.prompt.len() - self.cached.len() - usize::from(active.routed.is_some());
        (left > 0).then(|| Waiting {
            slot: index,
            left,
            passed: (prefilled - active.prefilled_before).saturating_sub(own as u64),
        })
    }

    /// How many leading tokens of `prompt` need not be computed again in this slot.
    pub(super) fn reusable(&self, prompt: &[Token], can_trim: bool) -> usize {
        reusable(&self.cached, &self.checkpoints, prompt, can_trim)
    }
}

/// Reusing less than this share of a prompt is not worth a slot that holds something else.
const WORTHWHILE: usize = 10;

/// The idle slot for a prompt of `length` tokens, and the tokens it can reuse.
///
/// First the one that saves a good part of the prompt. Else one beside the running slots, since llama.cpp computes slots
/// with consecutive numbers in one pass; of these the one that was not used for longest.
pub(super) fn choose(slots: &[Slot], length: usize, reusable: impl Fn(&Slot) -> usize) -> Option<(usize, usize)> {
    let passes_with = |index: usize| {
        let active = slots.iter().enumerate();
        let active = active.filter(|(other, slot)| *other == index || slot.active.is_some());
        passes(active.map(|(index, _)| index))
    };
    slots
        .iter()
        .enumerate()
        .filter(|(_, slot)| slot.active.is_none())
        .map(|(index, slot)| (index, reusable(slot), slot))
        .max_by_key(|(index, reuse, slot)| {
            let saved = if reuse * WORTHWHILE >= length { *reuse } else { 0 };
            (
                saved,
                Reverse(passes_with(*index)),
                Reverse(slot.last_used),
                Reverse(*index),
            )
        })
        .map(|(index, reuse, _)| (index, reuse))
}

pub(super) fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::sampler::Choice;
    use super::*;

    fn active() -> Sequence {
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        let request = QueuedRequest {
            prompt: vec![1, 2, 3],
            sampling: crate::engine::Sampling::default(),
            max_tokens: 1,
            stop: vec![],
            stop_tokens: vec![],
            ignore_eos: false,
            cache_prompt: true,
            borders: vec![],
            special: false,
            preserved: vec![],
            progress: false,
            grammar: None,
            thinking: None,
            logprobs: None,
            routed_experts: false,
            events,
            submitted: Instant::now(),
            span: tracing::Span::none(),
        };
        let sampler = Sampler::new(Choice::Greedy, None, None, vec![]);
        Sequence::new(request, 1, 10, sampler, Instant::now())
    }

    #[test]
    fn what_was_computed_for_others_counts() {
        let mut slot = slot(&[1, 2], 0);
        slot.active = Some(active());
        // Of the five tokens since it came one was its own.
        let expect = Waiting {
            slot: 7,
            left: 1,
            passed: 4,
        };
        assert_eq!(slot.waiting(7, 15), Some(expect));
    }

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
        let pick = |prompt: &[Token]| choose(&slots, prompt.len(), |slot| slot.reusable(prompt, true));
        assert_eq!(pick(&[1, 2, 3, 4]), Some((1, 3)));
        assert_eq!(pick(&[8, 8]), Some((2, 0)));
        // A few common tokens do not make up for losing what the slot holds.
        let long: Vec<Token> = (1..40).collect();
        assert_eq!(pick(&long), Some((2, 0)));
    }

    #[test]
    fn without_savings_running_slots_stay_together() {
        let mut slots = [slot(&[], 0), slot(&[1], 9), slot(&[], 0), slot(&[], 0)];
        let pick = |slots: &[Slot]| choose(slots, 2, |_| 0).map(|(index, _)| index);
        assert_eq!(pick(&slots), Some(0));
        slots[0].active = Some(active());
        assert_eq!(pick(&slots), Some(1));
        slots[1].active = Some(active());
        slots[3].active = Some(active());
        assert_eq!(pick(&slots), Some(2));
    }
}
