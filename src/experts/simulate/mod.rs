//! What a policy would have done on a recorded trace, and how far that is from the best possible.

mod belady;
mod synthetic;

use std::collections::VecDeque;

use super::handover;
use super::policy::{LayerCache, LayerCounts, PolicyConfig, PolicyKind};
use super::residency::Upload;
use super::trace::{Phase, Trace};

pub use synthetic::Synthetic;

/// Where a replay begins, and what is counted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// As after a restart: all entries filled by the heat map that the first half of the conversations left, and the second
    /// half is counted. All policies know the same heat, and the optimum starts filled, too.
    Heat,
    /// As the very first time: empty. So many decoded tokens at the beginning are not counted, for the policy nor for the
    /// optimum; `static` learns from them.
    Empty { warm_up: usize },
}

/// What to replay, and how.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct SimulationConfig {
    /// One run each.
    pub policies: Vec<PolicyKind>,
    /// Copies per layer, as shares of the experts, 0 to 1. One run each.
    pub capacities: Vec<f64>,
    /// For all policies; its kind is not used.
    pub policy: PolicyConfig,
    pub start: Start,
    /// Tokens from the decision to upload an expert until it is resident; 1 is the next token.
    pub latency: usize,
}

impl Default for SimulationConfig {
    fn default() -> Self {
        Self {
            policies: PolicyKind::ALL.to_vec(),
            capacities: vec![0.125, 0.25, 0.375, 0.5, 0.75],
            policy: PolicyConfig::default(),
            start: Start::Heat,
            latency: 1,
        }
    }
}

/// One policy with one capacity, in one layer or over all of them.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Row {
    pub policy: PolicyKind,
    /// Number of the layer in the model; `None` is all together.
    pub layer: Option<u32>,
    /// Copies per layer.
    #[serde(flatten, serialize_with = "crate::renamed::capacity")]
    pub capacity: usize,
    /// What is counted of the trace; a token counts in each layer.
    #[serde(flatten)]
    pub counts: LayerCounts,
    /// Share of the selections that were resident.
    pub hit_rate: f64,
    /// The same of the best possible policy that knows the future.
    pub optimum: f64,
    /// `hit_rate` / `optimum`. Looking ahead can lift it above 1, since the optimum fetches nothing that was not selected.
    pub of_optimum: f64,
    /// Per layer and decoded token, those at the end of prompts included; not those that filled the cache at the start.
    pub uploads_per_token: f64,
}

/// Replays a trace through all policies and capacities. Rows of the layers come before their sum.
#[must_use]
pub fn simulate(trace: &Trace, config: &SimulationConfig) -> Vec<Row> {
    let mut rows = Vec::new();
    for share in &config.capacities {
        let capacity = capacity(trace.experts(), *share);
        let (counted, warm_up) = match config.start {
            Start::Heat => (second_half(trace)..trace.phases().len(), 0),
            Start::Empty { warm_up } => (0..trace.phases().len(), warm_up),
        };
        let filled = config.start == Start::Heat;
        let optima: Vec<u64> = (0..trace.layers().len())
            .map(|layer| belady::hits(trace, layer, counted.clone(), capacity, warm_up, filled))
            .collect();
        for kind in &config.policies {
            let policy = PolicyConfig {
                kind: *kind,
                ..config.policy
            };
            let mut total = LayerCounts::default();
            for (layer, number) in trace.layers().iter().enumerate() {
                let counts = replay(trace, layer, capacity, policy, config);
                rows.push(row(*kind, Some(*number), capacity, counts, optima[layer]));
                total += counts;
            }
            rows.push(row(*kind, None, capacity, total, optima.iter().sum()));
        }
    }
    rows
}

/// Copies per layer for a share of the experts.
#[must_use]
pub fn capacity(experts: usize, share: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a small number; saturates"
    )]
    let capacity = (experts as f64 * share.clamp(0.0, 1.0)).round() as usize;
    capacity.min(experts)
}

#[expect(clippy::cast_precision_loss, reason = "counts for people")]
fn row(policy: PolicyKind, layer: Option<u32>, capacity: usize, counts: LayerCounts, best: u64) -> Row {
    let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
    Row {
        policy,
        layer,
        capacity,
        counts,
        hit_rate: ratio(counts.hits, counts.selections),
        optimum: ratio(best, counts.selections),
        of_optimum: ratio(counts.hits, best),
        uploads_per_token: ratio(counts.uploads, counts.tokens),
    }
}

/// Number of the token at which the second half of the conversations begins; of a single one, that in the middle.
#[must_use]
pub fn second_half(trace: &Trace) -> usize {
    let phases = trace.phases();
    let begins = |token: &usize| {
        let before = token.checked_sub(1).map(|before| phases[before]);
        phases[*token] == Phase::Prefill && before != Some(Phase::Prefill)
    };
    let begins: Vec<usize> = (0..phases.len()).filter(begins).collect();
    match begins.len() {
        0 | 1 => phases.len() / 2,
        conversations => begins[conversations / 2],
    }
}

/// What one layer's cache did in what is counted.
fn replay(
    trace: &Trace,
    layer: usize,
    capacity: usize,
    policy: PolicyConfig,
    config: &SimulationConfig,
) -> LayerCounts {
    let (mut cache, first, warm_up) = match config.start {
        Start::Heat => {
            let first = second_half(trace);
            let heat = heat(trace, layer, 0..first);
            let mut cache = LayerCache::new(trace.experts(), capacity, policy, Some(&heat));
            cache.fill();
            while let Some(upload) = cache.next_upload() {
                cache.complete(upload);
            }
            (cache, first, 0)
        }
        Start::Empty { warm_up } => {
            let heat = (policy.kind == PolicyKind::Static).then(|| profile(trace, layer, warm_up));
            let cache = LayerCache::new(trace.experts(), capacity, policy, heat.as_deref());
            (cache, 0, warm_up)
        }
    };
    let mut on_the_way = VecDeque::new();
    let mut before = LayerCounts::default();
    let mut ids = Vec::with_capacity(trace.experts_per_token());
    let mut acquired = Vec::with_capacity(trace.experts_per_token());
    let mut decoded = 0;
    for (token, phase) in trace.phases().iter().enumerate().skip(first) {
        ids.clear();
        ids.extend(trace.selection(token, layer).iter().copied().map(u32::from));
        if ids.is_empty() {
            continue;
        }
        match phase {
            Phase::Prefill => cache.prefilled(&ids),
            Phase::Decode => {
                if decoded == warm_up {
                    before = cache.counts();
                }
                cache.prompt_ended();
                // One less: they had the prompt's time.
                upload(
                    &mut cache,
                    &mut on_the_way,
                    (decoded + config.latency).saturating_sub(1),
                );
                while let Some(upload) = arrived(&mut on_the_way, decoded) {
                    cache.complete(upload);
                }
                // As the engine does: what a token reads is not overwritten for its own next token.
                acquired.clear();
                handover::acquire(&mut cache, &ids, &mut acquired);
                cache.decoded(&ids);
                upload(&mut cache, &mut on_the_way, decoded + config.latency);
                handover::release(&mut cache, acquired.iter().flatten().copied());
                cache.computed(acquired.iter().flatten().count());
                decoded += 1;
            }
        }
    }
    if decoded <= warm_up {
        return LayerCounts::default();
    }
    cache.counts().since(before)
}

/// Uploads that were begun, and the number of the token that finds them.
type OnTheWay = VecDeque<(usize, Upload)>;

fn arrived(on_the_way: &mut OnTheWay, now: usize) -> Option<Upload> {
    let (due, upload) = *on_the_way.front()?;
    if due > now {
        return None;
    }
    on_the_way.pop_front();
    Some(upload)
}

fn upload(cache: &mut LayerCache, on_the_way: &mut OnTheWay, due: usize) {
    while let Some(upload) = cache.next_upload() {
        on_the_way.push_back((due, upload));
    }
}

/// How often each expert was selected during the warm-up.
fn profile(trace: &Trace, layer: usize, tokens: usize) -> Vec<f32> {
    let phases = trace.phases();
    let decoded = (0..phases.len()).filter(|token| phases[*token] == Phase::Decode);
    heat(trace, layer, decoded.take(tokens))
}

/// How often each expert was selected by some tokens.
fn heat(trace: &Trace, layer: usize, tokens: impl Iterator<Item = usize>) -> Vec<f32> {
    let mut heat = vec![0.0; trace.experts()];
    for id in tokens.flat_map(|token| trace.selection(token, layer)) {
        heat[usize::from(*id)] += 1.0;
    }
    heat
}

#[cfg(test)]
mod tests;
