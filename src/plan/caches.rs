//! Capacities of the expert caches: those that are configured, and what is left on a tier, shared out.

use super::demand::Layout;
use super::outcome::Experts;
use super::placing::{Placed, Placing};
use crate::config::{CacheDevice, CacheSize, ExpertPlacement};
use crate::experts::selection::capacity_of;
use crate::memory::{Tier, bytes};

/// Percent of the experts that have a copy in main memory when nothing else is asked for.
const RAM_SHARE: u8 = 25;

/// Gives every model that may have a cache its capacity.
pub(super) fn fill(placing: &mut Placing<'_>) {
    for model in &mut placing.models {
        configured(model, Tier::Gpu);
        configured(model, Tier::Ram);
    }
    for index in 0..placing.models.len() {
        if waits(&placing.models[index]) {
            let left = left(placing, index);
            rest(&mut placing.models[index], left);
        }
    }
    for model in &mut placing.models {
        let cached = matches!(model.layout.experts, Experts::Cache { .. } | Experts::None);
        if !cached && model.request.experts.cache != CacheSize::Auto {
            model
                .reasons
                .push("`experts.cache` is not used: there are no copies of experts".to_owned());
        }
    }
}

/// Where the cache of a model would be; `None` for a model without.
fn device(model: &Placed<'_>) -> Option<Tier> {
    let config = &model.request.experts;
    let cached = config.placement == ExpertPlacement::Cache && model.has_experts();
    match model.layout.experts {
        _ if cached && config.device == CacheDevice::Cpu => Some(Tier::Ram),
        Experts::Ram if model.all_on_gpu() && config.placement != ExpertPlacement::Cpu => Some(Tier::Gpu),
        _ => None,
    }
}

/// Whether a model still waits for its share of what is left on the GPU.
fn waits(model: &Placed<'_>) -> bool {
    device(model) == Some(Tier::Gpu)
}

/// Copies that so many bytes hold in each layer, beside the entries that the cache needs for itself.
fn fitting(model: &Placed<'_>, bytes: u64) -> u32 {
    let shape = &model.request.shape;
    let entries = usize::try_from(bytes / model.request.cache_entry().max(1)).unwrap_or(usize::MAX);
    let capacity = capacity_of(entries, shape.experts_per_token as usize);
    u32::try_from(capacity).unwrap_or(u32::MAX).min(shape.experts)
}

/// Gives a model the capacity that is configured for this tier. In main memory the default is a fixed number too.
pub(super) fn configured(model: &mut Placed<'_>, tier: Tier) {
    if device(model) != Some(tier) || matches!(model.layout.experts, Experts::Cache { .. }) {
        return;
    }
    let of = model.request.shape.experts;
    let share = |percent: u8| of * u32::from(percent) / 100;
    let capacity = match model.request.experts.cache {
        CacheSize::Auto if tier == Tier::Gpu => return,
        CacheSize::Auto => share(RAM_SHARE),
        CacheSize::Percent(percent) => share(percent),
        CacheSize::Bytes(bytes) => fitting(model, bytes),
    };
    settle(model, tier, capacity, "`experts.cache` on");
}

/// Bytes that a model may fill: what is left, in proportion to its experts where others wait for a share too. Beside the copies
/// a cache takes larger buffers.
fn left(placing: &Placing<'_>, index: usize) -> u64 {
    let waiting = placing.models[index..].iter().filter(|model| waits(model));
    let buffers: u64 = waiting.map(buffers).sum();
    let left = placing.budget.gpu.unwrap_or(0);
    let left = left.saturating_sub(placing.bytes(Tier::Gpu)).saturating_sub(buffers);
    let experts = |model: &Placed<'_>| u128::from(model.request.shape.routed_experts());
    let all: u128 = placing.models[index..]
        .iter()
        .filter(|model| waits(model))
        .map(experts)
        .sum();
    u64::try_from(u128::from(left) * experts(&placing.models[index]) / all.max(1)).unwrap_or(left)
}

/// What the buffers of a model grow by on the GPU when it gets a cache there.
fn buffers(model: &Placed<'_>) -> u64 {
    let cached = Placed {
        layout: Layout {
            experts: Experts::Cache {
                device: Tier::Gpu,
                capacity: 0,
                of: model.request.shape.experts,
            },
            ..model.layout
        },
        reasons: Vec::new(),
        ..*model
    };
    cached.bytes(Tier::Gpu).saturating_sub(model.bytes(Tier::Gpu))
}

/// Gives a model the capacity that `left` bytes hold. Fewer entries than a token selects experts never hold all of them.
fn rest(model: &mut Placed<'_>, left: u64) {
    let capacity = fitting(model, left);
    let used = model.request.shape.experts_per_token;
    if capacity >= used {
        settle(model, Tier::Gpu, capacity, "what is left on");
        return;
    }
    let reason = format!(
        "no copies of experts: {} left on the GPU hold {capacity} of each layer, and a token needs {used}",
        bytes(left)
    );
    model.reasons.push(reason);
}

fn settle(model: &mut Placed<'_>, device: Tier, capacity: u32, how: &str) {
    let shape = &model.request.shape;
    let of = shape.experts;
    model.layout.experts = Experts::Cache { device, capacity, of };
    let reason = format!(
        "{how} the {} holds {capacity} of {of} experts per layer ({} for one entry in each layer)",
        device.name(),
        bytes(model.request.cache_entry())
    );
    model.reasons.push(reason);
}
