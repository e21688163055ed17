//! All models with their layouts while a plan is made.

use super::budget::Budget;
use super::demand::{Host, Layout, all_layers, of_draft_model, of_head, rows};
use super::outcome::{Experts, ModelPlan};
use super::request::{ModelRequest, Stretch};
use super::speed;
use crate::config::{CacheDevice, ExpertPlacement};
use crate::host::Machine;
use crate::memory::{Row, Tier, bytes};

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
        let (request, mut rows) = (self.request, rows(self.request, self.layout, self.host));
        if let Some(head) = request.head() {
            rows.extend(of_head(request, head, self.layout));
        }
        if let Some(small) = &request.draft_model {
            rows.extend(of_draft_model(request, small, self.layout, self.host));
        }
        rows
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

    pub fn plan(&self, machine: &Machine, device: Option<usize>) -> ModelPlan {
        let shape = &self.request.shape;
        let gpu = device.map(|device| &machine.devices[device]);
        ModelPlan {
            name: self.request.name.clone(),
            context: self.request.context,
            gpu_layers: (!self.all_on_gpu()).then_some(self.layout.gpu_layers),
            all_layers: all_layers(shape),
            experts: self.layout.experts,
            rows: self.rows(),
            reasons: self.reasons.clone(),
            decode: speed::estimate(shape, self.request.head(), self.layout, gpu),
            first_token: speed::first_token(shape, self.request.context, self.layout, gpu, self.host.mapped),
        }
    }
}

impl<'a> Placing<'a> {
    /// Everything on the GPU, or in main memory if there is none, but for what is configured.
    pub fn new(models: &'a [ModelRequest], budget: Budget) -> Self {
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
            if let Some(Stretch { factor, trained }) = request.stretch {
                let shape = &request.shape;
                let token: u64 = shape
                    .layers
                    .iter()
                    .map(|layer| request.context.kv_per_token(layer))
                    .sum();
                reasons.push(format!(
                    "`rope.yarn` stretches the {trained} tokens of its training by {factor}, at the price of a little exactness \
                     in short texts; each 1,000 tokens of a sequence take {}",
                    bytes(token * 1000)
                ));
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
