//! The ggml backend: tables of functions, and what they share.
//!
//! One ACCEL device. llama.cpp adds such devices to every context by itself and offers them every weight that it would put
//! into main memory; ours takes the weights of routed experts of the models that [`load_with`] loads, and no others.
#![allow(unsafe_code)]

mod block;
mod buffer;
mod device;
mod ffi;
mod instance;
mod replay;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::layer::LayerResidency;
use super::{ExpertStats, LayerStats};

/// Name of the device, its buffers and its backend, as llama.cpp's log shows it.
const NAME: &CStr = c"Hearth";

/// Residency of the experts of one model.
#[derive(Debug)]
pub struct ExpertCache {
    /// Share of the experts of each layer that have a slot, 0 to 1.
    share: f32,
    /// By layer of the model, made when it first computes.
    layers: Mutex<BTreeMap<u32, Arc<Mutex<Layer>>>>,
}

/// One layer: who has a copy, and the copies.
#[derive(Debug)]
struct Layer {
    residency: LayerResidency,
    copies: replay::Copies,
    expert_bytes: usize,
}

impl ExpertCache {
    #[must_use]
    pub fn new(share: f32) -> Self {
        Self {
            share: share.clamp(0.0, 1.0),
            layers: Mutex::default(),
        }
    }

    /// What it holds, and what happened so far.
    #[must_use]
    pub fn stats(&self) -> ExpertStats {
        let layers = self.layers.lock();
        let stats = layers.iter().map(|(number, layer)| {
            let layer = layer.lock();
            LayerStats {
                layer: *number,
                experts: layer.residency.experts(),
                slots: layer.residency.slots(),
                expert_bytes: layer.expert_bytes,
                counts: layer.residency.counts(),
            }
        });
        ExpertStats {
            layers: stats.collect(),
        }
    }
}

thread_local! {
    /// The cache of the model that this thread is loading: llama.cpp asks for buffers on the thread that loads.
    static LOADING: RefCell<Option<Arc<ExpertCache>>> = const { RefCell::new(None) };
}

/// Caches by the buffers that hold their models' weights.
static BUFFERS: Mutex<Option<HashMap<usize, Arc<ExpertCache>>>> = Mutex::new(None);

/// Runs `load`, which loads a model on this thread; the weights of its experts come to `cache`. The caller adds
/// `add_cpu_moe_override` to the model's parameters.
///
/// # Errors
/// When ggml has no CPU device.
pub fn load_with<T>(cache: &Arc<ExpertCache>, load: impl FnOnce() -> T) -> Result<T, String> {
    plugin()?;
    LOADING.with(|loading| *loading.borrow_mut() = Some(cache.clone()));
    let result = load();
    LOADING.with(|loading| *loading.borrow_mut() = None);
    Ok(result)
}

/// What callbacks need. ggml keeps pointers to our structs for the life of the process.
struct Plugin {
    buffers: *mut ffi::ggml_backend_buffer_type,
    /// ggml's own CPU device: it computes what we do not, and holds the copies where there is no GPU.
    cpu: *mut ffi::ggml_backend_device,
}

// SAFETY: the structs behind the pointers are written before the first use and only read afterwards.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

static PLUGIN: OnceLock<Result<Plugin, String>> = OnceLock::new();

/// Registers the backend at the first call.
fn plugin() -> Result<&'static Plugin, String> {
    PLUGIN.get_or_init(register).as_ref().map_err(Clone::clone)
}

/// The plugin, for callbacks: they are only called once it is registered.
fn registered() -> Option<&'static Plugin> {
    PLUGIN.get().and_then(|plugin| plugin.as_ref().ok())
}

fn register() -> Result<Plugin, String> {
    // SAFETY: asks ggml's registry, which is made at its first use.
    let cpu = unsafe { ffi::ggml_backend_dev_by_type(ffi::ggml_backend_dev_type::GGML_BACKEND_DEVICE_TYPE_CPU) };
    if cpu.is_null() {
        return Err("ggml has no CPU device".into());
    }
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
    let device = Box::into_raw(Box::new(ffi::ggml_backend_device {
        iface: device::interface(),
        reg: registry,
        context: ptr::null_mut(),
    }));
    let buffers = Box::into_raw(Box::new(ffi::ggml_backend_buffer_type {
        iface: buffer::interface(),
        device,
        context: ptr::null_mut(),
    }));
    // `get_device` is called while ggml registers.
    // SAFETY: the struct is complete and lives for ever.
    unsafe { (*registry).context = device.cast() };
    // SAFETY: as above.
    unsafe { (*device).context = buffers.cast() };
    // SAFETY: the registry's functions work from here on.
    unsafe { ffi::ggml_backend_register(registry) };
    Ok(Plugin { buffers, cpu })
}

extern "C" fn registry_name(_: ffi::ggml_backend_reg_t) -> *const c_char {
    NAME.as_ptr()
}

extern "C" fn device_count(_: ffi::ggml_backend_reg_t) -> usize {
    1
}

extern "C" fn get_device(registry: ffi::ggml_backend_reg_t, _: usize) -> ffi::ggml_backend_dev_t {
    // SAFETY: ggml passes the registry that was registered; its context is the device.
    unsafe { (*registry).context.cast() }
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
