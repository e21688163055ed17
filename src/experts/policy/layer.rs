//! The cache of one layer: its entries, its policy, and the bounds that hold for all policies.

use std::ops::AddAssign;

use super::budget::Budget;
use super::{Gate, Policy, PolicyConfig, PolicyKind, StaticHeat};
use crate::experts::residency::{EntryTable, Upload};

/// What has happened in a layer since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct LayerCounts {
    /// Tokens that were decoded.
    pub tokens: u64,
    /// Experts that they selected, once per token and expert.
    pub selections: u64,
    /// Of them, those that were resident.
    pub hits: u64,
    /// Selections that were computed with a copy, those of short prompts included.
    pub computed: u64,
    /// Uploads that were begun.
    pub uploads: u64,
    /// Experts that lost their entry to another one.
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
            computed: self.computed.saturating_sub(earlier.computed),
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
        self.computed += other.computed;
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
///     // Copy the expert's bytes into the entry, then:
///     layer.complete(upload);
/// }
/// assert!(layer.entries().entry_of(3).is_some());
/// ```
#[derive(Debug)]
pub struct LayerCache {
    entries: EntryTable,
    policy: Box<dyn Policy>,
    config: PolicyConfig,
    gate: Gate,
    /// For policies that have one.
    budget: Option<Budget>,
    counts: LayerCounts,
    /// By expert: tokens of the current prompt that selected it.
    prompt: Vec<u32>,
    prompt_tokens: u32,
    /// What its last token selected.
    prompt_last: Vec<u32>,
    /// Experts that should be uploaded, the best one last, with the value that they had.
    wanted: Vec<(f64, u32)>,
    /// Experts that [`LayerCache::fill`] chose and that wait for their upload, the best one last. What tokens want comes
    /// first, and does not take anything away here.
    filling: Vec<u32>,
    /// By expert: whether it shall always have an entry. Empty if none shall.
    pinned: Vec<bool>,
}

impl LayerCache {
    /// An empty cache of `capacity` entries, at most one per expert. `heat` is what earlier runs know about the experts.
    #[must_use]
    pub fn new(experts: usize, capacity: usize, config: PolicyConfig, heat: Option<&[f32]>) -> Self {
        let policy = config.build(experts, heat);
        Self {
            entries: EntryTable::new(experts, capacity),
            budget: policy.has_budget().then(|| Budget::new(config.budget)),
            policy,
            config,
            gate: Gate::new(config.gate),
            counts: LayerCounts::default(),
            prompt: vec![0; experts],
            prompt_tokens: 0,
            prompt_last: Vec::with_capacity(experts),
            wanted: Vec::with_capacity(experts),
            filling: Vec::new(),
            pinned: Vec::new(),
        }
    }

    /// Experts that shall always have an entry, whatever the policy thinks of them. Unknown ones are ignored.
    pub fn pin(&mut self, experts: &[u32]) {
        let count = self.entries.experts();
        self.pinned.clear();
        if !experts.is_empty() {
            self.pinned.resize(count, false);
        }
        for expert in experts {
            if let Some(pinned) = self.pinned.get_mut(*expert as usize) {
                *pinned = true;
            }
        }
    }

    /// What the policy thinks of each expert.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        #[expect(clippy::cast_possible_truncation, reason = "half as many digits are enough")]
        let value = |expert| self.policy.value(expert) as f32;
        (0..).take(self.entries.experts()).map(value).collect()
    }

    /// Which policy it follows.
    #[must_use]
    pub fn kind(&self) -> PolicyKind {
        self.config.kind
    }

    /// Gives the policy away, with all that it has learnt. What is left wants nothing any more.
    #[must_use]
    pub fn take_policy(&mut self) -> Box<dyn Policy> {
        std::mem::replace(&mut self.policy, Box::new(StaticHeat::new(0, &[])))
    }

    /// Goes on with what a policy of the same kind has learnt about the same experts: how many of them have an entry does not
    /// matter to it.
    pub fn set_policy(&mut self, policy: Box<dyn Policy>) {
        self.policy = policy;
    }

    /// Chooses the best experts for all entries: for the start with a heat map, and after a change. They are uploaded as fast
    /// as uploads are carried out, however many tokens that takes.
    pub fn fill(&mut self) {
        self.fill_by(&self.values());
    }

    /// The same by other values than the policy's own, by expert.
    pub fn fill_by(&mut self, values: &[f32]) {
        let absent = (0..)
            .zip(values)
            .filter(|(expert, _)| self.entries.place_of(*expert).is_none());
        let mut best: Vec<(f32, u32)> = absent
            .map(|(expert, value)| match self.is_pinned(expert) {
                true => (f32::INFINITY, expert),
                false => (*value, expert),
            })
            .filter(|(value, _)| *value > 0.0)
            .collect();
        best.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        let others = best.len().saturating_sub(self.entries.capacity());
        self.filling.clear();
        self.filling.extend(best.drain(others..).map(|(_, expert)| expert));
    }

    /// Changes the hit rate below which the cache is not used.
    pub fn set_break_even(&mut self, break_even: f64) {
        self.gate.set_break_even(break_even);
    }

    /// The entries, to see who is where.
    #[must_use]
    pub fn entries(&self) -> &EntryTable {
        &self.entries
    }

    /// The entries, for readers.
    pub fn entries_mut(&mut self) -> &mut EntryTable {
        &mut self.entries
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
        self.prompt_last.clear();
        // Within the capacity, whatever a caller reports.
        self.prompt_last.extend(experts.iter().take(self.prompt.len()));
    }

    /// A prompt is over: what it selected is wanted first.
    pub fn prompt_ended(&mut self) {
        if self.prompt_tokens == 0 {
            return;
        }
        self.policy
            .observe_prompt(&self.prompt, self.prompt_tokens, &self.prompt_last);
        let mut limit = self.config.uploads_per_prompt;
        if let Some(budget) = &mut self.budget {
            budget.earn_prompt(self.prompt_tokens);
            limit = limit.max(budget.whole());
        }
        self.prompt.fill(0);
        self.prompt_tokens = 0;
        let limit = self.gate.allow(limit);
        self.want_any(limit);
    }

    /// Wants the best of all experts.
    fn want_any(&mut self, limit: usize) {
        let experts = u32::try_from(self.entries.experts()).unwrap_or(u32::MAX);
        self.want(0..experts, limit);
    }

    /// Takes in what one decoded token selected, and wants the best of what missed. Unknown experts are ignored.
    pub fn decoded(&mut self, experts: &[u32]) {
        let known = experts
            .iter()
            .filter(|expert| (**expert as usize) < self.entries.experts());
        let selections = known.count();
        let resident = experts
            .iter()
            .filter(|expert| self.entries.entry_of(**expert).is_some());
        let hits = resident.count();
        self.counts.tokens += 1;
        self.counts.selections += selections as u64;
        self.counts.hits += hits as u64;
        self.gate.observe(hits, selections);
        self.policy.observe(experts);
        if let Some(budget) = &mut self.budget {
            budget.earn();
        }
        // Free entries go to experts that are known to be good, selected now or not.
        let any = self.entries.free() > 0 || self.policy.looks_ahead();
        if (hits == selections && !any) || !self.can_upload() {
            return;
        }
        let limit = self.gate.allow(self.config.uploads_per_token);
        if any {
            self.want_any(limit);
            return;
        }
        // Within the capacity, whatever a caller reports: nothing is allocated per token.
        self.want(experts.iter().copied().take(self.entries.experts()), limit);
    }

    /// Whether there is anything left to upload with. Pinned experts need nothing.
    fn can_upload(&self) -> bool {
        let affordable = self.budget.as_ref().is_none_or(|budget| budget.whole() > 0);
        affordable || self.entries.free() > 0 || !self.pinned.is_empty()
    }

    /// Takes in how many selections of a pass were computed with a copy.
    pub fn computed(&mut self, selections: usize) {
        self.counts.computed += selections as u64;
    }

    /// Wants the best `limit` of those that are not there yet.
    fn want(&mut self, experts: impl Iterator<Item = u32>, limit: usize) {
        let mut wanted = std::mem::take(&mut self.wanted);
        wanted.clear();
        if limit == 0 {
            self.wanted = wanted;
            return;
        }
        let absent = experts.filter(|expert| self.entries.place_of(*expert).is_none());
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

    /// What an entry for an expert is worth: for pinned ones, everything.
    fn value(&self, expert: u32) -> f64 {
        match self.is_pinned(expert) {
            true => f64::INFINITY,
            false => self.policy.value(expert),
        }
    }

    fn is_pinned(&self, expert: u32) -> bool {
        self.pinned.get(expert as usize).is_some_and(|pinned| *pinned)
    }

    /// The next upload to carry out; the entry is reserved until [`LayerCache::complete`] or [`LayerCache::abandon`].
    pub fn next_upload(&mut self) -> Option<Upload> {
        self.next_wanted().or_else(|| self.next_filling())
    }

    /// The next one that tokens or a prompt want.
    pub fn next_wanted(&mut self) -> Option<Upload> {
        while let Some((_, newcomer)) = self.wanted.pop() {
            if self.entries.place_of(newcomer).is_some() {
                continue;
            }
            if let Some(upload) = self.admit(newcomer) {
                return Some(upload);
            }
            // The others are worth less.
            self.wanted.clear();
        }
        None
    }

    /// The next one that [`LayerCache::fill`] chose.
    pub fn next_filling(&mut self) -> Option<Upload> {
        while let Some(newcomer) = self.filling.last().copied() {
            if self.entries.free() == 0 && self.entries.idle().next().is_none() {
                return None;
            }
            self.filling.pop();
            if self.entries.place_of(newcomer).is_some() {
                continue;
            }
            if let Some(upload) = self.admit(newcomer) {
                return Some(upload);
            }
            // Tokens have chosen better ones meanwhile.
            self.filling.clear();
        }
        None
    }

    /// Gives an expert a free entry, or that of an idle one which is worth so much less that the change pays.
    fn admit(&mut self, newcomer: u32) -> Option<Upload> {
        if self.entries.free() == 0 {
            let idle = self.entries.idle().map(|expert| (self.value(expert), expert));
            let (worth, victim) = idle.min_by(|a, b| a.0.total_cmp(&b.0))?;
            let value = self.value(newcomer);
            // A pinned expert takes its entry whatever that costs, and nobody takes it from one.
            if value < f64::INFINITY || worth == f64::INFINITY {
                let left = match &self.budget {
                    Some(budget) if budget.whole() == 0 => return None,
                    Some(budget) => budget.left(),
                    None => 1.0,
                };
                if !self.policy.pays(value, worth, left) {
                    return None;
                }
                if let Some(budget) = &mut self.budget {
                    budget.spend();
                }
            }
            self.entries.evict(victim);
            self.counts.evictions += 1;
        }
        let upload = self.entries.load(newcomer)?;
        self.counts.uploads += 1;
        Some(upload)
    }

    /// The upload is complete: the next token finds the expert. Returns `false` for one that is not under way.
    pub fn complete(&mut self, upload: Upload) -> bool {
        self.entries.complete(upload)
    }

    /// The upload failed. Returns `false` for one that is not under way.
    pub fn abandon(&mut self, upload: Upload) -> bool {
        self.entries.abandon(upload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(layer: &mut LayerCache, most: usize) {
        for _ in 0..most {
            let Some(upload) = layer.next_upload() else { return };
            assert!(layer.complete(upload));
        }
    }

    /// Uploads take their time, and tokens go on: what the heat map chose comes nevertheless, after what tokens want.
    #[test]
    fn a_warm_start_outlives_the_first_tokens() {
        for kind in PolicyKind::ALL {
            let config = PolicyConfig {
                kind,
                ..PolicyConfig::default()
            };
            let heat: Vec<f32> = (0..64u8).map(|expert| f32::from(expert) + 1.0).collect();
            let mut layer = LayerCache::new(64, 32, config, Some(&heat));
            layer.fill();
            upload(&mut layer, 4);
            for _ in 0..2 {
                layer.decoded(&[63, 62, 61, 60]);
                upload(&mut layer, 3);
            }
            upload(&mut layer, usize::MAX);
            let mut residents: Vec<u32> = layer.entries().residents().collect();
            residents.sort_unstable();
            assert_eq!(residents, (32..64).collect::<Vec<_>>(), "{kind:?}");
        }
    }

    #[test]
    fn what_tokens_want_comes_before_the_rest_of_a_warm_start() {
        let heat = [8.0, 7.0, 6.0, 5.0, 0.0, 0.0, 0.0, 0.0];
        let mut layer = LayerCache::new(8, 4, PolicyConfig::default(), Some(&heat));
        layer.pin(&[7]);
        layer.fill();
        let next = |layer: &mut LayerCache| layer.next_upload().map(|upload| upload.expert);
        assert_eq!(next(&mut layer), Some(7), "pinned ones are first");
        (0..9).for_each(|_| layer.decoded(&[5]));
        assert_eq!(next(&mut layer), Some(5));
        let rest: Vec<u32> = std::iter::from_fn(|| next(&mut layer)).collect();
        assert_eq!(rest, [0, 1], "and then the entries are full");
    }

    /// Tokens follow each other in a circle: after a change of size the cache still knows.
    #[test]
    fn what_was_learnt_outlives_a_change_of_size() {
        let config = PolicyConfig {
            kind: PolicyKind::Benefit,
            ..PolicyConfig::default()
        };
        let mut old = LayerCache::new(16, 4, config, Some(&[1.0; 16]));
        let tokens = [[0, 1], [4, 5], [8, 9], [12, 13]];
        (0..200).for_each(|token| old.decoded(&tokens[token % 4]));
        let mut new = LayerCache::new(16, 2, config, Some(&[1.0; 16]));
        new.set_policy(old.take_policy());
        new.fill();
        upload(&mut new, usize::MAX);
        let mut residents: Vec<u32> = new.entries().residents().collect();
        residents.sort_unstable();
        assert_eq!(residents, tokens[0]);
        // Whoever still holds the old one must not upload for it.
        old.decoded(&tokens[0]);
        assert_eq!(old.next_upload(), None);
    }

    #[test]
    fn entries_can_be_filled_by_other_values() {
        let heat = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0];
        let mut layer = LayerCache::new(8, 4, PolicyConfig::default(), Some(&heat));
        layer.pin(&[6]);
        layer.fill_by(&[0.0, 0.0, 1.0, 0.0, 0.0, 3.0, 0.0, 2.0]);
        let order: Vec<u32> = std::iter::from_fn(|| layer.next_upload().map(|upload| upload.expert)).collect();
        assert_eq!(order, [6, 5, 7, 2]);
    }

    /// A budget is for changes: a cache that fills up does not need it, and neither does what somebody pinned.
    #[test]
    fn a_budget_is_spent_on_changes_only() {
        let config = PolicyConfig {
            kind: PolicyKind::Benefit,
            ..PolicyConfig::default()
        };
        let heat: Vec<f32> = (0..16u8).map(|expert| f32::from(16 - expert)).collect();
        let mut layer = LayerCache::new(16, 4, config, Some(&heat));
        layer.fill();
        upload(&mut layer, usize::MAX);
        assert_eq!((layer.counts().uploads, layer.entries().free()), (4, 0));
        layer.pin(&[15]);
        layer.decoded(&[9, 10]);
        upload(&mut layer, usize::MAX);
        assert!(layer.entries().entry_of(15).is_some());
        assert_eq!(layer.counts().evictions, 1);
        // Others take turns, so fast that every change would pay.
        for token in 0..400u32 {
            let first = 4 * (token / 8 % 3);
            layer.decoded(&[first, first + 1, first + 2]);
            upload(&mut layer, usize::MAX);
            let earned = f64::from(token + 2) * config.budget.per_token;
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            let spent = layer.counts().evictions as f64 - 1.0;
            assert!(spent <= earned, "{spent} uploads after {token} tokens");
        }
        assert!(layer.counts().evictions > 50, "{:?}", layer.counts());
    }
}
