//! What would fit where something does not: other settings, tried.

use super::machine::Machine;
use super::memory::predict;
use super::outcome::PlanError;
use super::place::{ModelRequest, attempt};
use super::text::bytes;
use crate::config::{CacheSize, ExpertPlacement, KvType, MemoryConfig};

/// Shorter contexts than this are not proposed.
const SHORTEST: u32 = 2048;

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
    let longest = models.iter().map(|model| model.context.tokens).max().unwrap_or(0);
    let context = std::iter::successors(Some(longest / 2), |tokens| Some(tokens / 2))
        .take_while(|tokens| *tokens >= SHORTEST)
        .find(|tokens| fits(&|model| model.context.tokens = model.context.tokens.min(*tokens)));
    if let Some(tokens) = context {
        error = error.hint(format!("a context of {tokens} tokens fits, instead of {longest}"));
    }
    if models.iter().any(|model| model.context.parallel > 1) && fits(&|model| model.context.parallel = 1) {
        error = error.hint("one sequence at a time fits: `parallel` of 1");
    }
    if fits(&|model| model.context.kv_type = KvType::Q8_0) {
        error = error.hint("`kv_type` of \"q8_0\" fits: it halves keys and values");
    }
    let automatic = |model: &mut ModelRequest| {
        model.gpu_layers = None;
        model.experts.placement = ExpertPlacement::Auto;
        model.experts.cache = CacheSize::Auto;
    };
    let forced = models.iter().any(|model| {
        model.gpu_layers.is_some()
            || model.experts.placement != ExpertPlacement::Auto
            || model.experts.cache != CacheSize::Auto
    });
    if forced && fits(&automatic) {
        error = error.hint("it fits with `gpu_layers` and `experts` left to hearth");
    }
    if error.hints.is_empty() {
        error = smaller(error, machine, models);
    }
    error
}

/// The weights themselves are too large: how small a quant has to be.
fn smaller(mut error: PlanError, machine: &Machine, models: &[ModelRequest]) -> PlanError {
    let weights: u64 = models.iter().map(|model| model.shape.weights()).sum();
    let least: u64 = models
        .iter()
        .map(|model| {
            let mut context = model.context;
            context.tokens = context.tokens.min(SHORTEST);
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
    let room = (memory - memory / 10).saturating_sub(least);
    let percent = u128::from(room) * 100 / u128::from(weights.max(1));
    if (20..100).contains(&percent) {
        error = error.hint(format!(
            "the weights are {}; a quant of at most {percent} % of that size would do, with a short context",
            bytes(weights)
        ));
    }
    if models.len() > 1 {
        error = error.hint("one model fewer may fit");
    }
    error.hint(format!(
        "a machine with {} of memory and a little more would do",
        bytes(weights + least)
    ))
}
