//! The engine thread: it owns the context, and does nothing but drive the model.
//!
//! Each step decodes one token of every running sequence, and then computes a part of the prompts that wait; both passes
//! sample and send events. It never waits for a client: the channels are unbounded, and a receiver that is gone frees its
//! slot before the next step.

mod drafting;
mod files;
mod next_turn;
mod pool;
mod reuse;
mod warm_up;

use std::sync::Arc;
use std::time::{Duration, Instant};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;

use self::reuse::Leader;
use crate::engine::local::checkpoints::{self, Kept, logits_behind};
use crate::engine::local::drafts::Drafts;
use crate::engine::local::error::ComputeError;
use crate::engine::local::load::LoadSpec;
use crate::engine::local::logprobs::token_logprob;
use crate::engine::local::queue::{QueuedRequest, Shared, fail};
use crate::engine::local::sampler::{Choice, Logits, Sampled, Sampler};
use crate::engine::local::schedule::{Pacer, Waiting, choose_prompts};
use crate::engine::local::sealed::SavedSequences;
use crate::engine::local::slot::{self, Sequence, Slot};
use crate::engine::{EngineError, Event, FinishReason, Token};
use crate::experts::{ExpertCache, Phase, Routing};
use crate::llama::log::Listener;
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
    /// llama.cpp's log on this thread, which says why it fails.
    log: Listener,
    pacer: Pacer,
    /// What guesses the tokens that come next, if something does.
    drafts: Option<Drafts<'m>>,
    /// After a wrong guess the memory must be put back to before the pass.
    replays: bool,
    /// What a pass takes longer than it does.
    pass_price: Duration,
    /// Tokens of a pass at most.
    batch_tokens: usize,
    /// Tokens per slot.
    context_length: u32,
    /// The model's end-of-generation tokens.
    end_tokens: Vec<Token>,
    /// Tokens that all slots together may hold, if they share one memory.
    pool: Option<usize>,
    /// The memory cannot drop last tokens: states are saved, up to so many bytes.
    saves: bool,
    prompt_cache: u64,
    /// Where sequences are written, if they are.
    saved: Option<SavedSequences>,
    /// Sequences that have no slot.
    kept: Vec<Kept>,
    /// Counts admissions, to know which slot was not used for longest.
    clock: u64,
    /// Prompt tokens that were computed so far.
    prefilled: u64,
    /// Tokens that were sampled so far.
    sampled: usize,
    // Reused from step to step, so that a step allocates nothing.
    parts: Vec<Part>,
    waiting: Vec<Waiting>,
    chosen: Vec<(usize, usize)>,
    piece: Vec<u8>,
}

/// What one slot has in the current batch.
struct Part {
    slot: usize,
    tokens: usize,
    /// Index of the first of them in the batch.
    first: i32,
    /// Where they begin in the sequence, if they are of a prompt.
    prompt: Option<usize>,
    /// Index of the first token whose logits are wanted: the last one that is sure.
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
        log: Listener,
    ) -> Self {
        let vocab = model.vocab();
        let batch = usize::try_from(spec.batch).unwrap_or(usize::MAX);
        let replays = model.is_recurrent() || model.is_hybrid();
        Self {
            name,
            context,
            batch: LlamaBatch::new(batch, 1),
            slots: (0..i32::try_from(spec.parallel).unwrap_or(1)).map(Slot::new).collect(),
            shared,
            experts: spec.experts.clone(),
            metrics,
            log,
            pacer: Pacer::new(spec.max_pause, batch),
            context_length: spec.context,
            end_tokens: vocab
                .tokens()
                .filter(|token| vocab.is_eog(*token))
                .map(|token| token.0)
                .collect(),
            pool: spec.pool.then(|| usize::try_from(spec.context).unwrap_or(usize::MAX)),
            saves: spec.prompt_cache > 0 && replays,
            drafts: None,
            replays,
            pass_price: spec.draft.map_or(Duration::ZERO, |draft| draft.pass_price),
            batch_tokens: batch,
            prompt_cache: spec.prompt_cache,
            saved: spec.saved.clone(),
            kept: Vec::new(),
            clock: 0,
            prefilled: 0,
            sampled: 0,
            parts: Vec::new(),
            waiting: Vec::new(),
            chosen: Vec::new(),
            piece: Vec::new(),
            model,
        }
    }

    fn decode(&mut self) -> Result<(), ComputeError> {
        if !self.pass_price.is_zero() {
            std::thread::sleep(self.pass_price);
        }
        let decoded = self.context.decode(&mut self.batch);
        decoded.map_err(|error| ComputeError::Decode(self.log.explain(&error)))
    }

    /// Runs until the engine is told to stop.
    pub(super) fn run(&mut self) {
        while !self.shared.stopping() {
            self.shared.beat();
            self.drop_cancelled();
            self.act();
            self.admit();
            self.publish();
            if self.slots.iter().any(|slot| slot.active.is_some()) {
                self.step();
            } else if self.shared.wait() {
                self.prepare();
            }
        }
        for index in 0..self.slots.len() {
            self.end(index, Err(EngineError::ShuttingDown), "error");
        }
        self.publish();
    }

    /// Tells what has changed since the last step, to who asks between two steps.
    fn publish(&self) {
        for (index, slot) in self.slots.iter().enumerate() {
            self.shared.gauge(index).holds(slot::count(slot.cached.len()));
        }
        for _ in 0..self.shared.take_left() {
            self.metrics.count_request("cancelled");
        }
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
            let Some(request) = self.shared.pop_if(|request| self.has_room(request)) else {
                break;
            };
            self.start(request);
        }
        // When all are there: others may share such a prompt.
        for index in 0..self.slots.len() {
            let active = self.slots[index].active.as_mut();
            if let Some(logits) = active.and_then(|active| active.first_logits.take()) {
                self.begin_answer(index, Logits::Saved(&logits));
            }
        }
    }

    fn start(&mut self, request: QueuedRequest) {
        self.shared.turns.forget();
        let same = self.same_prompt(&request);
        // The experts of the last token are told, too: it is computed in any case.
        let beginning = &request.prompt[..request.prompt.len() - usize::from(request.routed_experts)];
        let chosen = slot::choose(&self.slots, request.prompt.len(), |slot| {
            if request.cache_prompt && same.is_none() {
                slot.reusable(beginning, self.can_trim(slot.sequence))
            } else {
                0
            }
        });
        let Some((index, mut reused)) = chosen else {
            // `admit` saw an idle slot.
            fail(&request, self.compute_error("no idle slot"));
            return;
        };
        self.make_room_in(index, request.prompt.len());
        if let Some((from, Leader::HasIt)) = same {
            reused = self.take_over(from, index, &request.prompt);
        } else if request.cache_prompt && same.is_none() {
            reused = self.exchange(index, reused, beginning);
        }
        if reused < self.slots[index].cached.len() && !self.trim(index, reused) {
            reused = 0;
        }
        let mut first_logits = None;
        if reused == request.prompt.len() {
            first_logits = logits_behind(&self.slots[index].checkpoints, reused).cloned();
            if first_logits.is_none() {
                // They had to make room for what was kept just now.
                self.clear(index);
                reused = 0;
            }
        }
        self.slots[index].truncate(reused);
        if let Some(drafts) = &mut self.drafts {
            drafts.begin(index, &self.slots[index].cached);
        }
        self.tell_bytes();

        let now = Instant::now();
        let banned = if request.ignore_eos { &self.end_tokens[..] } else { &[] };
        let ends = if request.ignore_eos {
            Vec::new()
        } else {
            self.end_tokens.clone()
        };
        let mut request = request;
        let mut choice = Choice::new(&request.sampling, banned, self.model, self.context_length);
        choice.prime(&request.prompt);
        let sampler = Sampler::new(choice, request.grammar.take(), request.thinking.take(), ends);
        let saves_at = if self.saves && request.cache_prompt {
            checkpoints::lengths(&request.prompt, &request.borders, reused)
        } else {
            Vec::new()
        };
        let mut active = Sequence::new(request, reused, self.prefilled, sampler, now);
        active.saves_at = saves_at.into_iter().rev().collect();
        active.first_logits = first_logits;
        if let Some((from, Leader::Computes)) = same {
            active.follows = Some(from);
        }

        self.metrics.prompt_tokens.inc_by(active.prompt.len() as u64);
        self.metrics.cached_tokens.inc_by(reused as u64);
        self.metrics.queue_time.observe(active.age(now).as_secs_f64());
        self.shared.slot_taken();
        self.clock += 1;
        // The clock goes on with every request.
        let number = u32::try_from(self.clock).unwrap_or(u32::MAX);
        let usage = active.usage();
        let gauge = self.shared.gauge(index);
        gauge.begin(number, usage.prompt_tokens, usage.cached_tokens, active.max_tokens);
        let slot = &mut self.slots[index];
        slot.last_used = self.clock;
        slot.active = Some(active);
    }

    /// Decodes tokens of every running sequence, then computes a part of the prompts that wait.
    fn step(&mut self) {
        let decoding = self.slots.iter().filter(|slot| slot.decodes()).count();
        if decoding > 0 {
            self.decode_streams(decoding);
        }

        self.waiting.clear();
        let prefilled = self.prefilled;
        let waiting = self.slots.iter().enumerate();
        self.waiting
            .extend(waiting.filter_map(|(index, slot)| slot.waiting(index, prefilled)));
        if self.waiting.is_empty() {
            return;
        }
        let budget = self.pacer.budget(decoding, self.waiting.len());
        choose_prompts(&mut self.waiting, budget, &mut self.chosen);
        let chosen = std::mem::take(&mut self.chosen);
        self.make_room(chosen.iter().map(|(_, tokens)| tokens).sum());
        self.begin_batch();
        for (slot, tokens) in &chosen {
            self.add(*slot, *tokens);
        }
        self.chosen = chosen;
        let before = Instant::now();
        if self.compute(Phase::Prefill) {
            let tokens = self.parts.iter().map(|part| part.tokens).sum();
            self.pacer.observe(tokens, before.elapsed());
            self.prefilled += tokens as u64;
        }
    }

    fn begin_batch(&mut self) {
        self.batch.clear();
        self.parts.clear();
    }

    /// Adds the next tokens of a slot to the batch: those that were sampled last and guesses, or the next ones of its prompt.
    fn add(&mut self, index: usize, tokens: usize) {
        let slot = &self.slots[index];
        let Some(active) = &slot.active else { return };
        let start = slot.cached.len();
        let (tokens, guesses, wants_logits) = if active.pending.is_empty() {
            // A state is saved between two passes.
            let end = active
                .saves_at
                .last()
                .map_or(start + tokens, |length| (start + tokens).min(*length));
            (&active.prompt[start..end], &[][..], end == active.prompt.len())
        } else {
            (&active.pending[..], &active.guesses[..], true)
        };
        let first = self.batch.n_tokens();
        for (offset, token) in tokens.iter().chain(guesses).enumerate() {
            let position = i32::try_from(start + offset).unwrap_or(i32::MAX);
            let logits = wants_logits && offset + 1 >= tokens.len();
            // The batch holds `spec.batch` tokens; the schedule gives no more, and there are fewer slots.
            let added = self.batch.add(LlamaToken(*token), position, &[slot.sequence], logits);
            debug_assert!(added.is_ok());
        }
        let last_sure = first + i32::try_from(tokens.len()).unwrap_or(i32::MAX) - 1;
        self.parts.push(Part {
            slot: index,
            tokens: tokens.len() + guesses.len(),
            first,
            prompt: active.pending.is_empty().then_some(start),
            logits: wants_logits.then_some(last_sure),
        });
    }

    /// Computes the batch, and samples for every slot whose turn it is; false if it failed.
    fn compute(&mut self, phase: Phase) -> bool {
        if let Some(experts) = &self.experts {
            let decoded = match phase {
                Phase::Decode => self.batch.n_tokens(),
                Phase::Prefill => 0,
            };
            experts.begin(usize::try_from(decoded).unwrap_or(0));
        }
        let active = |part: &Part| self.slots[part.slot].active.as_ref();
        let routed = phase == Phase::Decode
            && self
                .parts
                .iter()
                .filter_map(active)
                .any(|active| active.routed.is_some());
        let watched = self.experts.clone().filter(|_| routed);
        if let Some(experts) = &watched {
            experts.watch_routing();
        }
        if let Err(error) = self.decode() {
            self.fail_batch(&error);
            return false;
        }
        if let Some(experts) = watched {
            self.route(&experts.take_routing());
        }
        if phase == Phase::Prefill {
            let samples = self.parts.iter().any(|part| part.logits.is_some());
            // With nothing to sample there is nothing that would wait for a device: without this, a long prefill would
            // be queued as a whole and could not be cancelled.
            if !samples || self.experts.is_some() {
                self.context.synchronize();
            }
            if let Some(experts) = &self.experts
                && samples
            {
                // Before anything is sampled: the uploads have that time.
                experts.prompt_ended();
            }
        }
        let parts = std::mem::take(&mut self.parts);
        for part in &parts {
            self.computed(part);
        }
        // What follows prompts does so when the first tokens of the answers have left.
        for part in &parts {
            self.observe_prompt(part);
        }
        self.parts = parts;
        true
    }

    /// Tells the sequences of a pass of single tokens who computed theirs.
    fn route(&mut self, routing: &Routing) {
        let tokens = self.parts.len();
        for (place, part) in self.parts.iter().enumerate() {
            if let Some(active) = &mut self.slots[part.slot].active {
                active.route(routing, place, tokens);
            }
        }
    }

    /// Takes note that the tokens of a part are computed, and samples where its logits are there.
    fn computed(&mut self, part: &Part) {
        let slot = &mut self.slots[part.slot];
        let Some(active) = &mut slot.active else { return };
        if !active.pending.is_empty() {
            return self.decoded(part);
        }
        let from = slot.cached.len();
        slot.cached.extend_from_slice(&active.prompt[from..from + part.tokens]);
        self.shared.gauge(part.slot).processed(slot::count(slot.cached.len()));
        if active.progress {
            let progress = active.prefill_progress(slot::count(part.slot), slot.cached.len(), Instant::now());
            let _ = active.events.send(Event::Progress(progress));
        }
        let saves = active.saves_at.pop_if(|length| *length == slot.cached.len()).is_some();
        let keeps = active.keeps;
        let Some(logits) = part.logits else {
            if saves {
                self.save(part.slot);
            } else if self.saves && keeps {
                self.save_between(part.slot);
            }
            return;
        };
        let computed = self.slots[part.slot].cached.len();
        self.begin_answer(part.slot, Logits::Computed(logits));
        // The first token does not wait for it.
        if saves && self.slots[part.slot].cached.len() == computed {
            self.save_end(part.slot, logits);
        }
    }

    /// Chooses the first token of a slot whose prompt is computed, and of those that wait for the same prompt.
    fn begin_answer(&mut self, index: usize, logits: Logits<'_>) {
        let active = self.slots[index].active.as_ref();
        if active.is_some_and(|active| active.generated == 0) {
            self.share_prompt(index, logits);
        }
        self.sample(index, logits, None);
    }

    /// Chooses the next token of a slot, and sends what it completes. Returns whether it is what was guessed.
    fn sample(&mut self, index: usize, logits: Logits<'_>, guess: Option<Token>) -> bool {
        let Some(active) = &mut self.slots[index].active else {
            return false;
        };
        let within_character = active.text.is_within_character();
        let token = match active.sampler.sample(&self.context, logits, within_character) {
            Ok(Sampled::Token(token)) => token,
            Ok(Sampled::End) => {
                self.end(index, Ok(FinishReason::EndOfText), "stop");
                return false;
            }
            Err(error) => {
                self.fail(index, &error);
                return false;
            }
        };
        self.sampled = self.sampled.wrapping_add(1);
        let right = guess == Some(token);
        if right {
            active.accepted += 1;
            self.metrics.accepted_tokens.inc();
        }
        let now = Instant::now();
        match active.token_sampled(now) {
            Some(since) => self.metrics.inter_token.observe(since.as_secs_f64()),
            None => {
                self.metrics.time_to_first_token.observe(active.age(now).as_secs_f64());
                self.metrics.prefill_time.observe(active.held(now).as_secs_f64());
            }
        }
        self.metrics.generation_tokens.inc();
        self.shared.gauge(index).generated(active.generated);

        let ends = (!active.ignore_eos && self.end_tokens.contains(&token)) || active.stop_tokens.contains(&token);
        if ends {
            self.end(index, Ok(FinishReason::EndOfText), "stop");
            return right;
        }
        self.piece.clear();
        self.model
            .vocab()
            .token_to_piece_into(LlamaToken(token), &mut self.piece, active.prints(token), None);
        if let Some(top) = active.logprobs {
            let logits = logits.of(&self.context);
            active.hold_logprob(token_logprob(self.model, logits, token, &self.piece, top));
        }
        let mut released = active.text.push(token, &self.piece);
        let stop = released.stop.take();
        active.send(released);
        if let Some(stop) = stop {
            self.end(index, Ok(FinishReason::StopString(stop)), "stop");
        } else if active.generated >= active.max_tokens {
            self.end(index, Ok(FinishReason::Length), "length");
        } else {
            active.pending.push(token);
        }
        right
    }

    /// Ends the request of a slot, if there is one, and tells its client.
    fn end(&mut self, index: usize, outcome: Result<FinishReason, EngineError>, how: &str) {
        let Some(active) = &mut self.slots[index].active else {
            return;
        };
        let last = match outcome {
            Ok(reason) => {
                let released = active.text.finish();
                active.send(released);
                active.send_routed();
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
            for slot in &mut self.slots {
                // Who waited for its prompt computes it now.
                if let Some(follower) = slot.active.as_mut().filter(|other| other.follows == Some(index)) {
                    follower.follows = None;
                }
            }
            if !active.keeps {
                // The slot is free for others, before those that hold something.
                self.clear(index);
            }
            let now = Instant::now();
            self.shared.gauge(index).end();
            self.shared.slot_freed(active.held(now));
            self.metrics.e2e.observe(active.age(now).as_secs_f64());
            self.metrics.count_request(how);
            self.publish();
        }
    }

    /// Ends the requests of a batch that failed.
    fn fail_batch(&mut self, error: &ComputeError) {
        let parts = std::mem::take(&mut self.parts);
        for part in &parts {
            self.fail(part.slot, error);
        }
        self.parts = parts;
    }

    /// Ends the request of a slot; what its sequence holds is not known any more.
    fn fail(&mut self, index: usize, error: &ComputeError) {
        if let Some(active) = &self.slots[index].active {
            let _span = active.span.enter();
            tracing::error!(model = self.name, slot = index, %error, "a request failed");
        }
        self.clear(index);
        let error = self.compute_error(&error.to_string());
        self.end(index, Err(error), "error");
    }

    fn compute_error(&self, reason: &str) -> EngineError {
        EngineError::Compute {
            model: self.name.clone(),
            reason: reason.to_owned(),
        }
    }
}
