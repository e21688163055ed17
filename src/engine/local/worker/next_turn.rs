//! Computes the beginning of a turn that may come, in the slot that has most of it, while there are no requests.

use std::time::Instant;

use llama_cpp_2::token::LlamaToken;

use super::{Part, Worker};
use crate::engine::Token;
use crate::engine::local::slot::Slot;

impl Worker<'_> {
    /// Computes a part of the next turn that waits: a short pass, so that a request that comes meanwhile hardly waits. All
    /// slots are idle.
    pub(super) fn prepare(&mut self) {
        let Some(turn) = self.shared.turns.first() else { return };
        if !self.prepare_part(&turn) {
            self.shared.turns.done(&turn);
        }
    }

    /// Returns whether more is left to do.
    fn prepare_part(&mut self, turn: &[Token]) -> bool {
        let common = |slot: &Slot| slot.cached.iter().zip(turn).take_while(|(a, b)| a == b).count();
        let slots = self.slots.iter().enumerate();
        let best = slots.max_by_key(|(_, slot)| (common(slot), slot.last_used));
        let Some((index, slot)) = best else { return false };
        // Requests and what is done with slots end the wait: the slot of the answer still has it.
        if common(slot) == turn.len() || turn.len() >= self.context_length as usize || !self.has_room_for(index, turn) {
            return false;
        }
        let mut from = slot.reusable(turn, self.can_trim(slot.sequence));
        if from < slot.cached.len() {
            if !self.trim(index, from) {
                from = 0;
            }
            self.slots[index].truncate(from);
        }
        if let Some(drafts) = &mut self.drafts {
            drafts.begin(index, &self.slots[index].cached);
        }
        // As beside a stream: whoever comes waits for the pass.
        let tokens = self.pacer.budget(1, 1).min(turn.len() - from);
        let part = &turn[from..from + tokens];
        let began = Instant::now();
        if !self.compute_ahead(index, part) {
            self.clear(index);
            return false;
        }
        self.pacer.observe(tokens, began.elapsed());
        self.metrics.prepared_tokens.inc_by(tokens as u64);
        let done = from + tokens == turn.len();
        if done && self.saves {
            // The turn that comes goes on from here, and so does another one in its place.
            self.save(index);
        }
        tracing::debug!(
            model = self.name,
            slot = index,
            tokens,
            done,
            "computed ahead for the next turn"
        );
        !done
    }

    /// Computes tokens that follow what a slot holds; false if that failed.
    fn compute_ahead(&mut self, index: usize, tokens: &[Token]) -> bool {
        self.begin_batch();
        let slot = &self.slots[index];
        let from = slot.cached.len();
        for (offset, token) in tokens.iter().enumerate() {
            let position = i32::try_from(from + offset).unwrap_or(i32::MAX);
            // No more than a batch holds.
            let added = self.batch.add(LlamaToken(*token), position, &[slot.sequence], false);
            debug_assert!(added.is_ok());
        }
        if let Some(experts) = &self.experts {
            experts.begin(0);
        }
        if let Err(error) = self.decode() {
            tracing::warn!(model = self.name, %error, "the next turn cannot be computed ahead");
            return false;
        }
        self.context.synchronize();
        self.slots[index].cached.extend_from_slice(tokens);
        let part = Part {
            slot: index,
            tokens: tokens.len(),
            first: 0,
            prompt: Some(from),
            logits: None,
        };
        self.observe_prompt(&part);
        true
    }

    /// Whether a turn fits a slot without taking what others hold.
    fn has_room_for(&self, index: usize, turn: &[Token]) -> bool {
        let others = self.slots.iter().enumerate().filter(|(other, _)| *other != index);
        let held: usize = others.map(|(_, slot)| slot.cached.len()).sum();
        self.pool.is_none_or(|pool| held + turn.len() < pool)
    }
}
