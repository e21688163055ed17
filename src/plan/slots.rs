//! Slots of the expert caches: what is left on a tier, shared out.

use super::outcome::{Experts, PlanError, Tier};
use super::place::{Placed, Placing};
use super::text::bytes;
use crate::config::{CacheDevice, CacheSize, ExpertPlacement};

/// Experts in main memory: the share that has a copy there when nothing else is asked for.
const RAM_SHARE: u64 = 25;

/// Gives every model that may have a cache its slots.
pub(super) fn fill(placing: &mut Placing<'_>) -> Result<(), PlanError> {
    let wanted: Vec<Option<Tier>> = placing.models.iter().map(device).collect();
    // Sizes that are configured come first, the rest is for those that take what is left.
    for automatic in [false, true] {
        for index in 0..placing.models.len() {
            let model = &placing.models[index];
            let Some(tier) = wanted[index].filter(|_| automatic == (model.request.experts.cache == CacheSize::Auto))
            else {
                continue;
            };
            let left = left(placing, tier, &wanted, index);
            let slots = slots(&placing.models[index], tier, left)?;
            let model = &mut placing.models[index];
            settle(model, tier, slots, left);
        }
    }
    Ok(())
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

/// Bytes that a model may fill: what is left, in proportion to its experts where others wait for a share too.
fn left(placing: &Placing<'_>, tier: Tier, wanted: &[Option<Tier>], index: usize) -> u64 {
    let room = match tier {
        Tier::Gpu => placing.budget.gpu.unwrap_or(0),
        Tier::Ram => placing.budget.ram,
    };
    let left = room.saturating_sub(placing.bytes(tier));
    let experts = |index: usize| u128::from(placing.models[index].request.shape.routed_experts());
    let waits = |other: &usize| {
        let model = &placing.models[*other];
        let unset = !matches!(model.layout.experts, Experts::Cache { .. });
        wanted[*other] == Some(tier) && unset && model.request.experts.cache == CacheSize::Auto
    };
    match placing.models[index].request.experts.cache {
        CacheSize::Auto => {
            let all: u128 = (index..placing.models.len()).filter(waits).map(experts).sum();
            u64::try_from(u128::from(left) * experts(index) / all.max(1)).unwrap_or(left)
        }
        _ => left,
    }
}

/// Slots per layer of a model, with `left` bytes to fill.
fn slots(model: &Placed<'_>, tier: Tier, left: u64) -> Result<u32, PlanError> {
    let shape = &model.request.shape;
    let all = u64::from(shape.experts);
    // One more slot per layer is all zeros.
    let fitting = |bytes: u64| (bytes / shape.slot().max(1)).saturating_sub(1).min(all);
    let most = fitting(left);
    let asked = match model.request.experts.cache {
        CacheSize::Auto if tier == Tier::Ram => all * RAM_SHARE / 100,
        CacheSize::Auto => most,
        CacheSize::Percent(percent) => all * u64::from(percent) / 100,
        CacheSize::Bytes(bytes) => fitting(bytes),
    };
    if asked > most {
        let name = &model.request.name;
        return Err(PlanError::new(format!(
            "`experts.cache` of {name} asks for {asked} slots in each layer, {}, but {} are left on the {}",
            bytes(shape.slot() * (asked + 1)),
            bytes(left),
            tier.name()
        ))
        .hint(format!(
            "{most} slots fit: `experts.cache` of \"{}%\" or \"auto\"",
            most * 100 / all.max(1)
        )));
    }
    Ok(u32::try_from(asked).unwrap_or(u32::MAX))
}

/// Puts a number of slots into effect.
fn settle(model: &mut Placed<'_>, device: Tier, slots: u32, left: u64) {
    let shape = &model.request.shape;
    let (experts, used) = (shape.experts, shape.experts_used);
    let automatic = model.request.experts.cache == CacheSize::Auto;
    if automatic && slots < used {
        model.layout.experts = Experts::Ram;
        model.reasons.push(format!(
            "no copies of experts: {} left on the {} hold {slots} of each layer, and a token needs {used}",
            bytes(left),
            device.name()
        ));
        return;
    }
    model.layout.experts = Experts::Cache {
        device,
        slots,
        of: experts,
    };
    let how = if automatic {
        "what is left on"
    } else {
        "`experts.cache` on"
    };
    model.reasons.push(format!(
        "{how} the {} holds {slots} of {experts} experts per layer ({} per slot of all layers)",
        device.name(),
        bytes(shape.slot())
    ));
}
