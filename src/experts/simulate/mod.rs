//! What a policy would have done on a recorded trace, and how far that is from the best possible.

mod belady;
mod synthetic;

use std::collections::VecDeque;

use super::handover;
use super::policy::{LayerCache, LayerCounts, PolicyConfig, PolicyKind};
use super::residency::Upload;
use super::trace::{Phase, Trace};

pub use synthetic::Synthetic;

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
    /// Decoded tokens at the beginning that are not counted, for the policy nor for the optimum. `static` learns from them.
    pub warm_up: usize,
    /// Tokens from the decision to upload an expert until it is resident; 1 is the next token.
    pub latency: usize,
}

impl Default for SimulationConfig {
    fn default() -> Self {
        Self {
            policies: PolicyKind::ALL.to_vec(),
            capacities: vec![0.125, 0.25, 0.375, 0.5, 0.75],
            policy: PolicyConfig::default(),
            warm_up: 256,
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
    /// After the warm-up; a token counts in each layer.
    #[serde(flatten)]
    pub counts: LayerCounts,
    /// Share of the selections that were resident.
    pub hit_rate: f64,
    /// The same of the best possible policy that knows the future.
    pub optimum: f64,
    /// `hit_rate` / `optimum`. Warm-up from a prompt can lift it above 1, since the optimum fetches nothing ahead.
    pub of_optimum: f64,
    /// Per layer and token.
    pub uploads_per_token: f64,
}

/// Replays a trace through all policies and capacities. Rows of the layers come before their sum.
#[must_use]
pub fn simulate(trace: &Trace, config: &SimulationConfig) -> Vec<Row> {
    let mut rows = Vec::new();
    for share in &config.capacities {
        let capacity = capacity(trace.experts(), *share);
        let optima: Vec<u64> = (0..trace.layers().len())
            .map(|layer| belady::hits(trace, layer, capacity, config.warm_up))
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

/// What one layer's cache did after the warm-up.
fn replay(
    trace: &Trace,
    layer: usize,
    capacity: usize,
    policy: PolicyConfig,
    config: &SimulationConfig,
) -> LayerCounts {
    let heat = (policy.kind == PolicyKind::Static).then(|| profile(trace, layer, config.warm_up));
    let mut cache = LayerCache::new(trace.experts(), capacity, policy, heat.as_deref());
    let mut on_the_way = VecDeque::new();
    let mut before = LayerCounts::default();
    let mut ids = Vec::with_capacity(trace.experts_per_token());
    let mut acquired = Vec::with_capacity(trace.experts_per_token());
    let mut decoded = 0;
    for (token, phase) in trace.phases().iter().enumerate() {
        ids.clear();
        ids.extend(trace.selection(token, layer).iter().copied().map(u32::from));
        if ids.is_empty() {
            continue;
        }
        match phase {
            Phase::Prefill => cache.prefilled(&ids),
            Phase::Decode => {
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
                if decoded == config.warm_up {
                    before = cache.counts();
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
    if decoded <= config.warm_up {
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
    let mut heat = vec![0.0; trace.experts()];
    let decoded = trace
        .phases()
        .iter()
        .enumerate()
        .filter(|(_, phase)| **phase == Phase::Decode);
    for (token, _) in decoded.take(tokens) {
        for id in trace.selection(token, layer) {
            heat[usize::from(*id)] += 1.0;
        }
    }
    heat
}

#[cfg(test)]
mod tests;
