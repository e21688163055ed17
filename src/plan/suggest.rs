//! What would fit where something does not: other settings, tried.

use super::memory::predict;
use super::outcome::{Experts, Plan, PlanError};
use super::place::attempt;
use super::request::ModelRequest;
use crate::config::{CacheSize, ExpertPlacement, MemoryConfig};
use crate::host::Machine;
use crate::memory::{KvType, KvTypes, Tier, bytes};

/// Shorter contexts than this are not proposed.
const MIN_CONTEXT: u32 = 2048;

/// Adds to an error what would fit.
pub(super) fn hints(
    mut error: PlanError,
    machine: &Machine,
    limits: &MemoryConfig,
    models: &[ModelRequest],
) -> PlanError {
    if !error.hints.is_empty() {
        return error;
    }
    let fits = |change: &dyn Fn(&mut ModelRequest)| {
        let mut changed = models.to_vec();
        changed.iter_mut().for_each(change);
        attempt(machine, limits, &changed).is_ok()
    };
    let longest = longest(models);
    let context = shorter(longest).find(|tokens| fits(&|model| shorten(model, *tokens)));
    if let Some(tokens) = context {
        error = error.hint(format!("a context of {tokens} tokens fits, instead of {longest}"));
    }
    if models.iter().any(|model| model.context.parallel > 1) && fits(&|model| model.context.parallel = 1) {
        error = error.hint("one sequence at a time fits: `parallel` of 1");
    }
    if fits(&|model| model.context.kv_type = KvTypes::both(KvType::Q8_0)) {
        error = error.hint("`kv_type` of \"q8_0\" fits: it halves keys and values");
    }
    let cache = |model: &mut ModelRequest| model.experts.cache = CacheSize::Auto;
    if models.iter().any(|model| model.experts.cache != CacheSize::Auto) && fits(&cache) {
        error = error.hint("`experts.cache` of \"auto\" fits: it takes what is left");
    }
    let automatic = |model: &mut ModelRequest| {
        model.gpu_layers = None;
        model.experts.placement = ExpertPlacement::Auto;
        model.experts.cache = CacheSize::Auto;
    };
    let forced = models
        .iter()
        .any(|model| model.gpu_layers.is_some() || model.experts.placement != ExpertPlacement::Auto);
    if forced && fits(&automatic) {
        error = error.hint("it fits with `gpu_layers` and `experts` left to hearth");
    }
    if error.hints.is_empty() {
        error = smaller(error, machine, limits, models);
    }
    error
}

/// The weights themselves are too large: how small a quant has to be.
fn smaller(mut error: PlanError, machine: &Machine, limits: &MemoryConfig, models: &[ModelRequest]) -> PlanError {
    let weights: u64 = models.iter().map(|model| model.shape.weights()).sum();
    let least: u64 = models
        .iter()
        .map(|model| {
            let mut context = model.context;
            context.tokens = context.tokens.min(MIN_CONTEXT);
            context.parallel = 1;
            predict(&model.shape, context).total() - model.shape.weights()
        })
        .sum();
    let mut memory = machine.ram_available;
    memory += machine
        .devices
        .iter()
        .filter(|device| !device.unified)
        .map(|device| device.free)
        .max()
        .unwrap_or(0);
    // Headroom: a tenth is a round number above both tiers' own.
    let budget = (memory - memory / 10).saturating_sub(least);
    let percent = u128::from(budget) * 100 / u128::from(weights.max(1));
    if (20..100).contains(&percent) {
        error = error.hint(format!(
            "the weights are {}; a quant of at most {percent} % of that size would do, with a short context",
            bytes(weights)
        ));
    }
    let without = |index: usize| {
        let rest = models.iter().enumerate().filter(|(other, _)| *other != index);
        let rest: Vec<ModelRequest> = rest.map(|(_, model)| model.clone()).collect();
        !rest.is_empty() && attempt(machine, limits, &rest).is_ok()
    };
    for (index, model) in models.iter().enumerate() {
        if without(index) {
            error = error.hint(format!("it fits without {}", model.name));
        }
    }
    let needed = (weights + least) / 9 * 10;
    error.hint(format!(
        "GPU and RAM of {} together would do, with a short context",
        bytes(needed)
    ))
}

fn longest(models: &[ModelRequest]) -> u32 {
    models.iter().map(|model| model.context.tokens).max().unwrap_or(0)
}

/// Halves of a context, down to the shortest.
fn shorter(tokens: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(tokens / 2), |tokens| Some(tokens / 2)).take_while(|tokens| *tokens >= MIN_CONTEXT)
}

fn shorten(model: &mut ModelRequest, tokens: u32) {
    model.context.tokens = model.context.tokens.min(tokens);
}

/// Adds to a plan that left layers or all copies of experts off the GPU what would bring them there.
pub(super) fn advise(mut plan: Plan, limits: &MemoryConfig, models: &[ModelRequest]) -> Plan {
    if plan.device.is_none() {
        return plan;
    }
    if !cramped(&plan, models) {
        let advice = few_copies(&plan, limits, models);
        plan.advice.extend(advice);
        return plan;
    }
    let outcome = |change: &dyn Fn(&mut ModelRequest)| {
        let mut changed = models.to_vec();
        changed.iter_mut().for_each(change);
        attempt(&plan.machine, limits, &changed)
            .ok()
            .filter(|plan| !cramped(plan, &changed))
    };
    let what = |plan: &Plan| {
        let copies = copies(plan).map(|copies| format!(", with copies of {copies}"));
        format!("all layers fit on the GPU{}", copies.unwrap_or_default())
    };
    let mut advice = Vec::new();
    let quantised = |model: &mut ModelRequest| model.context.kv_type = KvTypes::both(KvType::Q8_0);
    if let Some(better) = outcome(&quantised) {
        advice.push(format!("with `kv_type` of \"q8_0\" {}", what(&better)));
    }
    let longest = longest(models);
    let context = shorter(longest).find_map(|tokens| Some((tokens, outcome(&|model| shorten(model, tokens))?)));
    if let Some((tokens, better)) = context {
        advice.push(format!(
            "with a context of {tokens} tokens instead of {longest} {}",
            what(&better)
        ));
    }
    // Memory for a dense model's layers is memory that copies of experts do not have.
    let dense = |model: &ModelRequest| model.shape.routed_experts() == 0;
    let waiting = plan.models.iter().any(|model| model.experts == Experts::Ram);
    let moved = |model: &mut ModelRequest| {
        if dense(model) {
            model.gpu_layers = model.gpu_layers.or(Some(0));
        }
    };
    if waiting
        && models.iter().any(dense)
        && let Some(better) = outcome(&moved)
    {
        let names: Vec<&str> = models
            .iter()
            .filter(|model| dense(model))
            .map(|model| model.name.as_str())
            .collect();
        if let Some(copies) = copies(&better) {
            advice.push(format!(
                "with `gpu_layers` of 0 for {} the GPU holds copies of {copies}",
                names.join(" and ")
            ));
        }
    }
    plan.advice = advice;
    plan
}

/// Percent of the experts that should have a copy: with fewer most of what a token selects is computed on the CPU.
const FEW: u32 = 10;

/// Where fewer experts have a copy, how many layers of a dense model would have to make room.
fn few_copies(plan: &Plan, limits: &MemoryConfig, models: &[ModelRequest]) -> Option<String> {
    let few = |plan: &Plan| {
        plan.models.iter().any(|model| match model.experts {
            Experts::Cache {
                device: Tier::Gpu,
                capacity,
                of,
            } => capacity * 100 < of * FEW,
            _ => false,
        })
    };
    if !few(plan) {
        return None;
    }
    models.iter().enumerate().find_map(|(index, model)| {
        let free = model.shape.routed_experts() == 0 && model.gpu_layers.is_none();
        let layers = (0..plan.models[index].all_layers).rev().filter(|_| free);
        layers.into_iter().find_map(|layers| {
            let mut changed = models.to_vec();
            changed[index].gpu_layers = Some(layers);
            let better = attempt(&plan.machine, limits, &changed).ok().filter(|plan| !few(plan))?;
            let (now, then) = (&plan.models[index].decode, &better.models[index].decode);
            Some(format!(
                "with `gpu_layers` of {layers} for {} the GPU holds copies of {}, but {0} makes about {} instead of {} tokens/s",
                model.name,
                copies(&better)?,
                then.tokens_per_second,
                now.tokens_per_second
            ))
        })
    })
}

/// Whether layers, or all copies of experts, did not fit on the GPU.
fn cramped(plan: &Plan, models: &[ModelRequest]) -> bool {
    plan.models.iter().zip(models).any(|(model, request)| {
        let layers = model.gpu_layers.is_some() && request.gpu_layers.is_none();
        layers || model.experts == Experts::Ram && request.experts.placement != ExpertPlacement::Cpu
    })
}

/// The copies of a plan, for a sentence.
fn copies(plan: &Plan) -> Option<String> {
    plan.models.iter().find_map(|model| match model.experts {
        Experts::Cache {
            device: Tier::Gpu,
            capacity,
            of,
        } => Some(format!("{capacity} of {of} experts of each layer of {}", model.name)),
        _ => None,
    })
}
