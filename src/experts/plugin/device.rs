//! The devices: what they are, and which operations they take.
//!
//! *Store* owns the weights of routed experts in main memory; without a GPU it also computes, beside ggml's CPU backend.
//! With a GPU there is *compute* before it, whose buffers are the GPU's under another address: the scheduler copies nothing
//! between the two, and yet keeps their nodes apart.

use std::ffi::c_char;

use super::node::Node;
use super::registry::{Plugin, loading, registered};
use super::{block, buffer, ffi, instance};

pub(super) fn store() -> ffi::ggml_backend_device_i {
    ffi::ggml_backend_device_i {
        get_name: Some(name),
        get_description: Some(description),
        get_memory: Some(memory),
        get_type: Some(kind),
        get_props: Some(store_properties),
        init_backend: Some(instance::create),
        get_buffer_type: Some(buffer_type),
        buffer_from_host_ptr: Some(buffer::from_host_pointer),
        supports_op: Some(store_supports),
        supports_buft: Some(store_reads),
        ..Default::default()
    }
}

pub(super) fn compute() -> ffi::ggml_backend_device_i {
    ffi::ggml_backend_device_i {
        get_props: Some(properties),
        buffer_from_host_ptr: None,
        supports_op: Some(compute_supports),
        supports_buft: Some(compute_reads),
        ..store()
    }
}

extern "C" fn name(device: ffi::ggml_backend_dev_t) -> *const c_char {
    if registered().is_some_and(|plugin| plugin.compute == Some(device)) {
        c"Hearth".as_ptr()
    } else {
        c"Hearth_Host".as_ptr()
    }
}

extern "C" fn description(_: ffi::ggml_backend_dev_t) -> *const c_char {
    c"Experts in main memory, the hot ones also on the cache device".as_ptr()
}

extern "C" fn memory(_: ffi::ggml_backend_dev_t, free: *mut usize, total: *mut usize) {
    // Nothing to report: the memory is the system's, or another device's.
    // SAFETY: ggml passes places to write to.
    unsafe {
        *free = 0;
        *total = 0;
    }
}

extern "C" fn kind(_: ffi::ggml_backend_dev_t) -> ffi::ggml_backend_dev_type::Type {
    ffi::ggml_backend_dev_type::GGML_BACKEND_DEVICE_TYPE_ACCEL
}

extern "C" fn properties(device: ffi::ggml_backend_dev_t, out: *mut ffi::ggml_backend_dev_props) {
    // SAFETY: ggml passes a place to write to.
    let out = unsafe { &mut *out };
    out.name = name(device);
    out.description = description(device);
    out.memory_free = 0;
    out.memory_total = 0;
    out.type_ = kind(device);
    out.device_id = std::ptr::null();
    out.caps = ffi::ggml_backend_dev_caps::default();
}

extern "C" fn store_properties(device: ffi::ggml_backend_dev_t, out: *mut ffi::ggml_backend_dev_props) {
    properties(device, out);
    // SAFETY: ggml passes a place to write to.
    unsafe { (*out).caps.buffer_from_host_ptr = true };
}

extern "C" fn buffer_type(device: ffi::ggml_backend_dev_t) -> ffi::ggml_backend_buffer_type_t {
    // SAFETY: a device that was registered; its context is the buffer type.
    unsafe { (*device).context.cast() }
}

extern "C" fn store_reads(_: ffi::ggml_backend_dev_t, buffers: ffi::ggml_backend_buffer_type_t) -> bool {
    // SAFETY: ggml passes a buffer type.
    unsafe { ffi::ggml_backend_buft_is_host(buffers) }
}

/// The store's buffers, its own, and those of the GPU that they are an alias of. Not the latter where blocks are queued: then
/// llama.cpp offers each input, and with it its queue.
extern "C" fn compute_reads(device: ffi::ggml_backend_dev_t, buffers: ffi::ggml_backend_buffer_type_t) -> bool {
    let Some(plugin) = registered() else { return false };
    // SAFETY: ggml passes a buffer type; the GPU's device lives for ever.
    unsafe {
        buffers == plugin.host_buffers
            || buffers == buffer_type(device)
            || !plugin.queued
                && plugin
                    .gpu
                    .is_some_and(|gpu| buffers == ffi::ggml_backend_dev_buffer_type(gpu))
    }
}

extern "C" fn store_supports(_: ffi::ggml_backend_dev_t, node: *const ffi::ggml_tensor) -> bool {
    // SAFETY: ggml passes a tensor whose sources, if any, are tensors too.
    let node = unsafe { Node::new(node) };
    let supports = |plugin, node| match is_question(node) {
        true => is_ours(plugin, node),
        false => block::belongs(node),
    };
    registered()
        .zip(node)
        .is_some_and(|(plugin, node)| supports(plugin, node))
}

extern "C" fn compute_supports(_: ffi::ggml_backend_dev_t, node: *const ffi::ggml_tensor) -> bool {
    // SAFETY: ggml passes a tensor whose sources, if any, are tensors too.
    let node = unsafe { Node::new(node) };
    node.is_some_and(|node| !is_question(node) && block::belongs(node))
}

/// While a model is loaded llama.cpp asks about a weight with an empty buffer of ours.
fn is_question(node: Node) -> bool {
    node.expert_weights().is_some_and(Node::is_unplaced)
}

/// Whether a weight that llama.cpp asks about is the store's: those of the model that [`load_with`](super::load_with) loads
/// are. It is decided here, once.
fn is_ours(plugin: &Plugin, node: Node) -> bool {
    // Scales, a number per expert, are none of ours: a GPU could not read them in main memory.
    let ours = |weights: Node| plugin.owns(weights) && weights.size(1) > 1;
    node.expert_weights().is_some_and(ours) && loading().is_some()
}
