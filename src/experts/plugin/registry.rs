//! What callbacks need. ggml keeps pointers to our structs for the life of the process.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};

use super::ffi;
use super::node::Node;
use crate::experts::ExpertCache;

thread_local! {
    /// The cache of the model that this thread is loading: llama.cpp asks for buffers on the thread that loads.
    static LOADING: RefCell<Option<Arc<ExpertCache>>> = const { RefCell::new(None) };
}

/// The cache of the model that this thread is loading.
pub(super) fn loading() -> Option<Arc<ExpertCache>> {
    LOADING.with(|loading| loading.borrow().clone())
}

/// Says which cache the model belongs to that this thread is loading.
pub(super) fn set_loading(cache: Option<Arc<ExpertCache>>) {
    LOADING.with(|loading| *loading.borrow_mut() = cache);
}

/// The devices, ours and those that ours compute with.
#[derive(Debug)]
pub(super) struct Plugin {
    pub(super) devices: Vec<ffi::ggml_backend_dev_t>,
    /// The device that computes where there is a GPU; else the store does.
    pub(super) compute: Option<ffi::ggml_backend_dev_t>,
    /// The type of the buffers that hold experts in main memory.
    pub(super) host_buffers: ffi::ggml_backend_buffer_type_t,
    /// ggml's own CPU device: it computes the cold experts, and holds the copies where there is no GPU.
    pub(super) cpu: ffi::ggml_backend_dev_t,
    /// The cache device, if it is a GPU.
    pub(super) gpu: Option<ffi::ggml_backend_dev_t>,
    /// Whether large batches come to us as well: always, but where the CPU waits for a GPU several times in a block.
    pub(super) takes_prefill: bool,
    /// Whether blocks on the GPU go through llama.cpp's own queue. With several GPUs what reads a block might be on another
    /// one, which would not wait for that queue.
    pub(super) queued: bool,
    /// Tokens of a block in that queue that is divided at most.
    pub(super) divided: usize,
}

// SAFETY: the structs behind the pointers are written before the first use and only read afterwards.
unsafe impl Send for Plugin {}
// SAFETY: as above.
unsafe impl Sync for Plugin {}

impl Plugin {
    /// Whether a tensor lies in a buffer of ours.
    pub(super) fn owns(&self, tensor: Node) -> bool {
        tensor.buffer_type() == Some(self.host_buffers)
    }

    /// Where copies are.
    pub(super) fn cache_device(&self) -> ffi::ggml_backend_dev_t {
        self.gpu.unwrap_or(self.cpu)
    }
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

/// The plugin, for callbacks: ggml calls none before there is one.
pub(super) fn registered() -> Option<&'static Plugin> {
    PLUGIN.get()
}

/// The plugin from now on.
pub(super) fn register(plugin: Plugin) -> &'static Plugin {
    PLUGIN.get_or_init(|| plugin)
}
