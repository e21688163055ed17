//! The machine, as reports show it.

use serde::Serialize;

use super::output;
use crate::host;

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
        let machine = host::machine();
        let gpus = machine.devices.into_iter().map(|gpu| Gpu {
            name: gpu.name,
            backend: gpu.backend,
            memory_bytes: gpu.total,
        });
        Self {
            cpu: host::processor_name(),
            cores: machine.cores,
            memory_bytes: machine.ram_total,
            gpus: gpus.collect(),
            system: host::system_name(),
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
        let gpus = if gpus.is_empty() {
            "no GPU".to_owned()
        } else {
            gpus.join(", ")
        };
        let memory = output::bytes(self.memory_bytes);
        let Self { cpu, cores, system, .. } = self;
        write!(out, "{cpu}, {cores} cores, {memory}, {gpus}, {system}")
    }
}
