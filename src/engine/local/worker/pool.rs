//! Slots that share one memory (`kv = "pool"`): who gets in, and who has to leave when it is full.
//!
//! A prompt is let in when it fits beside those that are there. Answers grow: what idle slots hold gives way first, the oldest
//! first, and then the longest answer ends as if it had reached its limit. llama-server fails a request there.

use super::Worker;
use crate::engine::FinishReason;
use crate::engine::local::queue::QueuedRequest;
use crate::engine::local::slot::Slot;

/// Tokens that a slot's request needs now, at least.
fn needs(slot: &Slot) -> usize {
    slot.active.as_ref().map_or(0, |active| {
        active.prompt.len().max(slot.cached.len() + active.pending.len())
    })
}

impl Worker<'_> {
    /// Whether a request's prompt fits beside those that are computed.
    pub(super) fn has_room(&self, request: &QueuedRequest) -> bool {
        let Some(pool) = self.pool else { return true };
        let needed: usize = self.slots.iter().map(needs).sum();
        // Alone, it fits the context.
        needed == 0 || needed + request.prompt.len() < pool
    }

    /// Empties idle slots until a prompt of so many tokens fits into this one.
    pub(super) fn make_room_in(&mut self, index: usize, prompt: usize) {
        let Some(pool) = self.pool else { return };
        loop {
            let others = self.slots.iter().enumerate().filter(|(other, _)| *other != index);
            let held: usize = others.map(|(_, slot)| needs(slot).max(slot.cached.len())).sum();
            if held + prompt <= pool || !self.empty_oldest(Some(index)) {
                return;
            }
        }
    }

    /// Tokens that passes can add; without end where each slot has a memory of its own.
    pub(super) fn free(&self) -> usize {
        let held = || self.slots.iter().map(|slot| slot.cached.len()).sum();
        self.pool.map_or(usize::MAX, |pool| pool.saturating_sub(held()))
    }

    /// Sees to it that a pass can add so many tokens: empties idle slots, and ends the longest answer if that is not enough.
    pub(super) fn make_room(&mut self, wanted: usize) {
        while self.free() < wanted {
            if self.empty_oldest(None) {
                continue;
            }
            let decoding = self.slots.iter().enumerate().filter(|(_, slot)| slot.decodes());
            let Some((longest, _)) = decoding.max_by_key(|(_, slot)| slot.cached.len()) else {
                return;
            };
            let span = self.slots[longest].active.as_ref().map(|active| active.span.clone());
            let _span = span.as_ref().map(tracing::Span::enter);
            tracing::info!(
                model = self.name,
                slot = longest,
                "the longest answer ends: the slots' memory is full"
            );
            self.end(longest, Ok(FinishReason::Length), "length");
        }
    }

    /// Empties the idle slot that was not used for longest, but for one; false if there is none.
    fn empty_oldest(&mut self, but: Option<usize>) -> bool {
        let idle = self
            .slots
            .iter()
            .enumerate()
            .filter(|(index, slot)| slot.active.is_none() && !slot.cached.is_empty() && Some(*index) != but);
        let Some((oldest, _)) = idle.min_by_key(|(_, slot)| slot.last_used) else {
            return false;
        };
        self.keep(oldest);
        self.clear(oldest);
        true
    }
}
