//! The ggml backend: tables of functions, and what they share.
//!
//! Its devices are of the kind ACCEL: llama.cpp adds such devices to every context by itself and offers them every weight
//! that it would put into main memory; ours take the weights of routed experts of the models that [`load_with`] loads, and
//! no others. See `device.rs` for the two designs, with and without a GPU.
#![allow(unsafe_code)]

mod block;
mod buffer;
mod cold;
mod copies;
mod device;
mod ffi;
mod hot;
mod instance;
mod layer;
mod tensors;

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::ExpertCache;
use super::settings::Device;

pub(super) use layer::{Layer, LayerState, Uploader};

thread_local! {
    /// The cache of the model that this thread is loading: llama.cpp asks for buffers on the thread that loads.
    static LOADING: RefCell<Option<Arc<ExpertCache>>> = const { RefCell::new(None) };
}

/// Runs `load`, which loads a model on this thread; the weights of its experts come to `cache`. The caller adds
/// `add_cpu_moe_override` to the model's parameters.
///
/// # Errors
/// When ggml has no CPU device.
pub fn load_with<T>(cache: &Arc<ExpertCache>, load: impl FnOnce() -> T) -> Result<T, String> {
    let plugin = plugin(cache.device())?;
    if matches!(cache.device(), Device::Gpu(_)) && plugin.gpu.is_none() {
        tracing::warn!("copies of experts stay in main memory: no GPU was found, or another model chose so before");
    }
    LOADING.with(|loading| *loading.borrow_mut() = Some(cache.clone()));
    let result = load();
    LOADING.with(|loading| *loading.borrow_mut() = None);
    Ok(result)
}

/// What callbacks need. ggml keeps pointers to our structs for the life of the process.
struct Plugin {
    devices: Vec<ffi::ggml_backend_dev_t>,
    /// The device that computes where there is a GPU; else the store does.
    compute: Option<ffi::ggml_backend_dev_t>,
    /// The type of the buffers that hold experts in main memory.
    host_buffers: ffi::ggml_backend_buffer_type_t,
    /// ggml's own CPU device: it computes the cold experts, and holds the copies where there is no GPU.
    cpu: ffi::ggml_backend_dev_t,
    /// The cache device, if it is a GPU.
    gpu: Option<ffi::ggml_backend_dev_t>,
    /// Whether large batches come to us as well: without a GPU nobody would compute them faster, and we learn from them.
    takes_prefill: bool,
}

// SAFETY: the structs behind the pointers are written before the first use and only read afterwards.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

impl Plugin {
    /// Whether a tensor lies in a buffer of ours.
    ///
    /// # Safety
    /// `tensor` is null or a tensor.
    unsafe fn owns(&self, tensor: *const ffi::ggml_tensor) -> bool {
        // SAFETY: as the caller says.
        unsafe { !tensor.is_null() && !(*tensor).buffer.is_null() && (*(*tensor).buffer).buft == self.host_buffers }
    }

    /// Where copies are.
    fn cache_device(&self) -> ffi::ggml_backend_dev_t {
        self.gpu.unwrap_or(self.cpu)
    }
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

/// The plugin, for callbacks: ggml calls none before there is one.
fn registered() -> Option<&'static Plugin> {
    PLUGIN.get()
}

/// Registers the backend at the first call, which decides about the cache device.
fn plugin(wanted: Device) -> Result<&'static Plugin, String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    if let Some(plugin) = PLUGIN.get() {
        return Ok(plugin);
    }
    let (plugin, registry) = build(wanted)?;
    let plugin = PLUGIN.get_or_init(|| plugin);
    // SAFETY: the structs are complete and live for ever.
    unsafe { ffi::ggml_backend_register(registry) };
    Ok(plugin)
}

fn build(wanted: Device) -> Result<(Plugin, ffi::ggml_backend_reg_t), String> {
    use ffi::ggml_backend_dev_type::GGML_BACKEND_DEVICE_TYPE_IGPU as INTEGRATED;
    use ffi::ggml_backend_dev_type::{GGML_BACKEND_DEVICE_TYPE_CPU as CPU, GGML_BACKEND_DEVICE_TYPE_GPU as GPU};
    // SAFETY: asks ggml's registry, which is made at its first use.
    let (cpu, gpus) = unsafe {
        let devices = (0..ffi::ggml_backend_dev_count()).map(|index| ffi::ggml_backend_dev_get(index));
        let gpus = devices.filter(|device| matches!(ffi::ggml_backend_dev_type(*device), GPU | INTEGRATED));
        (ffi::ggml_backend_dev_by_type(CPU), gpus.collect::<Vec<_>>())
    };
    if cpu.is_null() {
        return Err("ggml has no CPU device".into());
    }
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
            let alias = Box::into_raw(Box::new(ptr::read(ffi::ggml_backend_dev_buffer_type(gpu))));
            (*compute).context = alias.cast();
        }
        compute
    });
    let plugin = Plugin {
        // The one that computes stands first: the scheduler prefers it.
        devices: compute.into_iter().chain([store]).collect(),
        compute,
        host_buffers,
        cpu,
        gpu,
        takes_prefill: gpus.is_empty(),
    };
    Ok((plugin, registry))
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
