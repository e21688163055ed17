//! Models that compute on the CPU take turns, one batch at a time.
//!
//! Each has a thread per core, and llama.cpp's threads spin while they wait for each other: two models that compute at
//! once on the same cores wait for threads that are not running, and both become many times slower. With a GPU the work of
//! two models overlaps, and nobody waits.

use std::sync::OnceLock;

use llama_cpp_2::{LlamaBackendDeviceType, list_llama_ggml_backend_devices};
use parking_lot::{FairMutex, FairMutexGuard};

/// Fair: who has just computed goes to the end of the queue.
static CPU: FairMutex<()> = FairMutex::new(());

/// Waits for the CPU, if that is what computes. The turn ends when the guard is dropped.
pub(super) fn take() -> Option<FairMutexGuard<'static, ()>> {
    static ONLY_CPU: OnceLock<bool> = OnceLock::new();
    let only_cpu = *ONLY_CPU.get_or_init(|| {
        !list_llama_ggml_backend_devices().iter().any(|device| {
            matches!(
                device.device_type,
                LlamaBackendDeviceType::Gpu | LlamaBackendDeviceType::IntegratedGpu
            )
        })
    });
    only_cpu.then(|| CPU.lock())
}
