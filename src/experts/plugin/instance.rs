//! The backend of one context: computes the nodes that llama.cpp's scheduler gives it.

use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::backend::Backend;
use super::ffi::{self, ggml_status};
use super::halves::Halves;
use super::in_memory::InMemory;
use super::node::{Node, nodes_of};
use super::queued::Queue;
use super::registry::registered;

/// What one context computes with.
struct Instance {
    halves: Halves,
    /// llama.cpp's own queue of the GPU, where blocks go through that.
    queue: Option<Queue>,
    /// Graphs that were looked at, without a GPU.
    seen: InMemory,
}

/// Tells our backends apart from others.
static GUID: [u8; 16] = *b"hearth experts 1";

pub(super) extern "C" fn create(device: ffi::ggml_backend_dev_t, _: *const c_char) -> ffi::ggml_backend_t {
    let Some(plugin) = registered() else {
        return std::ptr::null_mut();
    };
    // The store computes in main memory; where there is a device before it, it is never asked to.
    let on_gpu = plugin.compute == Some(device);
    let cache_device = if on_gpu { plugin.cache_device() } else { plugin.cpu };
    // SAFETY: devices of ggml's registry; each instance has backends of its own.
    let (Some(cold), Some(hot)) = (unsafe { (Backend::new(plugin.cpu), Backend::new(cache_device)) }) else {
        return std::ptr::null_mut();
    };
    let gpu = plugin.gpu.filter(|_| on_gpu && plugin.queued);
    // SAFETY: a device of ggml's registry.
    let queue = gpu.map(|gpu| unsafe { Queue::new(gpu) });
    let instance = Box::new(Instance {
        halves: Halves::new(cold, hot, on_gpu),
        queue,
        seen: InMemory::default(),
    });
    Box::into_raw(Box::new(ffi::ggml_backend {
        guid: (&raw const GUID).cast_mut(),
        iface: ffi::ggml_backend_i {
            get_name: Some(name),
            free: Some(free),
            graph_compute: Some(compute),
            cpy_tensor_async: Some(take_input),
            ..Default::default()
        },
        device,
        context: Box::into_raw(instance).cast(),
    }))
}

extern "C" fn name(backend: ffi::ggml_backend_t) -> *const c_char {
    // SAFETY: ggml passes a backend of ours, whose device is registered.
    unsafe { ffi::ggml_backend_dev_name((*backend).device) }
}

extern "C" fn free(backend: ffi::ggml_backend_t) {
    // SAFETY: made by `create`, and freed once.
    unsafe {
        let backend = Box::from_raw(backend);
        let mut instance = Box::from_raw(backend.context.cast::<Instance>());
        if let Some(queue) = &mut instance.queue {
            queue.end(&mut instance.halves);
        }
    }
}

/// llama.cpp asks for this function by name, and tells every backend how many threads to use.
pub(super) extern "C" fn set_threads(backend: ffi::ggml_backend_t, threads: c_int) {
    // SAFETY: llama.cpp passes a backend of ours.
    let instance = unsafe { &*(*backend).context.cast::<Instance>() };
    instance.halves.cold.backend.set_threads(threads);
    instance.halves.hot.backend.set_threads(threads);
}

extern "C" fn compute(backend: ffi::ggml_backend_t, graph: *mut ffi::ggml_cgraph) -> ggml_status::Type {
    // SAFETY: ggml computes on one thread at a time per backend.
    let instance = unsafe { &mut *(*backend).context.cast::<Instance>() };
    // SAFETY: ggml passes a graph whose sources are complete, and which stays until this returns.
    let result = catch_unwind(AssertUnwindSafe(|| unsafe { instance.compute(graph) }));
    match result {
        Ok(Some(())) => ggml_status::GGML_STATUS_SUCCESS,
        _ => ggml_status::GGML_STATUS_FAILED,
    }
}

/// llama.cpp offers to let us copy an input of the next graph.
extern "C" fn take_input(
    from_backend: ffi::ggml_backend_t,
    backend: ffi::ggml_backend_t,
    from: *const ffi::ggml_tensor,
    to: *mut ffi::ggml_tensor,
) -> bool {
    // SAFETY: ggml passes a backend of ours as the second one, and tensors.
    unsafe {
        let instance = &mut *(*backend).context.cast::<Instance>();
        let (Some(from), Some(to), Some(queue)) = (Node::new(from), Node::new(to), &mut instance.queue) else {
            return false;
        };
        queue.take_input(from_backend, from, to)
    }
}

impl Instance {
    /// # Safety
    /// `graph` is a graph whose sources are complete, and nobody else computes with it.
    unsafe fn compute(&mut self, graph: *mut ffi::ggml_cgraph) -> Option<()> {
        // SAFETY: as the caller says; llama.cpp offered the inputs before.
        unsafe {
            let nodes = nodes_of(graph);
            // Of a batch that wants no logits, the last layer is computed for no token.
            if nodes.iter().all(|node| node.is_view() || node.is_empty()) {
                return Some(());
            }
            let done = match &mut self.queue {
                Some(queue) => queue.compute(&mut self.halves, nodes)?,
                None if !self.halves.on_gpu => self.seen.compute(&mut self.halves, graph, nodes)?,
                None => false,
            };
            match done {
                true => Some(()),
                false => self.halves.compute(graph, nodes),
            }
        }
    }
}
