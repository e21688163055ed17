//! What the models may take of a machine.

use crate::config::{MemoryConfig, MemoryLimit};
use crate::host::Machine;

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
    pub fn new(machine: &Machine, device: Option<usize>, limits: &MemoryConfig) -> Self {
        let budget = |free: u64, automatic: u64, limit: MemoryLimit| {
            let headroom = match limits.headroom {
                MemoryLimit::Auto => automatic,
                MemoryLimit::Bytes(bytes) => bytes,
            };
            let budget = free.saturating_sub(headroom);
            match limit {
                MemoryLimit::Auto => budget,
                MemoryLimit::Bytes(bytes) => budget.min(bytes),
            }
        };
        let ram_headroom = (machine.ram_total / 100 * 6).max(RAM_HEADROOM);
        let ram = budget(machine.ram_available, ram_headroom, limits.ram);
        let device = device.map(|device| &machine.devices[device]);
        let unified = device.is_some_and(|device| device.unified);
        let gpu = device.map(|device| {
            if unified {
                // What is free of one memory is told twice, and either may be the smaller one.
                let free = device.free.min(machine.ram_available);
                budget(free, ram_headroom, limits.vram).min(ram)
            } else {
                budget(device.free, (device.total / 100 * 4).max(GPU_HEADROOM), limits.vram)
            }
        });
        Self {
            gpu: gpu.filter(|budget| *budget > 0),
            ram,
            unified,
        }
    }
}
