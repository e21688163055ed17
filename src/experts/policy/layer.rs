//! The cache of one layer: its slots, its policy, and the bounds that hold for all policies.

use std::ops::AddAssign;

use super::{Gate, Policy, PolicyConfig};
use crate::experts::residency::{SlotTable, Upload};

/// What has happened in a layer since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct LayerCounts {
    /// Tokens that were decoded.
    pub tokens: u64,
    /// Experts that they selected, once per token and expert.
    pub selections: u64,
    /// Of them, those that were resident.
    pub hits: u64,
    /// Uploads that were begun.
    pub uploads: u64,
    /// Experts that lost their slot to another one.
    pub evictions: u64,
}

impl LayerCounts {
    /// What happened after an earlier look.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(earlier.tokens),
            selections: self.selections.saturating_sub(earlier.selections),
            hits: self.hits.saturating_sub(earlier.hits),
            uploads: self.uploads.saturating_sub(earlier.uploads),
            evictions: self.evictions.saturating_sub(earlier.evictions),
        }
    }

    /// Share of the selections that were resident; `None` without any.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    pub fn hit_rate(&self) -> Option<f64> {
        (self.selections > 0).then(|| self.hits as f64 / self.selections as f64)
    }
}

impl AddAssign for LayerCounts {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.selections += other.selections;
        self.hits += other.hits;
        self.uploads += other.uploads;
        self.evictions += other.evictions;
    }
}

/// One layer of a model. The caller reports what tokens select, and carries out the uploads that this asks for.
///
/// ```
/// # use hearth::experts::policy::{LayerCache, PolicyConfig};
/// let mut layer = LayerCache::new(32, 8, PolicyConfig::default(), None);
/// layer.decoded(&[3, 5, 7, 11]);
/// while let Some(upload) = layer.next_upload() {
///     // Copy the expert's bytes into the slot, then:
///     layer.complete(upload);
/// }
/// assert!(layer.slots().slot_of(3).is_some());
/// ```
#[derive(Debug)]
pub struct LayerCache {
    slots: SlotTable,
    policy: Box<dyn Policy>,
    config: PolicyConfig,
    gate: Gate,
    counts: LayerCounts,
    /// By expert: tokens of the current prompt that selected it.
    prompt: Vec<u32>,
    prompt_tokens: u32,
    /// Experts that should be uploaded, the best one last, with the value that they had.
    wanted: Vec<(f64, u32)>,
    /// By expert: whether it shall always have a slot. Empty if none shall.
    kept: Vec<bool>,
}

impl LayerCache {
    /// An empty cache of `slots` slots, at most one per expert. `heat` is what earlier runs know about the experts.
    #[must_use]
    pub fn new(experts: usize, slots: usize, config: PolicyConfig, heat: Option<&[f32]>) -> Self {
        Self {
            slots: SlotTable::new(experts, slots),
            policy: config.build(experts, heat),
            config,
            gate: Gate::new(config.gate),
            counts: LayerCounts::default(),
            prompt: vec![0; experts],
            prompt_tokens: 0,
            wanted: Vec::with_capacity(experts),
            kept: Vec::new(),
        }
    }

    /// Experts that shall always have a slot, whatever the policy thinks of them. Unknown ones are ignored.
    pub fn keep(&mut self, experts: &[u32]) {
        let count = self.slots.experts();
        self.kept.clear();
        if !experts.is_empty() {
            self.kept.resize(count, false);
        }
        for expert in experts {
            if let Some(kept) = self.kept.get_mut(*expert as usize) {
                *kept = true;
            }
        }
    }

    /// What the policy thinks of each expert.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "half as many digits are enough")]
        let value = |expert| self.policy.value(expert) as f32;
        (0..).take(self.slots.experts()).map(value).collect()
    }

    /// Wants the best experts for all slots: for the start with a heat map, and after a change.
    pub fn fill(&mut self) {
        self.want_any(self.slots.slots());
    }

    /// Changes the hit rate below which the cache is not used.
    pub fn set_break_even(&mut self, break_even: f64) {
        self.gate.set_break_even(break_even);
    }

    /// The slots, to see who is where.
    #[must_use]
    pub fn slots(&self) -> &SlotTable {
        &self.slots
    }

    /// The slots, to pin and unpin.
    pub fn slots_mut(&mut self) -> &mut SlotTable {
        &mut self.slots
    }

    #[must_use]
    pub fn counts(&self) -> LayerCounts {
        self.counts
    }

    /// Whether the cache should be used: not below break-even.
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.gate.is_open()
    }

    /// Takes in what one token of a prompt selected. Unknown experts are ignored.
    pub fn prefilled(&mut self, experts: &[u32]) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(1);
        for expert in experts {
            if let Some(count) = self.prompt.get_mut(*expert as usize) {
                *count = count.saturating_add(1);
            }
        }
    }

    /// A prompt is over: what it selected is wanted first. Without this call the next decoded token does the same, but
    /// misses what it could have hit.
    pub fn prompt_ended(&mut self) {
        if self.prompt_tokens == 0 {
            return;
        }
        self.policy.observe_prompt(&self.prompt, self.prompt_tokens);
        self.prompt.fill(0);
        self.prompt_tokens = 0;
        let limit = self.gate.allow(self.config.uploads_per_prompt);
        self.want_any(limit);
    }

    /// Wants the best of all experts.
    fn want_any(&mut self, limit: usize) {
        let experts = u32::try_from(self.slots.experts()).unwrap_or(u32::MAX);
        self.want(0..experts, limit);
    }

    /// Takes in what one decoded token selected, and wants the best of what missed. Unknown experts are ignored.
    pub fn decoded(&mut self, experts: &[u32]) {
        self.prompt_ended();
        let known = experts
            .iter()
            .filter(|expert| (**expert as usize) < self.slots.experts());
        let selections = known.count();
        let resident = experts.iter().filter(|expert| self.slots.slot_of(**expert).is_some());
        let hits = resident.count();
        self.counts.tokens += 1;
        self.counts.selections += selections as u64;
        self.counts.hits += hits as u64;
        self.gate.observe(hits, selections);
        self.policy.observe(experts);
        // As long as there is room, experts get it that are known to be good, selected now or not.
        let any = self.slots.free() > 0 || self.policy.looks_ahead();
        if hits == selections && !any {
            return;
        }
        let limit = self.gate.allow(self.config.uploads_per_token);
        if any {
            self.want_any(limit);
            return;
        }
        // Within the capacity, whatever a caller reports: nothing is allocated per token.
        self.want(experts.iter().copied().take(self.slots.experts()), limit);
    }

    /// Wants the best `limit` of those that are not there yet.
    fn want(&mut self, experts: impl Iterator<Item = u32>, limit: usize) {
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.clear();
        if limit == 0 {
            self.wanted = wanted;
            return;
        }
        let absent = experts.filter(|expert| self.slots.place_of(*expert).is_none());
        wanted.extend(absent.map(|expert| (self.value(expert), expert)));
        wanted.retain(|(value, _)| *value > 0.0);
        // Equal ones in the order of their numbers, so that the same trace gives the same uploads.
        let order = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1));
        // A few of hundreds: no need to sort the others. One expert may be named twice, but hardly more.
        let others = wanted.len().saturating_sub(limit.saturating_mul(2));
        if others > 0 {
            wanted.select_nth_unstable_by(others, order);
            wanted.drain(..others);
        }
        wanted.sort_unstable_by(order);
        wanted.dedup();
        wanted.drain(..wanted.len().saturating_sub(limit));
        self.wanted = wanted;
    }

    /// What a slot for an expert is worth: to those that shall always have one, everything.
    fn value(&self, expert: u32) -> f64 {
        match self.kept.get(expert as usize) {
            Some(true) => f64::INFINITY,
            _ => self.policy.value(expert),
        }
    }

    /// The next upload to carry out; the slot is reserved until [`LayerCache::complete`] or [`LayerCache::abandon`].
    pub fn next_upload(&mut self) -> Option<Upload> {
        let (_, newcomer) = self.wanted.pop()?;
        if self.slots.place_of(newcomer).is_some() {
            return None;
        }
        if self.slots.free() == 0 {
            let idle = self.slots.idle().map(|expert| (self.value(expert), expert));
            let (worth, victim) = idle.min_by(|a, b| a.0.total_cmp(&b.0))?;
            if self.value(newcomer) <= worth * self.policy.hysteresis() {
                // The others are worth less.
                self.wanted.clear();
                return None;
            }
            self.slots.evict(victim);
            self.counts.evictions += 1;
        }
        let upload = self.slots.load(newcomer)?;
        self.counts.uploads += 1;
        Some(upload)
    }

    /// The upload is complete: the next token finds the expert. Returns `false` for one that is not under way.
    pub fn complete(&mut self, upload: Upload) -> bool {
        self.slots.complete(upload)
    }

    /// The upload failed. Returns `false` for one that is not under way.
    pub fn abandon(&mut self, upload: Upload) -> bool {
        self.slots.abandon(upload)
    }
}
