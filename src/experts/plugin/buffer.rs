//! Buffers in main memory that hold the weights of experts: ggml's own CPU buffers under our name.

use std::ffi::{c_char, c_void};

use super::{BUFFERS, LOADING, NAME, ffi, registered};

pub(super) fn interface() -> ffi::ggml_backend_buffer_type_i {
    ffi::ggml_backend_buffer_type_i {
        get_name: Some(name),
        alloc_buffer: Some(allocate),
        get_alignment: Some(alignment),
        is_host: Some(is_host),
        ..Default::default()
    }
}

extern "C" fn name(_: ffi::ggml_backend_buffer_type_t) -> *const c_char {
    NAME.as_ptr()
}

extern "C" fn allocate(ours: ffi::ggml_backend_buffer_type_t, size: usize) -> ffi::ggml_backend_buffer_t {
    // SAFETY: ggml's own buffer type, and a size that it judges.
    let buffer = unsafe { ffi::ggml_backend_buft_alloc_buffer(ffi::ggml_backend_cpu_buffer_type(), size) };
    adopt(ours, buffer)
}

/// A buffer over memory that llama.cpp has mapped from the model's file: the weights are not copied.
pub(super) extern "C" fn from_host_pointer(
    _: ffi::ggml_backend_dev_t,
    pointer: *mut c_void,
    size: usize,
    _: usize,
) -> ffi::ggml_backend_buffer_t {
    let Some(plugin) = registered() else {
        return std::ptr::null_mut();
    };
    // SAFETY: the caller vouches for the memory.
    let buffer = unsafe { ffi::ggml_backend_cpu_buffer_from_ptr(pointer, size) };
    adopt(plugin.buffers, buffer)
}

/// Gives a CPU buffer our type, and remembers whose weights it holds.
fn adopt(ours: ffi::ggml_backend_buffer_type_t, buffer: ffi::ggml_backend_buffer_t) -> ffi::ggml_backend_buffer_t {
    if buffer.is_null() {
        return buffer;
    }
    // SAFETY: a fresh buffer, which nobody else knows.
    unsafe { (*buffer).buft = ours };
    if let Some(cache) = LOADING.with(|loading| loading.borrow().clone()) {
        BUFFERS.lock().get_or_insert_default().insert(buffer as usize, cache);
    }
    buffer
}

extern "C" fn alignment(_: ffi::ggml_backend_buffer_type_t) -> usize {
    // SAFETY: ggml's own buffer type.
    unsafe { ffi::ggml_backend_buft_get_alignment(ffi::ggml_backend_cpu_buffer_type()) }
}

extern "C" fn is_host(_: ffi::ggml_backend_buffer_type_t) -> bool {
    true
}
