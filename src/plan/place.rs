//! The decision: what goes onto the GPU.

use super::demand::{Host, Layout, all_layers, rows};
use super::machine::Machine;
use super::memory::Context;
use super::outcome::{Experts, ModelPlan, Plan, PlanError, Row, Tier, TierUse};
use super::shape::ModelShape;
use super::slots;
use super::speed;
use super::suggest;
use super::text::bytes;
use crate::config::{CacheDevice, CacheSize, ExpertPlacement, ExpertsConfig, KvType, MemoryConfig, MemoryLimit};
use crate::gguf::TensorType;

/// A model to be planned.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    pub name: String,
    pub shape: ModelShape,
    pub context: Context,
    pub experts: ExpertsConfig,
    /// Layers on the GPU, as llama.cpp counts them; `None` leaves them to the plan.
    pub gpu_layers: Option<u32>,
}

/// What the models may take, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// `None` without a GPU.
    pub gpu: Option<u64>,
    pub ram: u64,
    pub unified: bool,
}

/// Least headroom on a GPU: what its driver, a desktop and the allocator's rounding take.
const GPU_HEADROOM: u64 = 512 << 20;
/// Least headroom in main memory.
const RAM_HEADROOM: u64 = 2 << 30;

impl Budget {
    /// Automatic headroom is 4 % of a GPU, 512 MiB at least, and 6 % of main memory, 2 GiB at least. What is free and what is
    /// allowed bound the rest.
    fn new(machine: &Machine, device: Option<usize>, limits: &MemoryConfig) -> Self {
        let room = |free: u64, automatic: u64, limit: MemoryLimit| {
            let headroom = match limits.headroom {
                MemoryLimit::Auto => automatic,
                MemoryLimit::Bytes(bytes) => bytes,
            };
            let room = free.saturating_sub(headroom);
            match limit {
                MemoryLimit::Auto => room,
                MemoryLimit::Bytes(bytes) => room.min(bytes),
            }
        };
        let ram_headroom = (machine.ram_total / 100 * 6).max(RAM_HEADROOM);
        let ram = room(machine.ram_available, ram_headroom, limits.ram);
        let device = device.map(|device| &machine.devices[device]);
        let unified = device.is_some_and(|device| device.unified);
        let gpu = device.map(|device| {
            if unified {
                // What is free of one memory is told twice, and either may be the smaller one.
                let free = device.free.min(machine.ram_available);
                room(free, ram_headroom, limits.vram).min(ram)
            } else {
                room(device.free, (device.total / 100 * 4).max(GPU_HEADROOM), limits.vram)
            }
        });
        Self {
            gpu: gpu.filter(|room| *room > 0),
            ram,
            unified,
        }
    }
}

/// Decides where everything goes.
///
/// Without a GPU all is in main memory. With unified memory all is on the GPU. If everything fits onto the GPU it goes there.
/// Otherwise the routed experts of mixtures stay in main memory; if the rest still does not fit, layers follow them, those
/// of dense models first; and what is left on the GPU holds copies of hot experts. What is configured is not changed.
///
/// # Errors
/// [`PlanError`] where the models do not fit, or settings contradict each other or the machine, with what would fit.
pub fn plan(machine: &Machine, limits: &MemoryConfig, models: &[ModelRequest]) -> Result<Plan, PlanError> {
    match attempt(machine, limits, models) {
        Ok(plan) => Ok(suggest::advise(plan, limits, models)),
        Err(error) => Err(suggest::hints(error, machine, limits, models)),
    }
}

/// [`plan`], without looking for what would fit better.
pub(super) fn attempt(machine: &Machine, limits: &MemoryConfig, models: &[ModelRequest]) -> Result<Plan, PlanError> {
    // Layers are not spread over several GPUs: copies of experts are worth more on the one with the most memory.
    let device =
        (0..machine.devices.len()).max_by_key(|device| (machine.devices[*device].free, std::cmp::Reverse(*device)));
    with(machine, device, limits, models)
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
        Some(room) => match placing.fit(room, &mut reasons) {
            // No setting insists on a GPU that is too small to be of use.
            Err(_) if !models.iter().any(ModelRequest::needs_gpu) => {
                let mut plan = with(machine, None, limits, models)?;
                plan.reasons.insert(0, TOO_SMALL.to_owned());
                return Ok(plan);
            }
            fitted => fitted?,
        },
    }
    slots::fill(&mut placing);
    let tiers = tiers(machine, device, &placing)?;
    Ok(Plan {
        device,
        unified: budget.unified,
        mmap: !budget.unified,
        tiers,
        models: placing.models.iter().map(|model| model.plan(machine, device)).collect(),
        reasons,
        advice: Vec::new(),
        machine: machine.clone(),
    })
}

const TOO_SMALL: &str = "the GPU has no room for any part of the models, within `memory.vram` and less the headroom";
const NO_GPU: &str = "without a GPU all is in RAM, and no expert is copied: llama.cpp's own CPU kernels are faster";
const UNIFIED: &str = "GPU and RAM are one memory: all is on the GPU, and no expert is copied";

impl ModelRequest {
    /// Whether its settings make no sense without a GPU.
    fn needs_gpu(&self) -> bool {
        let cached = self.experts.placement == ExpertPlacement::Cache && self.experts.device == CacheDevice::Auto;
        let sized = self.experts.cache != CacheSize::Auto && self.experts.device == CacheDevice::Auto;
        self.gpu_layers.is_some_and(|layers| layers > 0)
            || self.shape.routed_experts() > 0 && (cached || sized || self.experts.placement == ExpertPlacement::Gpu)
    }
}

/// All models with their layouts so far.
pub(super) struct Placing<'a> {
    pub models: Vec<Placed<'a>>,
    pub budget: Budget,
}

/// A model with its layout so far.
pub(super) struct Placed<'a> {
    pub request: &'a ModelRequest,
    pub layout: Layout,
    pub host: Host,
    pub reasons: Vec<String>,
}

impl Placed<'_> {
    pub fn rows(&self) -> Vec<Row> {
        rows(&self.request.shape, self.request.context, self.layout, self.host)
    }

    pub fn bytes(&self, tier: Tier) -> u64 {
        let rows = self.rows();
        rows.iter().filter(|row| row.tier == tier).map(|row| row.bytes).sum()
    }

    pub fn has_experts(&self) -> bool {
        self.request.shape.routed_experts() > 0
    }

    pub fn all_on_gpu(&self) -> bool {
        self.layout.gpu_layers >= all_layers(&self.request.shape)
    }

    fn plan(&self, machine: &Machine, device: Option<usize>) -> ModelPlan {
        let shape = &self.request.shape;
        ModelPlan {
            name: self.request.name.clone(),
            context: self.request.context,
            gpu_layers: (!self.all_on_gpu()).then_some(self.layout.gpu_layers),
            all_layers: all_layers(shape),
            experts: self.layout.experts,
            rows: self.rows(),
            reasons: self.reasons.clone(),
            decode: speed::estimate(shape, self.layout, device.map(|device| &machine.devices[device])),
        }
    }
}

impl<'a> Placing<'a> {
    /// Everything on the GPU, or in main memory if there is none, but for what is configured.
    fn new(models: &'a [ModelRequest], budget: Budget) -> Self {
        let gpu = budget.gpu.is_some();
        let host = Host {
            gpu,
            mapped: !budget.unified,
        };
        let place = |request: &'a ModelRequest| {
            let all = all_layers(&request.shape);
            let configured = request.gpu_layers.unwrap_or(all).min(all);
            let experts = match request.experts.placement {
                _ if request.shape.routed_experts() == 0 => Experts::None,
                ExpertPlacement::Cpu if gpu && !budget.unified => Experts::Ram,
                ExpertPlacement::Cache if gpu && !budget.unified => Experts::Ram,
                _ => Experts::Layers,
            };
            let mut reasons = Vec::new();
            if gpu && request.gpu_layers.is_some() {
                reasons.push(format!("`gpu_layers` asks for {configured} of {all} layers"));
            }
            let placement = match request.experts.placement {
                ExpertPlacement::Cpu => Some("cpu"),
                ExpertPlacement::Cache => Some("cache"),
                ExpertPlacement::Auto | ExpertPlacement::Gpu => None,
            };
            if let Some(placement) = placement.filter(|_| experts != Experts::None) {
                let left_out = request.experts.device == CacheDevice::Auto && placement == "cache";
                let nothing = match (gpu, budget.unified) {
                    (true, true) => ", which means nothing in one memory",
                    (false, _) if left_out => ", but there is no GPU: it is left out",
                    _ => "",
                };
                reasons.push(format!("`experts.placement` is \"{placement}\"{nothing}"));
            }
            Placed {
                request,
                layout: Layout {
                    gpu_layers: if gpu { configured } else { 0 },
                    experts,
                },
                host,
                reasons,
            }
        };
        Self {
            models: models.iter().map(place).collect(),
            budget,
        }
    }

    pub fn bytes(&self, tier: Tier) -> u64 {
        self.models.iter().map(|model| model.bytes(tier)).sum()
    }

    /// Moves to main memory what the GPU has no room for: experts first, then layers.
    fn fit(&mut self, room: u64, reasons: &mut Vec<String>) -> Result<(), PlanError> {
        let whole = self.bytes(Tier::Gpu);
        if whole <= room {
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
            "all on the GPU would take {}, it has room for {}",
            bytes(whole),
            bytes(room)
        ));
        for model in &mut self.models {
            // Whole layers are split off where `gpu_layers` says so.
            let free = model.request.experts.placement == ExpertPlacement::Auto && model.all_on_gpu();
            if model.layout.experts == Experts::Layers && free {
                model.layout.experts = Experts::Ram;
            }
            // A size that is configured comes before the layers of others.
            slots::configured(model, Tier::Gpu);
        }
        self.move_layers(room);
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
            needed if needed <= room => Ok(()),
            needed => Err(PlanError::new(format!(
                "the GPU has room for {}, but what must be on it takes {}: {}",
                bytes(room),
                bytes(needed),
                self.largest(Tier::Gpu)
            ))),
        }
    }

    /// Layer by layer from the model that has most on the GPU; dense models give up all of theirs first, since with a
    /// mixture's attention goes its cache.
    fn move_layers(&mut self, room: u64) {
        for experts in [false, true] {
            while self.bytes(Tier::Gpu) > room {
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

    /// The three largest parts on a tier, for messages.
    pub fn largest(&self, tier: Tier) -> String {
        let mut parts: Vec<(u64, String)> = Vec::new();
        for model in &self.models {
            for row in model.rows().into_iter().filter(|row| row.tier == tier) {
                parts.push((
                    row.bytes,
                    format!("{} of {} {}", row.component, model.request.name, bytes(row.bytes)),
                ));
            }
        }
        parts.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        let named: Vec<String> = parts.into_iter().take(3).map(|(_, part)| part).collect();
        named.join(", ")
    }
}

/// What each tier has and gives; an error where that is too little.
fn tiers(machine: &Machine, device: Option<usize>, placing: &Placing<'_>) -> Result<Vec<TierUse>, PlanError> {
    let budget = placing.budget;
    let gpu = device.zip(budget.gpu).map(|(device, room)| TierUse {
        tier: Tier::Gpu,
        total: machine.devices[device].total,
        budget: room,
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
            "the models take {} of {}, but there is room for {}: {}",
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
        let block = TensorType::from_name(model.context.kv_type.name()).map_or(1, |kind| kind.block);
        if !shape.key_length.is_multiple_of(block) {
            return Err(PlanError::new(format!(
                "`kv_type` of {name} is \"{}\", which is made of blocks of {block}, but a head has {} elements",
                model.context.kv_type.name(),
                shape.key_length
            ))
            .hint(format!("set it to \"{}\"", KvType::F16.name())));
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
