//! What the machine is: cores, NUMA nodes, memory, GPUs, and what this process takes of them.
//!
//! [`machine`] finds everything that a plan needs; a [`Machine`] can also be described instead of found. GPUs are found once
//! and handed on as a [`GpuId`].

mod cores;
pub mod cpu;
mod disk;
mod gpu;
mod machine;
mod memory;
mod nvml;
mod process;
mod system;

pub use cores::{numa_nodes, physical_cores};
pub use disk::free_bytes;
pub use gpu::{Gpu, GpuId, gpus};
pub use machine::{Described, Machine};
pub use memory::{Memory, memory};
pub use nvml::{GpuUse, gpu_use};
pub use process::{ProcessUse, process_use, resident_bytes};
pub use system::{load, processor_name, system_name};

/// The machine that this process runs on.
///
/// With ggml backends as modules, these must have been loaded, or their GPUs are not found.
#[must_use]
pub fn machine() -> Machine {
    let Memory { total, available } = memory();
    Machine {
        devices: gpus(total),
        ram_total: total,
        ram_available: available,
        cores: physical_cores(),
    }
}
