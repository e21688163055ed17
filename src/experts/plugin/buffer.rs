//! Buffers in main memory that hold the weights of experts: buffers of ggml's CPU backend, or of the GPU's pinned memory,
//! under our name.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use parking_lot::Mutex;

use super::ffi;
use super::registry::{loading, registered};
use crate::experts::ExpertCache;

/// Whose weights a buffer holds.
struct Owner {
    cache: Arc<ExpertCache>,
    /// Frees the buffer as its own type does.
    free: Option<unsafe extern "C" fn(ffi::ggml_backend_buffer_t)>,
}

/// By the address of the buffer.
static OWNERS: Mutex<Option<HashMap<usize, Owner>>> = Mutex::new(None);

/// The cache of the model whose weights are in a buffer.
pub(super) fn cache_of(buffer: NonNull<ffi::ggml_backend_buffer>) -> Option<Arc<ExpertCache>> {
    let owners = OWNERS.lock();
    owners
        .as_ref()?
        .get(&(buffer.as_ptr() as usize))
        .map(|owner| owner.cache.clone())
}

pub(super) fn interface() -> ffi::ggml_backend_buffer_type_i {
    ffi::ggml_backend_buffer_type_i {
        get_name: Some(name),
        alloc_buffer: Some(allocate),
        get_alignment: Some(alignment),
        get_max_size: Some(largest),
        is_host: Some(is_host),
        ..Default::default()
    }
}

extern "C" fn name(_: ffi::ggml_backend_buffer_type_t) -> *const c_char {
    c"Hearth_Host".as_ptr()
}

/// The type of the GPU's pinned memory, if there is a GPU that has one.
fn pinned() -> Option<ffi::ggml_backend_buffer_type_t> {
    let gpu = registered()?.gpu?;
    // SAFETY: the GPU's device lives for ever; it may have no such buffers.
    let pinned = unsafe { ffi::ggml_backend_dev_host_buffer_type(gpu) };
    (!pinned.is_null()).then_some(pinned)
}

/// Memory for weights that are read instead of mapped: pinned where the GPU offers that, so that it fetches them faster.
extern "C" fn allocate(ours: ffi::ggml_backend_buffer_type_t, size: usize) -> ffi::ggml_backend_buffer_t {
    // SAFETY: ggml's own buffer types, and a size that they judge.
    let allocate = |buffers| unsafe { NonNull::new(ffi::ggml_backend_buft_alloc_buffer(buffers, size)) };
    let buffer = pinned().and_then(|pinned| {
        let buffer = allocate(pinned);
        if buffer.is_none() {
            tracing::warn!(
                bytes = size,
                "no pinned memory for experts: the GPU fetches them more slowly"
            );
        }
        buffer
    });
    // SAFETY: a function without preconditions.
    adopt(
        ours,
        buffer.or_else(|| allocate(unsafe { ffi::ggml_backend_cpu_buffer_type() })),
    )
}

/// Memory for what is computed on the GPU, of the GPU's own type: llama.cpp's allocator lets later nodes of the GPU take the
/// place of ours, and backends compare the type of a buffer by its address before they queue anything.
pub(super) extern "C" fn of_gpu(_: ffi::ggml_backend_buffer_type_t, size: usize) -> ffi::ggml_backend_buffer_t {
    let Some(gpu) = registered().and_then(|plugin| plugin.gpu) else {
        return ptr::null_mut();
    };
    // SAFETY: the GPU's device lives for ever, and its buffer type judges the size.
    unsafe { ffi::ggml_backend_buft_alloc_buffer(ffi::ggml_backend_dev_buffer_type(gpu), size) }
}

/// The most that is allocated in one piece: llama.cpp then takes several.
extern "C" fn largest(_: ffi::ggml_backend_buffer_type_t) -> usize {
    // SAFETY: one of ggml's own buffer types.
    pinned().map_or(usize::MAX, |pinned| unsafe {
        ffi::ggml_backend_buft_get_max_size(pinned)
    })
}

/// A buffer over memory that llama.cpp has mapped from the model's file: the weights are not copied.
pub(super) extern "C" fn from_host_pointer(
    _: ffi::ggml_backend_dev_t,
    pointer: *mut c_void,
    size: usize,
    _: usize,
) -> ffi::ggml_backend_buffer_t {
    let Some(plugin) = registered() else {
        return ptr::null_mut();
    };
    // SAFETY: the caller vouches for the memory.
    let buffer = unsafe { ffi::ggml_backend_cpu_buffer_from_ptr(pointer, size) };
    adopt(plugin.host_buffers, NonNull::new(buffer))
}

/// Gives a buffer our type, and remembers whose weights it holds.
fn adopt(
    ours: ffi::ggml_backend_buffer_type_t,
    buffer: Option<NonNull<ffi::ggml_backend_buffer>>,
) -> ffi::ggml_backend_buffer_t {
    let buffer = buffer.map_or(ptr::null_mut(), NonNull::as_ptr);
    if buffer.is_null() {
        return buffer;
    }
    if let Some(cache) = loading() {
        // SAFETY: a fresh buffer, which nobody else knows.
        let free = unsafe { (*buffer).iface.free_buffer.replace(forget) };
        OWNERS
            .lock()
            .get_or_insert_default()
            .insert(buffer as usize, Owner { cache, free });
    }
    // SAFETY: as above.
    unsafe { (*buffer).buft = ours };
    buffer
}

/// The model is being dropped: nothing reads its weights any more.
extern "C" fn forget(buffer: ffi::ggml_backend_buffer_t) {
    let owner = OWNERS
        .lock()
        .as_mut()
        .and_then(|owners| owners.remove(&(buffer as usize)));
    if let Some(owner) = owner {
        owner.cache.close();
        if let Some(free) = owner.free {
            // SAFETY: the buffer's own function.
            unsafe { free(buffer) }
        }
    }
}

extern "C" fn alignment(_: ffi::ggml_backend_buffer_type_t) -> usize {
    // SAFETY: ggml's own buffer type.
    unsafe { ffi::ggml_backend_buft_get_alignment(ffi::ggml_backend_cpu_buffer_type()) }
}

extern "C" fn is_host(_: ffi::ggml_backend_buffer_type_t) -> bool {
    true
}
