//! The decision: what goes onto the GPU.

use super::budget::Budget;
use super::caches;
use super::demand::all_layers;
use super::outcome::{Experts, Plan, PlanError, TierUse};
use super::placing::{Placed, Placing};
use super::request::{Embeddings, ModelRequest};
use crate::config::{CacheDevice, ExpertPlacement, MemoryConfig};
use crate::host::Machine;
use crate::memory::{KvTypes, Tier, bytes};

/// A plan, without looking for what would fit better.
pub(super) fn attempt(machine: &Machine, limits: &MemoryConfig, models: &[ModelRequest]) -> Result<Plan, PlanError> {
    with(machine, machine.gpu(), limits, models)
}

/// The plan with this GPU, or without one.
fn with(
    machine: &Machine,
    device: Option<usize>,
    limits: &MemoryConfig,
    models: &[ModelRequest],
) -> Result<Plan, PlanError> {
    let budget = Budget::new(machine, device, limits);
    check(models, budget)?;
    let mut reasons = Vec::new();
    if device.is_some() && budget.gpu.is_none() {
        reasons.push(TOO_SMALL.to_owned());
    }
    let device = device.filter(|_| budget.gpu.is_some());
    if let Some(device) = device.filter(|_| machine.devices.len() > 1) {
        reasons.push(format!(
            "of several GPUs, only {} is used",
            machine.devices[device].name
        ));
    }
    let mut placing = Placing::new(models, budget);
    match budget.gpu {
        None => reasons.push(NO_GPU.to_owned()),
        Some(_) if budget.unified => reasons.push(UNIFIED.to_owned()),
        Some(budget) => match placing.fit(budget, &mut reasons) {
            // No setting insists on a GPU that is too small to be of use.
            Err(_) if !models.iter().any(ModelRequest::needs_gpu) => {
                let mut plan = with(machine, None, limits, models)?;
                plan.reasons.insert(0, TOO_SMALL.to_owned());
                return Ok(plan);
            }
            fitted => fitted?,
        },
    }
    caches::fill(&mut placing);
    let mapped = are_mapped(&placing, &tiers(machine, device, &placing)?, &mut reasons);
    placing.models.iter_mut().for_each(|model| model.host.mapped = mapped);
    // What is not mapped may be left in its file.
    let tiers = tiers(machine, device, &placing)?;
    Ok(Plan {
        device,
        unified: budget.unified,
        mmap: mapped,
        prompt_cache: prompt_cache(&tiers, limits, models, &mut reasons),
        tiers,
        models: placing.models.iter().map(|model| model.plan(machine, device)).collect(),
        reasons,
        advice: Vec::new(),
        machine: machine.clone(),
    })
}

const TOO_SMALL: &str =
    "the GPU's memory, within `memory.vram` and less the headroom, is too small for any part of the models";
const NO_GPU: &str = "without a GPU all is in RAM, and no expert is copied: llama.cpp's own CPU kernels are faster";
const UNIFIED: &str = "GPU and RAM are one memory: all is on the GPU, and no expert is copied";

impl Placing<'_> {
    /// Moves to main memory what does not fit on the GPU: experts first, then layers.
    fn fit(&mut self, budget: u64, reasons: &mut Vec<String>) -> Result<(), PlanError> {
        let whole = self.bytes(Tier::Gpu);
        if whole <= budget {
            if self
                .models
                .iter()
                .all(|model| model.all_on_gpu() && model.layout.experts != Experts::Ram)
            {
                reasons.push("everything fits on the GPU".to_owned());
            }
            return Ok(());
        }
        reasons.push(format!(
            "all on the GPU would take {}, but its budget is {}",
            bytes(whole),
            bytes(budget)
        ));
        for model in &mut self.models {
            // Whole layers are split off where `gpu_layers` says so.
            let free = model.request.experts.placement == ExpertPlacement::Auto && model.all_on_gpu();
            if model.layout.experts == Experts::Layers && free {
                model.layout.experts = Experts::Ram;
            }
            // A size that is configured comes before the layers of others.
            caches::configured(model, Tier::Gpu);
        }
        self.move_layers(budget);
        for model in &mut self.models {
            let all = all_layers(&model.request.shape);
            if !model.all_on_gpu() && model.request.gpu_layers.is_none() {
                let layers = model.layout.gpu_layers;
                let what = if layers == 0 {
                    "no layer fits".to_owned()
                } else {
                    format!("{layers} of {all} layers fit")
                };
                model.reasons.push(format!("{what} on the GPU next to the rest"));
            }
        }
        match self.bytes(Tier::Gpu) {
            needed if needed <= budget => Ok(()),
            needed => Err(PlanError::new(format!(
                "what must be on the GPU takes {}, but its budget is {}: {}",
                bytes(needed),
                bytes(budget),
                self.largest(Tier::Gpu)
            ))),
        }
    }

    /// Layer by layer from the model that has most on the GPU; dense models give up all of theirs first, since with a
    /// mixture's attention goes its cache.
    fn move_layers(&mut self, budget: u64) {
        for experts in [false, true] {
            while self.bytes(Tier::Gpu) > budget {
                let movable = self.models.iter_mut().filter(|model| {
                    model.has_experts() == experts
                        && model.layout.gpu_layers > 0
                        && model.request.gpu_layers.is_none()
                        && model.request.experts.placement != ExpertPlacement::Gpu
                        && !matches!(model.layout.experts, Experts::Cache { .. })
                });
                let Some(model) = movable.max_by_key(|model| model.bytes(Tier::Gpu)) else {
                    break;
                };
                model.layout.gpu_layers -= 1;
            }
        }
    }
}

/// Main memory that reading files instead of mapping them must leave: it cannot be had back.
const READING_LEAVES: u64 = 4 << 30;

/// Whether files are mapped. A GPU fetches experts for long prompts faster from memory that is pinned, into which files can only
/// be read.
fn are_mapped(placing: &Placing<'_>, tiers: &[TierUse], reasons: &mut Vec<String>) -> bool {
    if placing.budget.unified {
        return false;
    }
    let fetched = |model: &&Placed<'_>| {
        let in_ram = matches!(
            model.layout.experts,
            Experts::Ram | Experts::Cache { device: Tier::Gpu, .. }
        );
        in_ram && model.layout.gpu_layers > 0
    };
    let Some(ram) = tiers
        .last()
        .filter(|_| placing.models.iter().any(|model| fetched(&model)))
    else {
        return true;
    };
    let left = ram.budget - ram.used;
    let mapped = left < READING_LEAVES;
    reasons.push(match mapped {
        true => format!(
            "files are mapped: reading them, so that the GPU fetches experts for prompts faster, would leave {} of RAM, \
             less than {}",
            bytes(left),
            bytes(READING_LEAVES)
        ),
        false => "files are read into pinned memory, from which the GPU fetches experts for prompts faster".to_owned(),
    });
    mapped
}

/// Main memory for saved states of each model: what is configured, as far as the models leave it.
fn prompt_cache(tiers: &[TierUse], limits: &MemoryConfig, models: &[ModelRequest], reasons: &mut Vec<String>) -> u64 {
    let generating = models.iter().filter(|model| model.embeddings != Embeddings::Only);
    let left = tiers.last().map_or(0, |tier| tier.budget - tier.used);
    let share = left / (generating.count().max(1) as u64);
    if share < limits.prompt_cache {
        reasons.push(format!(
            "`memory.prompt_cache` is {} for each model, but only {} are left",
            bytes(limits.prompt_cache),
            bytes(share)
        ));
    }
    limits.prompt_cache.min(share)
}

/// What each tier has and gives; an error where that is too little.
fn tiers(machine: &Machine, device: Option<usize>, placing: &Placing<'_>) -> Result<Vec<TierUse>, PlanError> {
    let budget = placing.budget;
    let gpu = device.zip(budget.gpu).map(|(device, limit)| TierUse {
        tier: Tier::Gpu,
        total: machine.devices[device].total,
        budget: limit,
        used: placing.bytes(Tier::Gpu) + if budget.unified { placing.bytes(Tier::Ram) } else { 0 },
    });
    let ram = (!budget.unified || gpu.is_none()).then(|| TierUse {
        tier: Tier::Ram,
        total: machine.ram_total,
        budget: budget.ram,
        used: placing.bytes(Tier::Ram),
    });
    let tiers: Vec<TierUse> = gpu.into_iter().chain(ram).collect();
    match tiers.iter().find(|tier| tier.used > tier.budget) {
        None => Ok(tiers),
        Some(tier) => Err(PlanError::new(format!(
            "the models take {} of {}, but the budget is {}: {}",
            bytes(tier.used),
            if budget.unified { "memory" } else { tier.tier.name() },
            bytes(tier.budget),
            placing.largest(tier.tier)
        ))),
    }
}

/// Settings that contradict each other or the machine.
fn check(models: &[ModelRequest], budget: Budget) -> Result<(), PlanError> {
    for model in models {
        let (shape, experts) = (&model.shape, &model.experts);
        let all = all_layers(shape);
        let name = &model.name;
        if let Err([block, length]) = model.takes(model.context.kv_type) {
            return Err(PlanError::new(format!(
                "`kv_type` of {name} is \"{}\", which is made of blocks of {block}, but a head has {length} elements",
                model.context.kv_type
            ))
            .hint(format!("set it to \"{}\"", KvTypes::default())));
        }
        if shape.routed_experts() == 0 {
            continue;
        }
        let forced = match experts.placement {
            ExpertPlacement::Gpu => "gpu",
            ExpertPlacement::Cache if experts.device == CacheDevice::Auto => "cache",
            _ => continue,
        };
        // A cache is a matter of speed, and left out.
        if budget.gpu.is_none() && experts.placement == ExpertPlacement::Gpu {
            return Err(PlanError::new(format!(
                "`experts.placement` of {name} is \"{forced}\", but there is no GPU that hearth may use"
            ))
            .hint("set it to \"auto\""));
        }
        if let Some(layers) = model.gpu_layers.filter(|layers| *layers < all) {
            return Err(PlanError::new(format!(
                "`experts.placement` of {name} is \"{forced}\", which needs all layers on the GPU, but `gpu_layers` is {layers} of {all}"
            ))
            .hint("leave out one of the two"));
        }
    }
    Ok(())
}
