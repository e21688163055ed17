//! What is asked of a plan.

use super::memory::Context;
use super::shape::ModelShape;
use crate::config::{CacheDevice, CacheSize, ExpertPlacement, ExpertsConfig};

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

impl ModelRequest {
    /// Whether its settings make no sense without a GPU.
    pub(super) fn needs_gpu(&self) -> bool {
        let cached = self.experts.placement == ExpertPlacement::Cache && self.experts.device == CacheDevice::Auto;
        let sized = self.experts.cache != CacheSize::Auto && self.experts.device == CacheDevice::Auto;
        self.gpu_layers.is_some_and(|layers| layers > 0)
            || self.shape.routed_experts() > 0 && (cached || sized || self.experts.placement == ExpertPlacement::Gpu)
    }
}
