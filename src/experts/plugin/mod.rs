//! The ggml backend: tables of functions, and what they share.
//!
//! Its devices are of the kind ACCEL: llama.cpp adds such devices to every context by itself and offers them every weight
//! that it would put into main memory; ours take the weights of routed experts of the models that [`load_with`] loads, and
//! no others. See `device.rs` for the two designs, with and without a GPU.
#![allow(unsafe_code)]

mod area;
mod backend;
mod block;
mod buffer;
mod cold;
mod copies;
mod device;
mod drawing;
mod ffi;
mod graphs;
mod halves;
mod hot;
mod in_memory;
mod instance;
mod node;
mod queued;
mod registry;
mod sketch;
mod stage;
mod streamed;
mod tail;
mod way;

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::Arc;

use parking_lot::Mutex;

use self::registry::{Plugin, registered};
use super::ExpertCache;
use super::selection::{MAX_BLOCK_TOKENS, MAX_QUEUED_TOKENS};
use super::settings::Device;

/// Why the backend cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    #[error(
        "ggml has no CPU device: with dynamic backends, their modules lie beside the executable or in GGML_BACKEND_PATH"
    )]
    NoCpu,
}

/// Runs `load`, which loads a model on this thread; the weights of its experts come to `cache`. The caller names them in the
/// model's parameters, with [`in_main_memory`](super::in_main_memory) as the pattern of a CPU override.
///
/// # Errors
/// When ggml has no CPU device.
pub fn load_with<T>(cache: &Arc<ExpertCache>, load: impl FnOnce() -> T) -> Result<T, PluginError> {
    let plugin = plugin(cache.device())?;
    if matches!(cache.device(), Device::Gpu(_)) && plugin.gpu.is_none() {
        tracing::warn!("copies of experts stay in main memory: no GPU was found, or another model chose so before");
    }
    registry::set_loading(Some(cache.clone()));
    let result = load();
    registry::set_loading(None);
    Ok(result)
}

/// Registers the backend at the first call, which decides about the cache device.
fn plugin(wanted: Device) -> Result<&'static Plugin, PluginError> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    if let Some(plugin) = registered() {
        return Ok(plugin);
    }
    let (plugin, registry) = build(wanted)?;
    let plugin = registry::register(plugin);
    // SAFETY: the structs are complete and live for ever.
    unsafe { ffi::ggml_backend_register(registry) };
    Ok(plugin)
}

/// ggml's CPU device, if it has one, and its GPUs.
fn devices_of_ggml() -> (Option<ffi::ggml_backend_dev_t>, Vec<ffi::ggml_backend_dev_t>) {
    use ffi::ggml_backend_dev_type::GGML_BACKEND_DEVICE_TYPE_IGPU as INTEGRATED;
    use ffi::ggml_backend_dev_type::{GGML_BACKEND_DEVICE_TYPE_CPU as CPU, GGML_BACKEND_DEVICE_TYPE_GPU as GPU};
    // SAFETY: asks ggml's registry, which is made at its first use.
    unsafe {
        let devices = (0..ffi::ggml_backend_dev_count()).map(|index| ffi::ggml_backend_dev_get(index));
        let gpus = devices.filter(|device| matches!(ffi::ggml_backend_dev_type(*device), GPU | INTEGRATED));
        let cpu = ffi::ggml_backend_dev_by_type(CPU);
        ((!cpu.is_null()).then_some(cpu), gpus.collect())
    }
}

fn build(wanted: Device) -> Result<(Plugin, ffi::ggml_backend_reg_t), PluginError> {
    let (cpu, gpus) = devices_of_ggml();
    let cpu = cpu.ok_or(PluginError::NoCpu)?;
    let gpu = match wanted {
        // SAFETY: asks ggml's registry; a number that it does not have would be null.
        Device::Gpu(gpu) => Some(unsafe { ffi::ggml_backend_dev_get(gpu.ggml_index()) }),
        Device::Cpu => None,
    };
    let registry = Box::into_raw(Box::new(ffi::ggml_backend_reg {
        api_version: i32::try_from(ffi::GGML_BACKEND_API_VERSION).unwrap_or(0),
        iface: ffi::ggml_backend_reg_i {
            get_name: Some(registry_name),
            get_device_count: Some(device_count),
            get_device: Some(get_device),
            get_proc_address: Some(proc_address),
        },
        context: ptr::null_mut(),
    }));
    let device = |iface| {
        Box::into_raw(Box::new(ffi::ggml_backend_device {
            iface,
            reg: registry,
            context: ptr::null_mut(),
        }))
    };
    let store = device(device::store());
    let host_buffers = Box::into_raw(Box::new(ffi::ggml_backend_buffer_type {
        iface: buffer::interface(),
        device: store,
        context: ptr::null_mut(),
    }));
    // SAFETY: our own struct, which nobody else knows yet.
    unsafe { (*store).context = host_buffers.cast() };
    let compute = gpu.map(|gpu| {
        let compute = device(device::compute());
        // SAFETY: the GPU's buffer type lives for ever; ours is a copy of its few pointers, and the device is our own.
        unsafe {
            let mut alias = ptr::read(ffi::ggml_backend_dev_buffer_type(gpu));
            alias.iface.alloc_buffer = Some(buffer::of_gpu);
            (*compute).context = Box::into_raw(Box::new(alias)).cast();
        }
        compute
    });
    let queued = gpu.is_some() && gpus.len() == 1 && !waits_often();
    let plugin = Plugin {
        // The one that computes stands first: the scheduler prefers it.
        devices: compute.into_iter().chain([store]).collect(),
        compute,
        host_buffers,
        cpu,
        gpu,
        takes_prefill: queued || gpus.is_empty(),
        queued,
        divided: most_divided(),
    };
    Ok((plugin, registry))
}

/// Whether `HEARTH_EXPERT_HANDOVER=waited` asks for the way of blocks that waits for the GPU several times: until somebody has
/// measured both on a card.
fn waits_often() -> bool {
    std::env::var_os("HEARTH_EXPERT_HANDOVER").is_some_and(|way| way == "waited")
}

/// Tokens of a block in the queue that is divided at most: fewer where `HEARTH_EXPERT_DIVIDED` says so, to find out on a card
/// from which number the bus is quicker than the CPU.
fn most_divided() -> usize {
    let asked = std::env::var("HEARTH_EXPERT_DIVIDED")
        .ok()
        .and_then(|tokens| tokens.parse().ok());
    asked
        .unwrap_or(MAX_QUEUED_TOKENS)
        .clamp(MAX_BLOCK_TOKENS, MAX_QUEUED_TOKENS)
}

extern "C" fn registry_name(_: ffi::ggml_backend_reg_t) -> *const c_char {
    c"Hearth".as_ptr()
}

extern "C" fn device_count(_: ffi::ggml_backend_reg_t) -> usize {
    registered().map_or(0, |plugin| plugin.devices.len())
}

extern "C" fn get_device(_: ffi::ggml_backend_reg_t, index: usize) -> ffi::ggml_backend_dev_t {
    let device = registered().and_then(|plugin| plugin.devices.get(index).copied());
    device.unwrap_or(ptr::null_mut())
}

extern "C" fn proc_address(_: ffi::ggml_backend_reg_t, name: *const c_char) -> *mut c_void {
    // SAFETY: ggml passes a string that ends with a zero.
    let name = unsafe { CStr::from_ptr(name) };
    if name == c"ggml_backend_set_n_threads" {
        instance::set_threads as *mut c_void
    } else {
        ptr::null_mut()
    }
}
