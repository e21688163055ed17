//! The engine thread: it owns the context, and does nothing but drive the model.
//!
//! Each step takes one token of every decoding slot and a fair share of the prompts that are being prefilled, computes
//! them as one batch, samples, and sends events. It never waits for a client: the channels are unbounded, and a
//! receiver that is gone frees its slot before the next step.

use std::sync::Arc;
use std::time::Instant;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;

use super::load::LoadSpec;
use super::queue::{Job, Shared, fail};
use super::sampler::Sampler;
use super::schedule::{BATCH, Pacer, share};
use super::slot::{self, Active, Slot};
use crate::engine::{EngineError, Event, FinishReason, Token};
use crate::experts::ExpertCache;
use crate::telemetry::ModelMetrics;

pub(super) struct Worker<'m> {
    name: String,
    model: &'m LlamaModel,
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    slots: Vec<Slot>,
    shared: Arc<Shared>,
    /// The cache of experts, which wants to know what a batch is for.
    experts: Option<Arc<ExpertCache>>,
    metrics: ModelMetrics,
    pacer: Pacer,
    /// Tokens per slot.
    context_length: u32,
    /// The model's end-of-generation tokens.
    end_tokens: Vec<Token>,
    /// Counts admissions, to know which slot was not used for longest.
    clock: u64,
    // Reused from step to step, so that a step allocates nothing.
    parts: Vec<Part>,
    remaining: Vec<usize>,
    shares: Vec<usize>,
    piece: Vec<u8>,
}

/// What one slot has in the current batch.
struct Part {
    slot: usize,
    tokens: usize,
    /// Index in the batch of the token whose logits are wanted.
    logits: Option<i32>,
}

impl<'m> Worker<'m> {
    pub(super) fn new(
        name: String,
        model: &'m LlamaModel,
        context: LlamaContext<'m>,
        spec: &LoadSpec,
        shared: Arc<Shared>,
        metrics: ModelMetrics,
    ) -> Self {
        let vocab = model.vocab();
        Self {
            name,
            context,
            batch: LlamaBatch::new(BATCH, 1),
            slots: (0..i32::try_from(spec.parallel).unwrap_or(1)).map(Slot::new).collect(),
            shared,
            experts: spec.experts.clone(),
            metrics,
            pacer: Pacer::default(),
            context_length: spec.context,
            end_tokens: vocab
                .tokens()
                .filter(|token| vocab.is_eog(*token))
                .map(|token| token.0)
                .collect(),
            clock: 0,
            parts: Vec::new(),
            remaining: Vec::new(),
            shares: Vec::new(),
            piece: Vec::new(),
            model,
        }
    }

    /// Computes one token, so that lazily mapped weights and kernels are there for the first request.
    pub(super) fn warm_up(&mut self) -> Result<(), String> {
        let token = self.end_tokens.first().copied().unwrap_or(0);
        self.batch.clear();
        self.batch
            .add(LlamaToken(token), 0, &[0], true)
            .map_err(|error| error.to_string())?;
        let result = self.context.decode(&mut self.batch).map_err(|error| error.to_string());
        self.context.synchronize();
        self.context.clear_kv_cache();
        result
    }

    /// Runs until the engine is told to stop.
    pub(super) fn run(&mut self) {
        while !self.shared.stopping() {
            self.drop_cancelled();
            self.admit();
            self.publish();
            if self.slots.iter().all(|slot| slot.active.is_none()) {
                self.shared.wait();
            } else {
                self.step();
            }
        }
        for index in 0..self.slots.len() {
            self.end(index, Err(EngineError::ShuttingDown), "error");
        }
        self.publish();
    }

    fn publish(&self) {
        let counts = self.shared.counts();
        self.metrics.running.set(i64::from(counts.busy));
        self.metrics.waiting.set(i64::from(counts.waiting));
    }

    fn drop_cancelled(&mut self) {
        for index in 0..self.slots.len() {
            let gone = self.slots[index]
                .active
                .as_ref()
                .is_some_and(|active| active.events.is_closed());
            if gone {
                self.release(index, "cancelled");
            }
        }
    }

    fn admit(&mut self) {
        while self.slots.iter().any(|slot| slot.active.is_none()) {
            let Some(job) = self.shared.pop() else { return };
            self.start(job);
        }
    }

    fn start(&mut self, job: Job) {
        let chosen = slot::choose(&self.slots, |slot| {
            if job.cache_prompt {
                slot.reusable(&job.prompt, self.can_trim(slot.sequence))
            } else {
                0
            }
        });
        let Some((index, mut reused)) = chosen else {
            // `admit` saw an idle slot.
            fail(&job, self.compute_error("no idle slot"));
            return;
        };
        if reused < self.slots[index].cached.len() && !self.trim(index, reused) {
            reused = 0;
        }
        let slot = &mut self.slots[index];
        slot.cached.truncate(reused);

        let now = Instant::now();
        let banned = if job.ignore_eos { &self.end_tokens[..] } else { &[] };
        let mut sampler = Sampler::new(&job.sampling, banned, self.model, self.context_length);
        sampler.prime(&job.prompt);
        let active = Active::new(job, reused, sampler, now);

        self.metrics.prompt_tokens.inc_by(active.prompt.len() as u64);
        self.metrics.cached_tokens.inc_by(reused as u64);
        self.metrics.queue_time.observe(active.age(now).as_secs_f64());
        self.shared.slot_taken();
        self.clock += 1;
        let slot = &mut self.slots[index];
        slot.last_used = self.clock;
        slot.active = Some(active);
    }

    /// Whether the last tokens of a sequence can be dropped: all its positions are there, one by one. Recurrent and
    /// sliding-window memories report a later first position.
    fn can_trim(&self, sequence: i32) -> bool {
        self.context.kv_cache_seq_pos_min(sequence) == 0
    }

    /// Drops all but the first `keep` tokens of a slot's sequence; false if the whole sequence had to go.
    fn trim(&mut self, index: usize, keep: usize) -> bool {
        let sequence = self.slots[index].sequence;
        if keep > 0
            && let Ok(position) = u32::try_from(keep)
            && let Ok(sequence_id) = u32::try_from(sequence)
            && self
                .context
                .clear_kv_cache_seq(Some(sequence_id), Some(position), None)
                .is_ok_and(|removed| removed)
        {
            return true;
        }
        self.clear(sequence);
        false
    }

    fn clear(&mut self, sequence: i32) {
        let id = u32::try_from(sequence).ok();
        let removed = self.context.clear_kv_cache_seq(id, None, None);
        if !matches!(removed, Ok(true)) {
            tracing::warn!(
                model = self.name,
                sequence,
                ?removed,
                "llama.cpp did not clear a sequence"
            );
        }
    }

    /// Computes one batch, and samples for every slot whose turn it is.
    fn step(&mut self) {
        let prefilled = self.fill_batch();
        if let Some(experts) = &self.experts {
            let tokens = usize::try_from(self.batch.n_tokens()).unwrap_or(0);
            experts.begin(tokens.saturating_sub(prefilled));
        }
        let before = Instant::now();
        let result = self.context.decode(&mut self.batch);
        if let Err(error) = result {
            self.fail_batch(&error.to_string());
            return;
        }
        // With nothing to sample there is nothing that would wait for a device: without this, a long prefill would
        // be queued as a whole and could not be cancelled.
        if self.parts.iter().all(|part| part.logits.is_none()) {
            self.context.synchronize();
        }
        if prefilled > 0
            && let Some(experts) = &self.experts
            && self.parts.iter().any(|part| part.logits.is_some())
        {
            // Before anything is sampled: the uploads have that time.
            self.context.synchronize();
            experts.prompt_ended();
        }
        let parts = std::mem::take(&mut self.parts);
        for part in &parts {
            self.computed(part);
        }
        self.parts = parts;
        if prefilled > 0 {
            self.pacer.observe(prefilled, before.elapsed());
        }
    }

    /// Puts the next tokens of all active slots into the batch and returns how many of them are prompt tokens.
    fn fill_batch(&mut self) -> usize {
        self.batch.clear();
        self.parts.clear();
        self.remaining.clear();
        self.remaining.extend(self.slots.iter().map(Slot::prefill_left));
        let decoding = self
            .slots
            .iter()
            .filter(|slot| slot.active.as_ref().is_some_and(|active| active.next.is_some()))
            .count();
        share(self.pacer.budget(decoding), &self.remaining, &mut self.shares);

        let mut prefilled = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(active) = &slot.active else { continue };
            let start = slot.cached.len();
            let (tokens, wants_logits) = match &active.next {
                Some(token) => (std::slice::from_ref(token), true),
                None => {
                    let end = start + self.shares[index];
                    prefilled += self.shares[index];
                    (&active.prompt[start..end], end == active.prompt.len())
                }
            };
            let Some(last) = tokens.len().checked_sub(1) else {
                continue;
            };
            for (offset, token) in tokens.iter().enumerate() {
                let position = i32::try_from(start + offset).unwrap_or(i32::MAX);
                let logits = wants_logits && offset == last;
                // The batch holds BATCH tokens, and so many were shared out.
                let added = self.batch.add(LlamaToken(*token), position, &[slot.sequence], logits);
                debug_assert!(added.is_ok());
            }
            self.parts.push(Part {
                slot: index,
                tokens: tokens.len(),
                logits: wants_logits.then_some(self.batch.n_tokens() - 1),
            });
        }
        prefilled
    }

    /// Takes note that the tokens of a part are computed, and samples where its logits are there.
    fn computed(&mut self, part: &Part) {
        let slot = &mut self.slots[part.slot];
        let Some(active) = &mut slot.active else { return };
        match active.next.take() {
            Some(token) => slot.cached.push(token),
            None => {
                let from = slot.cached.len();
                slot.cached.extend_from_slice(&active.prompt[from..from + part.tokens]);
                if active.progress {
                    let progress = active.prefill_progress(slot.cached.len(), Instant::now());
                    let _ = active.events.send(Event::Progress(progress));
                }
            }
        }
        let Some(logits) = part.logits else { return };
        let token = active.sampler.sample(&self.context, logits);
        let now = Instant::now();
        match active.token_sampled(now) {
            Some(since) => self.metrics.inter_token.observe(since.as_secs_f64()),
            None => {
                self.metrics.time_to_first_token.observe(active.age(now).as_secs_f64());
                self.metrics.prefill_time.observe(active.held(now).as_secs_f64());
            }
        }
        self.metrics.generation_tokens.inc();

        let ends = (!active.ignore_eos && self.end_tokens.contains(&token)) || active.stop_tokens.contains(&token);
        if ends {
            self.end(part.slot, Ok(FinishReason::EndOfText), "stop");
            return;
        }
        self.piece.clear();
        self.model
            .vocab()
            .token_to_piece_into(LlamaToken(token), &mut self.piece, active.special, None);
        let released = active.text.push(token, &self.piece);
        if !released.text.is_empty() {
            let _ = active.events.send(Event::Delta {
                text: released.text,
                tokens: released.tokens,
            });
        }
        if let Some(stop) = released.stop {
            self.end(part.slot, Ok(FinishReason::StopString(stop)), "stop");
        } else if active.generated >= active.max_tokens {
            self.end(part.slot, Ok(FinishReason::Length), "length");
        } else {
            active.next = Some(token);
        }
    }

    /// Ends the request of a slot, if there is one, and tells its client.
    fn end(&mut self, index: usize, outcome: Result<FinishReason, EngineError>, how: &str) {
        let Some(active) = &mut self.slots[index].active else {
            return;
        };
        let last = match outcome {
            Ok(reason) => {
                let released = active.text.finish();
                if !released.text.is_empty() {
                    let _ = active.events.send(Event::Delta {
                        text: released.text,
                        tokens: released.tokens,
                    });
                }
                self.metrics.decode_time.observe(active.timings().decode.as_secs_f64());
                Event::Finished {
                    reason,
                    usage: active.usage(),
                    timings: active.timings(),
                }
            }
            Err(error) => Event::Failed(error),
        };
        // The slot is free before its client hears of the end: who asks next finds it so.
        let events = active.events.clone();
        self.release(index, how);
        let _ = events.send(last);
    }

    fn release(&mut self, index: usize, how: &str) {
        if let Some(active) = self.slots[index].active.take() {
            if !active.keeps {
                // What nobody will extend only slows down the attention of the others, who share the memory.
                self.clear(self.slots[index].sequence);
                self.slots[index].cached.clear();
            }
            let now = Instant::now();
            self.shared.slot_freed(active.held(now));
            self.metrics.e2e.observe(active.age(now).as_secs_f64());
            self.metrics.count_request(how);
            self.publish();
        }
    }

    /// Ends the requests of a batch that failed; what their sequences hold is not known any more.
    fn fail_batch(&mut self, reason: &str) {
        tracing::error!(model = self.name, reason, "a batch failed");
        let parts = std::mem::take(&mut self.parts);
        for part in &parts {
            let sequence = self.slots[part.slot].sequence;
            self.clear(sequence);
            self.slots[part.slot].cached.clear();
            let error = self.compute_error(reason);
            self.end(part.slot, Err(error), "error");
        }
        self.parts = parts;
    }

    fn compute_error(&self, reason: &str) -> EngineError {
        EngineError::Compute {
            model: self.name.clone(),
            reason: reason.to_owned(),
        }
    }
}
