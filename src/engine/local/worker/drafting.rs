//! Passes that compute guesses together with the tokens that are sure.

use std::time::{Duration, Instant};

use llama_cpp_2::context::session::LlamaStateSeqFlags;
use llama_cpp_2::token::LlamaToken;

use super::{Part, Worker};
use crate::engine::local::drafts::{Computed, Drafts, Reached};
use crate::engine::local::error::{ComputeError, DraftError};
use crate::engine::local::sampler::Logits;
use crate::experts::Phase;

/// How often a pass is computed to find out how long it takes; the shortest time counts.
const TRIALS: usize = 5;

/// After so long nothing more is found out before the model serves, but what a pass of one stream takes.
const REHEARSAL: Duration = Duration::from_secs(2);

impl<'m> Worker<'m> {
    /// Decodes a token of each of the running sequences, of which there are `streams`, and more where guesses are right.
    pub(super) fn decode_streams(&mut self, streams: usize) {
        let began = Instant::now();
        let sure = self.slots.iter().filter_map(|slot| slot.active.as_ref());
        self.make_room(sure.map(|active| active.pending.len()).sum());
        let width = self.width(streams);
        if width > 1 && self.free() >= streams * width {
            self.guess(width);
        }
        self.begin_batch();
        for index in 0..self.slots.len() {
            if self.slots[index].decodes() {
                self.add(index, 1);
            }
        }
        let Some(width) = self.parts.iter().map(|part| part.tokens).max() else {
            // The only answer has ended, to make room for a prompt.
            return;
        };
        let sampled = self.sampled;
        if self.compute(Phase::Decode)
            && let Some(drafts) = &mut self.drafts
        {
            let tokens = self.sampled.wrapping_sub(sampled);
            drafts.pace.took(streams, width, began.elapsed(), Some(tokens));
            drafts.rest_or_wake();
        }
    }

    /// Tokens that each stream shall have in the next pass.
    fn width(&mut self, streams: usize) -> usize {
        let Some(drafts) = &mut self.drafts else { return 1 };
        // Which experts computed which token is only known in passes of single tokens.
        let routed = |active: &super::Sequence| active.routed.is_some();
        if self.slots.iter().any(|slot| slot.active.as_ref().is_some_and(routed)) {
            return 1;
        }
        drafts.pace.choose(streams).min(self.batch_tokens / streams)
    }

    /// Makes guesses for the sequences that decode, and prepares for wrong ones.
    fn guess(&mut self, width: usize) {
        let Some(drafts) = &mut self.drafts else { return };
        if let Err(error) = drafts.guess(&mut self.slots, width) {
            return self.give_up(error);
        }
        if !self.replays {
            return;
        }
        let flags = LlamaStateSeqFlags::PARTIAL_ONLY | LlamaStateSeqFlags::ON_DEVICE;
        for slot in &mut self.slots {
            let guesses = slot.active.as_mut().map(|active| &mut active.guesses);
            let Some(guesses) = guesses.filter(|guesses| !guesses.is_empty()) else {
                continue;
            };
            slot.undo = self.context.state_seq_get(slot.sequence, flags).ok();
            if slot.undo.is_none() {
                guesses.clear();
            }
        }
    }

    /// Makes no more guesses: what makes them fails.
    fn give_up(&mut self, error: DraftError) {
        tracing::warn!(model = self.name, %error, "no more drafts");
        if let Some(drafts) = self.drafts.take() {
            drafts.listen(false);
        }
        for slot in &mut self.slots {
            if let Some(active) = &mut slot.active {
                active.guesses.clear();
            }
        }
    }

    /// Tells what makes the guesses that a pass has computed tokens of a slot, `count` from `start` on.
    fn observe(&mut self, part: &Part, start: usize, count: usize, reached: Reached) {
        let Some(drafts) = &mut self.drafts else { return };
        let computed = Computed {
            start,
            count,
            place: part.first,
            reached,
        };
        let text = &self.slots[part.slot].cached;
        if let Err(error) = drafts.observe(part.slot, text, computed) {
            self.give_up(error);
        }
    }

    /// Tells what makes the guesses that a pass has computed tokens of a prompt, if the slot still holds them.
    pub(super) fn observe_prompt(&mut self, part: &Part) {
        if let Some(from) = part.prompt
            && self.slots[part.slot].cached.len() >= from + part.tokens
        {
            let reached = if part.logits.is_some() {
                Reached::PromptEnd
            } else {
                Reached::Prompt
            };
            self.observe(part, from, part.tokens, reached);
        }
    }

    /// Takes note that the sure tokens and the guesses of a part are computed, and samples behind each as long as the guesses
    /// are right.
    pub(super) fn decoded(&mut self, part: &Part) {
        let (index, slot) = (part.slot, &mut self.slots[part.slot]);
        let (Some(active), Some(logits)) = (&mut slot.active, part.logits) else {
            return;
        };
        let start = slot.cached.len();
        let sure = active.pending.len();
        slot.cached.append(&mut active.pending);
        let guesses = std::mem::take(&mut active.guesses);
        active.drafted += super::slot::count(guesses.len());
        self.metrics.draft_tokens.inc_by(guesses.len() as u64);
        // Guesses that were right, and those of them that the text goes on from: the last one may end it.
        let (mut right, mut kept) = (0, 0);
        let wrong = loop {
            let guess = guesses.get(kept).copied();
            // As many as fit the batch.
            let place = logits + i32::try_from(kept).unwrap_or(i32::MAX);
            if !self.sample(index, Logits::Computed(place), guess) {
                break guess.is_some();
            }
            right += 1;
            let Some(active) = &mut self.slots[index].active else {
                break false;
            };
            active.pending.clear();
            self.slots[index].cached.extend(guess);
            kept += 1;
        };
        if let Some(drafts) = &mut self.drafts {
            drafts.pace.guessed(right, wrong);
        }
        if self.slots[index].cached.len() < start + sure + kept {
            // The request has failed, or what it held was not to be kept.
            return;
        }
        self.observe(part, start, sure + kept, Reached::Answer);
        if kept < guesses.len() {
            self.take_back(index, start, start + sure + kept);
        }
        if let Some(active) = &mut self.slots[index].active {
            // Its memory is used again.
            active.guesses = guesses;
            active.guesses.clear();
        }
    }

    /// Drops the wrong guesses of a pass that began at `start` from a slot's memory, all but the first `keep` tokens.
    fn take_back(&mut self, index: usize, start: usize, keep: usize) {
        let slot = &mut self.slots[index];
        let mut from = keep;
        if self.replays {
            // What cannot be cut goes back to where the pass began; the next one computes the tokens since then again.
            from = start;
            let again = slot.cached.split_off(start);
            if let Some(active) = &mut slot.active {
                active.pending.splice(0..0, again);
            }
            let undo = slot.undo.take();
            let restored = undo.is_some_and(|state| self.context.state_seq_set(&state, slot.sequence).is_ok());
            if !restored {
                return self.fail(index, &ComputeError::TakeBack);
            }
        }
        let (sequence, position) = (u32::try_from(slot.sequence).ok(), u32::try_from(from).ok());
        let trimmed = self.context.clear_kv_cache_seq(sequence, position, None);
        if !matches!(trimmed, Ok(true)) {
            self.fail(index, &ComputeError::TakeBack);
        }
    }

    /// Has guesses made from now on, unless it turns out that they cannot pay; tells which.
    ///
    /// # Errors
    /// When a pass cannot be computed.
    pub(in crate::engine::local) fn draft(&mut self, drafts: Option<Drafts<'m>>) -> Result<bool, ComputeError> {
        self.drafts = drafts;
        let Some(drafts) = &self.drafts else { return Ok(false) };
        if drafts.pace.is_fixed() {
            return Ok(true);
        }
        let longest = drafts.pace.longest();
        let began = Instant::now();
        let mut streams = 1;
        while streams <= self.slots.len() && (streams == 1 || began.elapsed() < REHEARSAL) {
            self.rehearse(
                streams,
                longest.min(self.batch_tokens.min(self.free()) / streams).max(1),
            )?;
            // The last number is that of all slots.
            streams = match streams * 2 {
                twice if twice > self.slots.len() && streams < self.slots.len() => self.slots.len(),
                twice => twice,
            };
        }
        let Some(drafts) = &self.drafts else { return Ok(false) };
        let price = drafts.pace.price().unwrap_or(1.0);
        let (hope, stays) = (drafts.pace.has_hope(), drafts.is_small_model());
        let what = match (hope, stays) {
            (true, _) => "drafts",
            (false, true) => "no drafts now, but the small model stays in memory; leave out `path` to do without",
            (false, false) => "no drafts",
        };
        tracing::info!(
            model = self.name,
            "{what}: a pass of {longest} tokens takes {price:.2} times as long as one of a single token"
        );
        if !hope && !stays {
            drafts.listen(false);
            self.drafts = None;
        }
        Ok(self.drafts.is_some())
    }

    /// Finds out what passes of so many streams take, with 1 to `widest` tokens of each, one after the other: what else the
    /// machine does is then the same for all.
    fn rehearse(&mut self, streams: usize, widest: usize) -> Result<(), ComputeError> {
        self.teaches(false);
        let done = self.try_widths(streams, widest);
        self.teaches(true);
        done
    }

    fn try_widths(&mut self, streams: usize, widest: usize) -> Result<(), ComputeError> {
        let (mut shortest, started) = (vec![Duration::MAX; widest], Instant::now());
        for trial in 0..=TRIALS {
            // The first one is not like the others; where passes take long, the second is enough.
            if trial > 1 && started.elapsed() > REHEARSAL / 4 {
                break;
            }
            for (before, shortest) in shortest.iter_mut().enumerate() {
                let took = self.rehearse_pass(streams, before + 1)?;
                if trial > 0 {
                    *shortest = took.min(*shortest);
                }
            }
        }
        if let Some(drafts) = &mut self.drafts {
            for (before, shortest) in shortest.into_iter().enumerate() {
                drafts.pace.took(streams, before + 1, shortest, None);
            }
        }
        Ok(())
    }

    /// Computes a pass of so many streams and tokens of each.
    fn rehearse_pass(&mut self, streams: usize, width: usize) -> Result<Duration, ComputeError> {
        self.batch.clear();
        for stream in 0..streams {
            let sequence = self.slots[stream].sequence;
            for position in 0..width {
                // As many as fit the batch, which are fewer than an i32 can count.
                let place = i32::try_from(position).unwrap_or(0);
                let token = LlamaToken(self.end_tokens.first().copied().unwrap_or(0));
                let added = self.batch.add(token, place, &[sequence], true);
                added.map_err(|_| ComputeError::Batch)?;
            }
        }
        let began = Instant::now();
        if width > 1
            && let Some(drafts) = &mut self.drafts
        {
            drafts.rehearse(streams, width - 1)?;
        }
        self.decode()?;
        self.context.synchronize();
        let took = began.elapsed();
        self.context.clear_kv_cache();
        Ok(took)
    }
}
