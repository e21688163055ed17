//! The GPUs, as llama.cpp's backends find them.

use llama_cpp_2::{LlamaBackendDeviceType, list_llama_ggml_backend_devices};
use serde::Serialize;

/// A GPU. Amounts are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// The model's name, such as `NVIDIA GeForce RTX 4090`.
    pub name: String,
    pub total: u64,
    pub free: u64,
    /// Its memory is the machine's.
    pub unified: bool,
    /// llama.cpp's backend that computes on it, such as `CUDA`; empty for a GPU that is only described.
    #[serde(skip)]
    pub backend: String,
    /// What loads onto it; `None` for a GPU that is only described.
    #[serde(skip)]
    pub id: Option<GpuId>,
}

/// A GPU of this process. Only [`gpus`] makes one: who has it need not look for the device again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GpuId(usize);

impl GpuId {
    /// Its number among all devices that ggml has registered (`ggml_backend_dev_get`). Devices that are registered later
    /// do not change it.
    #[must_use]
    pub fn ggml_index(self) -> usize {
        self.0
    }
}

/// All GPUs, in ggml's order. `ram_total` is the machine's main memory, in bytes: a GPU that reports the same shares it.
///
/// With ggml backends as modules, these must have been loaded.
#[must_use]
pub fn gpus(ram_total: u64) -> Vec<Gpu> {
    let devices = list_llama_ggml_backend_devices().into_iter();
    let gpus = devices.filter_map(|device| {
        let integrated = match device.device_type {
            LlamaBackendDeviceType::Gpu => false,
            LlamaBackendDeviceType::IntegratedGpu => true,
            _ => return None,
        };
        let total = device.memory_total as u64;
        Some(Gpu {
            name: device.description,
            total,
            free: device.memory_free as u64,
            unified: integrated || shares(total, ram_total),
            backend: device.backend,
            id: Some(GpuId(device.index)),
        })
    });
    gpus.collect()
}

/// Whether a GPU of this size shares main memory: it then reports the system's own total, to within a percent.
fn shares(total: u64, ram_total: u64) -> bool {
    total.abs_diff(ram_total) <= ram_total / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_reports_the_systems_memory_shares_it() {
        const GIB: u64 = 1 << 30;
        assert!(shares(128 * GIB - 1, 128 * GIB));
        assert!(!shares(139 * GIB, 128 * GIB));
    }
}
