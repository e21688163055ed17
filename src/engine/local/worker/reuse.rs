//! What slots take over of earlier prompts, and of each other.

use std::sync::Arc;

use llama_cpp_2::context::session::{LlamaStateSeqFlags, SeqState};

use super::Worker;
use crate::engine::Token;
use crate::engine::local::checkpoints::{Checkpoint, Kept, SHORTEST_KEPT, bytes, is_far, reusable};
use crate::engine::local::queue::QueuedRequest;
use crate::engine::local::sampler::Logits;
use crate::engine::local::slot::Slot;

/// A prompt is taken over from another slot if it is not less than this part of the context.
const SHORTEST_SHARED: usize = 64;

/// Larger sequences are not kept while streams run: copying them takes longer than about a tenth of a second.
const LARGEST_BESIDE_STREAMS: usize = 256 << 20;

/// How far a slot is with a prompt that another request has, too.
#[derive(Clone, Copy)]
pub(super) enum Leader {
    /// It computes it now.
    Computes,
    /// It is done, and what came behind it can be dropped from a copy.
    HasIt,
}

impl Worker<'_> {
    /// The slot that is computing the prompt of a request right now, or has computed it and goes on from there: several
    /// choices are asked for as several requests.
    pub(super) fn same_prompt(&self, request: &QueuedRequest) -> Option<(usize, Leader)> {
        let context = usize::try_from(self.context_length).unwrap_or(usize::MAX);
        // llama.cpp copies a sequence with all the memory that is reserved for it.
        let worthwhile = request.prompt.len().saturating_mul(SHORTEST_SHARED) >= context;
        if !request.cache_prompt || request.routed_experts || !worthwhile {
            return None;
        }
        self.slots.iter().enumerate().find_map(|(index, slot)| {
            let active = slot.active.as_ref()?;
            if !active.keeps || active.follows.is_some() || active.routed.is_some() || active.prompt != request.prompt {
                return None;
            }
            match active.generated {
                0 => Some((index, Leader::Computes)),
                _ if self.can_trim(slot.sequence) => Some((index, Leader::HasIt)),
                _ => None,
            }
        })
    }

    /// Copies the sequence of a slot to that of another one, which is empty then if that failed.
    fn copy(&mut self, from: usize, to: usize) -> bool {
        self.clear(to);
        let (source, target) = (self.slots[from].sequence, self.slots[to].sequence);
        let copied = self.context.copy_kv_cache_seq(source, target, None, None);
        if let Err(error) = &copied {
            tracing::debug!(model = self.name, %error, "a sequence cannot be copied");
        }
        copied.is_ok()
    }

    /// Takes over all but the last token of a prompt that another slot has computed; returns how many tokens that are.
    pub(super) fn take_over(&mut self, from: usize, to: usize, prompt: &[Token]) -> usize {
        let keep = prompt.len() - 1;
        if !self.copy(from, to) {
            return 0;
        }
        self.slots[to].cached = prompt.to_vec();
        if self.trim(to, keep) { keep } else { 0 }
    }

    /// Gives the prompt that a slot has just computed to those that wait for it, and samples for them.
    pub(super) fn share_prompt(&mut self, from: usize, logits: Logits<'_>) {
        for index in 0..self.slots.len() {
            let follower = self.slots[index]
                .active
                .as_mut()
                .filter(|active| active.follows == Some(from));
            let Some(follower) = follower else { continue };
            follower.follows = None;
            follower.reused = follower.prompt.len();
            let prompt = follower.prompt.clone();
            if self.copy(from, index) {
                self.metrics.cached_tokens.inc_by(prompt.len() as u64);
                self.slots[index].cached = prompt;
                self.sample(index, logits, None);
            } else if let Some(active) = &mut self.slots[index].active {
                // It computes the prompt itself.
                active.reused = 0;
            }
        }
    }

    /// Whether the last tokens of a sequence can be dropped: all its positions are there, one by one. Recurrent and
    /// sliding-window memories report a later first position.
    pub(super) fn can_trim(&self, sequence: i32) -> bool {
        self.context.kv_cache_seq_pos_min(sequence) == 0
    }

    /// Drops all but the first `keep` tokens of a slot's sequence; false if the whole sequence had to go.
    pub(super) fn trim(&mut self, index: usize, keep: usize) -> bool {
        let sequence = self.slots[index].sequence;
        if keep > 0
            && self.restore(index, keep)
            && let Ok(position) = u32::try_from(keep)
            && let Ok(sequence_id) = u32::try_from(sequence)
            && self
                .context
                .clear_kv_cache_seq(Some(sequence_id), Some(position), None)
                .is_ok_and(|removed| removed)
        {
            return true;
        }
        self.clear(index);
        false
    }

    /// Puts back what a memory that cannot be cut had at a length, if it was saved; false if it was and cannot be put back.
    fn restore(&mut self, index: usize, length: usize) -> bool {
        let Slot {
            checkpoints, sequence, ..
        } = &mut self.slots[index];
        let Some(checkpoint) = checkpoints.iter_mut().find(|checkpoint| checkpoint.length == length) else {
            return true;
        };
        checkpoint.used = self.clock;
        let restored = self.context.state_seq_set(&checkpoint.state, *sequence);
        if let Err(error) = &restored {
            tracing::warn!(model = self.name, %error, "the saved state of a sequence cannot be put back");
        }
        restored.is_ok()
    }

    /// Saves what cannot be cut back of a slot's sequence, as it is now.
    pub(super) fn save(&mut self, index: usize) {
        self.save_as_of(index, self.clock, None);
    }

    /// The same at the end of a prompt, with the logits that its last token has in the last batch.
    pub(super) fn save_end(&mut self, index: usize, logits: i32) {
        let logits = self.context.get_logits_ith(logits).into();
        self.save_as_of(index, self.clock, Some(logits));
    }

    /// The same behind a pass that did not end where prompts are likely to part, if the last state is far back and nothing
    /// else has to make room for it. It is the first to make room itself, until a prompt goes on from there.
    pub(super) fn save_between(&mut self, index: usize) {
        let slot = &self.slots[index];
        let last = slot.checkpoints.last().map_or(0, |checkpoint| checkpoint.length);
        if !is_far(last, slot.cached.len()) {
            return;
        }
        let size = self
            .context
            .state_seq_get_size_ext(slot.sequence, LlamaStateSeqFlags::PARTIAL_ONLY);
        if self.saved_bytes() + size as u64 <= self.prompt_cache {
            self.save_as_of(index, 0, None);
        }
    }

    /// Saves the state as if it had been used last at that value of the worker's clock.
    fn save_as_of(&mut self, index: usize, used: u64, logits: Option<Arc<[f32]>>) {
        let slot = &self.slots[index];
        let (sequence, length) = (slot.sequence, slot.cached.len());
        if slot.checkpoints.iter().any(|checkpoint| checkpoint.length == length) {
            return;
        }
        let beside = logits.as_deref().map_or(0, size_of_val);
        if let Some(state) = self.state(sequence, LlamaStateSeqFlags::PARTIAL_ONLY, beside) {
            self.slots[index].checkpoints.push(Checkpoint {
                length,
                state: Arc::new(state),
                used,
                logits,
            });
            self.tell_bytes();
        }
    }

    /// Gives a slot the sequence that has most of a prompt, if that is one without a slot; returns how much of the prompt the
    /// slot has then. What most of is lost of the slot's own is kept.
    pub(super) fn exchange(&mut self, index: usize, reused: usize, prompt: &[Token]) -> usize {
        let of_kept = |kept: &Kept| reusable(&kept.tokens, &kept.checkpoints, prompt, kept.can_trim);
        let best = self.kept.iter().enumerate().map(|(at, kept)| (of_kept(kept), at)).max();
        let best = best.filter(|(length, _)| *length > reused + SHORTEST_KEPT);
        // Taken out first: to keep another one must not cost it.
        let kept = best.map(|(length, at)| (length, self.kept.remove(at)));
        let stays = if kept.is_some() { 0 } else { reused };
        // What the prompt goes on from is not what makes room.
        let clock = self.clock;
        let mut checkpoints = self.slots[index].checkpoints.iter_mut();
        if let Some(checkpoint) = checkpoints.find(|checkpoint| checkpoint.length == stays) {
            checkpoint.used = clock;
        }
        if stays < self.slots[index].cached.len() / 2 {
            self.keep(index);
        }
        let Some((length, kept)) = kept else { return reused };
        self.clear(index);
        let sequence = self.slots[index].sequence;
        if let Err(error) = self.context.state_seq_set(&kept.state, sequence) {
            tracing::warn!(model = self.name, %error, "a saved sequence cannot be put back");
            self.clear(index);
            return 0;
        }
        let slot = &mut self.slots[index];
        slot.cached = kept.tokens;
        slot.checkpoints = kept.checkpoints;
        length
    }

    /// Keeps what a slot holds, which is about to lose it.
    pub(super) fn keep(&mut self, index: usize) {
        let slot = &self.slots[index];
        let covers = |kept: &Kept| kept.tokens.starts_with(&slot.cached);
        if self.prompt_cache == 0 || slot.cached.len() < SHORTEST_KEPT || self.kept.iter().any(covers) {
            return;
        }
        let (sequence, can_trim) = (slot.sequence, self.can_trim(slot.sequence));
        let size = self
            .context
            .state_seq_get_size_ext(sequence, LlamaStateSeqFlags::empty());
        if size > LARGEST_BESIDE_STREAMS && self.slots.iter().any(|slot| slot.active.is_some()) {
            return;
        }
        if let Some(state) = self.state(sequence, LlamaStateSeqFlags::empty(), 0) {
            let slot = &self.slots[index];
            self.kept.push(Kept {
                tokens: slot.cached.clone(),
                state,
                can_trim,
                checkpoints: slot.checkpoints.clone(),
                used: self.clock,
            });
        }
    }

    /// The state of a sequence, with which so many bytes `beside` it are kept. What was not used for longest goes, to stay within
    /// the budget.
    fn state(&mut self, sequence: i32, flags: LlamaStateSeqFlags, beside: usize) -> Option<SeqState> {
        let size = (self.context.state_seq_get_size_ext(sequence, flags) + beside) as u64;
        if size > self.prompt_cache {
            return None;
        }
        while self.saved_bytes() + size > self.prompt_cache {
            self.forget_oldest();
        }
        let state = self.context.state_seq_get(sequence, flags);
        if let Err(error) = &state {
            tracing::warn!(model = self.name, %error, "the state of a sequence cannot be saved");
        }
        state.ok()
    }

    /// Bytes of all saved states.
    pub(super) fn saved_bytes(&self) -> u64 {
        let of_slots: u64 = self.slots.iter().map(|slot| bytes(&slot.checkpoints)).sum();
        of_slots + self.kept.iter().map(Kept::bytes).sum::<u64>()
    }

    pub(super) fn tell_bytes(&self) {
        let bytes = i64::try_from(self.saved_bytes()).unwrap_or(i64::MAX);
        self.metrics.prompt_cache.set(bytes);
    }

    /// Drops what was not used for longest: a sequence without a slot, or a state of one in a slot.
    fn forget_oldest(&mut self) {
        let kept = self.kept.iter().enumerate().map(|(at, kept)| (kept.used, at)).min();
        let saved = self.slots.iter().enumerate().flat_map(|(slot, held)| {
            let held = held.checkpoints.iter().enumerate();
            held.map(move |(at, checkpoint)| (checkpoint.used, slot, at))
        });
        match (kept, saved.min()) {
            (Some((used, at)), saved) if saved.is_none_or(|(other, ..)| used <= other) => drop(self.kept.remove(at)),
            (_, Some((_, slot, at))) => drop(self.slots[slot].checkpoints.remove(at)),
            _ => {}
        }
    }

    /// Empties a slot's sequence.
    pub(super) fn clear(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.forget();
        let sequence = slot.sequence;
        let removed = self
            .context
            .clear_kv_cache_seq(u32::try_from(sequence).ok(), None, None);
        if !matches!(removed, Ok(true)) {
            tracing::warn!(
                model = self.name,
                sequence,
                ?removed,
                "llama.cpp did not clear a sequence"
            );
        }
        self.tell_bytes();
    }
}
