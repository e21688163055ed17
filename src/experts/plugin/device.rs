//! The device: what it is, and which operations it takes.

use std::ffi::c_char;

use super::{LOADING, NAME, block, buffer, ffi, instance, registered};

pub(super) fn interface() -> ffi::ggml_backend_device_i {
    ffi::ggml_backend_device_i {
        get_name: Some(name),
        get_description: Some(description),
        get_memory: Some(memory),
        get_type: Some(kind),
        get_props: Some(properties),
        init_backend: Some(instance::create),
        get_buffer_type: Some(buffer_type),
        buffer_from_host_ptr: Some(buffer::from_host_pointer),
        supports_op: Some(supports),
        supports_buft: Some(supports_buffers),
        ..Default::default()
    }
}

extern "C" fn name(_: ffi::ggml_backend_dev_t) -> *const c_char {
    NAME.as_ptr()
}

extern "C" fn description(_: ffi::ggml_backend_dev_t) -> *const c_char {
    c"Experts in main memory, the hot ones also on the cache device".as_ptr()
}

extern "C" fn memory(_: ffi::ggml_backend_dev_t, free: *mut usize, total: *mut usize) {
    // Nothing to report: the memory is the system's.
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
    out.caps = ffi::ggml_backend_dev_caps {
        buffer_from_host_ptr: true,
        ..Default::default()
    };
}

extern "C" fn buffer_type(device: ffi::ggml_backend_dev_t) -> ffi::ggml_backend_buffer_type_t {
    // SAFETY: the device that was registered; its context is the buffer type.
    unsafe { (*device).context.cast() }
}

extern "C" fn supports_buffers(_: ffi::ggml_backend_dev_t, buffers: ffi::ggml_backend_buffer_type_t) -> bool {
    // SAFETY: ggml passes a buffer type.
    unsafe { ffi::ggml_backend_buft_is_host(buffers) }
}

extern "C" fn supports(_: ffi::ggml_backend_dev_t, node: *const ffi::ggml_tensor) -> bool {
    let Some(plugin) = registered() else { return false };
    // SAFETY: ggml passes a tensor whose sources, if any, are tensors too.
    unsafe {
        let weights = (*node).src[0];
        if (*node).op == ffi::ggml_op::GGML_OP_MUL_MAT_ID
            && !weights.is_null()
            && !(*weights).buffer.is_null()
            && (*(*weights).buffer).buft == plugin.buffers
            && (*(*weights).buffer).size == 0
        {
            // While a model is loaded llama.cpp asks about a weight with an empty buffer of ours and a large batch.
            return LOADING.with(|loading| loading.borrow().is_some());
        }
        block::belongs(node)
    }
}
