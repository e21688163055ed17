//! Small helpers around ggml's tensors.

use std::ffi::c_void;
use std::ptr;

use super::ffi::{self, ggml_op, ggml_tensor};

/// Tensors of a rebuilt block.
pub(super) const MOST_NODES: usize = 48;

/// `GGML_TENSOR_FLAG_COMPUTE`: nodes without it are skipped.
pub(super) const COMPUTE: i32 = ffi::ggml_tensor_flag::GGML_TENSOR_FLAG_COMPUTE.cast_signed();

/// The weights or biases of a node, one part per expert.
///
/// # Safety
/// `node` is a node of a block.
pub(super) unsafe fn weights_of(node: *mut ggml_tensor) -> Option<*mut ggml_tensor> {
    // SAFETY: as the caller says.
    unsafe {
        match (*node).op {
            ggml_op::GGML_OP_MUL_MAT_ID => Some((*node).src[0]),
            ggml_op::GGML_OP_ADD_ID => Some((*node).src[1]),
            _ => None,
        }
    }
}

/// The dimension that counts experts: matrices have one more than biases.
///
/// # Safety
/// `weights` is a tensor of weights or biases.
pub(super) unsafe fn expert_dimension(weights: *mut ggml_tensor) -> usize {
    // SAFETY: as the caller says.
    if unsafe { (*weights).ne[2] } > 1 { 2 } else { 1 }
}

/// Bytes of a tensor in a buffer, with what keeps the next one aligned.
///
/// # Safety
/// Both are ggml's.
pub(super) unsafe fn padded(buffers: ffi::ggml_backend_buffer_type_t, tensor: *const ggml_tensor) -> usize {
    // SAFETY: as the caller says.
    unsafe {
        let alignment = ffi::ggml_backend_buft_get_alignment(buffers).max(1);
        ffi::ggml_backend_buft_get_alloc_size(buffers, tensor).next_multiple_of(alignment)
    }
}

/// A ggml context for descriptions of tensors, without their data; in `memory`, or in memory of its own if that is null.
///
/// # Safety
/// `memory` is null or has `size` bytes.
pub(super) unsafe fn context(memory: *mut c_void, size: usize) -> *mut ffi::ggml_context {
    let size = if memory.is_null() { context_size() } else { size };
    // SAFETY: as the caller says.
    unsafe {
        ffi::ggml_init(ffi::ggml_init_params {
            mem_size: size,
            mem_buffer: memory,
            no_alloc: true,
        })
    }
}

/// Bytes that a rebuilt block and its graph take.
pub(super) fn context_size() -> usize {
    // SAFETY: functions without preconditions.
    unsafe { ffi::ggml_tensor_overhead() * MOST_NODES + ffi::ggml_graph_overhead_custom(MOST_NODES, false) }
}

/// A backend of ggml, freed with this.
#[derive(Debug)]
pub(super) struct Backend(ffi::ggml_backend_t);

impl Backend {
    /// # Safety
    /// `device` is a device of ggml's registry.
    pub(super) unsafe fn new(device: ffi::ggml_backend_dev_t) -> Option<Self> {
        // SAFETY: as the caller says.
        let backend = unsafe { ffi::ggml_backend_dev_init(device, ptr::null()) };
        (!backend.is_null()).then_some(Self(backend))
    }

    pub(super) fn get(&self) -> ffi::ggml_backend_t {
        self.0
    }

    /// The type of its own memory.
    pub(super) fn buffers(&self) -> ffi::ggml_backend_buffer_type_t {
        // SAFETY: a live backend.
        unsafe { ffi::ggml_backend_get_default_buffer_type(self.0) }
    }

    pub(super) fn synchronize(&self) {
        // SAFETY: a live backend.
        unsafe { ffi::ggml_backend_synchronize(self.0) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { ffi::ggml_backend_free(self.0) }
    }
}

/// A buffer of a device that only grows.
#[derive(Debug)]
pub(super) struct Room(*mut ffi::ggml_backend_buffer);

impl Room {
    pub(super) const fn new() -> Self {
        Self(ptr::null_mut())
    }

    /// Gives tensors their places, one after the other.
    ///
    /// # Safety
    /// The tensors have no data yet, nothing that uses this room is being computed, `buffers` is always the same type.
    pub(super) unsafe fn place(
        &mut self,
        buffers: ffi::ggml_backend_buffer_type_t,
        tensors: &[*mut ggml_tensor],
    ) -> Option<()> {
        // SAFETY: as the caller says; the buffer is made large enough first.
        unsafe {
            let size = tensors.iter().map(|tensor| padded(buffers, *tensor)).sum();
            if self.0.is_null() || ffi::ggml_backend_buffer_get_size(self.0) < size {
                ffi::ggml_backend_buffer_free(self.0);
                self.0 = ffi::ggml_backend_buft_alloc_buffer(buffers, size);
                if self.0.is_null() {
                    return None;
                }
            }
            let mut place = ffi::ggml_backend_buffer_get_base(self.0).cast::<u8>();
            for tensor in tensors {
                ffi::ggml_backend_tensor_alloc(self.0, *tensor, place.cast());
                place = place.add(padded(buffers, *tensor));
            }
        }
        Some(())
    }

    /// Zeros everything.
    ///
    /// # Safety
    /// Nothing that uses this room is being computed.
    pub(super) unsafe fn clear(&mut self) {
        if !self.0.is_null() {
            // SAFETY: as the caller says.
            unsafe { ffi::ggml_backend_buffer_clear(self.0, 0) }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_null()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: its own buffer, or null, which ggml accepts.
        unsafe { ffi::ggml_backend_buffer_free(self.0) }
    }
}
