//! What a cache is told: plain types.

use std::collections::BTreeMap;

use super::policy::{PolicyConfig, PolicyKind};
use crate::host::GpuId;

/// What holds the copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Gpu(GpuId),
    /// Main memory: no faster than no cache, but every step is taken.
    Cpu,
}

impl Device {
    /// For answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpu(_) => "gpu",
            Self::Cpu => "cpu",
        }
    }
}

/// How many experts of a layer can have a copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Capacity {
    /// A share of the layer's experts, 0 to 1.
    Share(f32),
    PerLayer(usize),
    /// Of the device, for all layers together.
    Bytes(u64),
}

/// How a cache works. All but the device can be changed while it does.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheConfig {
    pub device: Device,
    pub capacity: Capacity,
    pub policy: PolicyConfig,
    pub experts_per_token: u32,
    /// Experts by layer that always have an entry, whatever the policy thinks of them.
    pub pinned: BTreeMap<u32, Vec<u32>>,
}

/// A change of a running cache; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    pub capacity: Option<Capacity>,
    pub policy: Option<PolicyKind>,
    pub pinned: Option<BTreeMap<u32, Vec<u32>>>,
    /// Forget what is resident, what the policy learnt, and all counts; the heat map of earlier runs is kept.
    pub reset: bool,
}

/// Why a running cache was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("the size in bytes is not known before the model has computed a token")]
    SizeUnknown,
    #[error("layer {0} has no experts")]
    NoExperts(u32),
    #[error("layer {layer} has {experts} experts, not one with the number {expert}")]
    UnknownExpert { layer: u32, experts: usize, expert: u32 },
}
