//! What it runs on.

use llama_cpp_2::{LlamaBackendDeviceType, list_llama_ggml_backend_devices};
use serde::Serialize;
use sysinfo::{CpuRefreshKind, System};

use super::output;
use crate::engine::local::threads;

/// The machine, as far as it decides how fast a model is.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    /// The processor's own name.
    pub(super) cpu: String,
    /// Physical cores that the process may use.
    pub(super) cores: u32,
    /// Main memory, or what a container may take of it.
    pub(super) memory_bytes: u64,
    pub(super) gpus: Vec<Gpu>,
    pub(super) system: String,
}

/// A GPU that llama.cpp found.
#[derive(Debug, Serialize)]
pub(super) struct Gpu {
    pub(super) name: String,
    pub(super) backend: String,
    pub(super) memory_bytes: u64,
}

impl Machine {
    /// This machine. llama.cpp must be loaded, or its devices are not known yet.
    pub(super) fn this() -> Self {
        let mut system = System::new();
        system.refresh_memory();
        system.refresh_cpu_list(CpuRefreshKind::nothing());
        let cpu = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
        let gpus = list_llama_ggml_backend_devices().into_iter().filter(|device| {
            matches!(
                device.device_type,
                LlamaBackendDeviceType::Gpu | LlamaBackendDeviceType::IntegratedGpu
            )
        });
        Self {
            cpu: cpu
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: threads::physical_cores(),
            memory_bytes: system
                .cgroup_limits()
                .map_or(system.total_memory(), |limits| limits.total_memory),
            gpus: gpus
                .map(|device| Gpu {
                    name: device.description,
                    backend: device.backend,
                    memory_bytes: device.memory_total as u64,
                })
                .collect(),
            system: System::long_os_version().unwrap_or_else(|| std::env::consts::OS.to_owned()),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gpus: Vec<String> = self
            .gpus
            .iter()
            .map(|gpu| format!("{} ({}, {})", gpu.name, output::bytes(gpu.memory_bytes), gpu.backend))
            .collect();
        let gpus = match gpus.is_empty() {
            true => "no GPU".to_owned(),
            false => gpus.join(", "),
        };
        let memory = output::bytes(self.memory_bytes);
        let Self { cpu, cores, system, .. } = self;
        write!(out, "{cpu}, {cores} cores, {memory}, {gpus}, {system}")
    }
}
