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

/// How many experts of a layer have room.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Slots {
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
    pub slots: Slots,
    pub policy: PolicyConfig,
    /// Experts that compute a token.
    pub active: u32,
    /// Experts by layer that always have a slot, whatever the policy thinks of them.
    pub pins: BTreeMap<u32, Vec<u32>>,
}

/// What tokens of the current step are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Each token of the batch was generated.
    Decode,
    /// At least one is part of a prompt.
    Prefill,
}

/// A change of a running cache; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    pub slots: Option<Slots>,
    pub policy: Option<PolicyKind>,
    pub pins: Option<BTreeMap<u32, Vec<u32>>>,
    /// Forget what is resident, what the policy learnt, and all counts; the heat map of earlier runs is kept.
    pub reset: bool,
}
