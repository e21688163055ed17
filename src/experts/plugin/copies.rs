//! Copies of experts on the cache device.

use std::ptr;

use super::block::Block;
use super::ffi::{self, ggml_tensor};
use super::tensors::{Backend, Room, context, expert_dimension, weights_of};

/// Copies of some experts of one layer: for each weight of the block a tensor with as many experts as there are slots, and
/// one more that is all zeros. Experts without a copy are computed with that one: it adds nothing, so that the hot half
/// has the shape of the whole block.
#[derive(Debug)]
pub(super) struct Copies {
    context: *mut ffi::ggml_context,
    room: Room,
    /// The original weights, and their copies.
    tensors: Vec<(*mut ggml_tensor, *mut ggml_tensor)>,
}

// SAFETY: the descriptions are written by `new` alone. Who writes the data of a slot holds it as being filled, who reads it
// holds a pin.
unsafe impl Send for Copies {}
// SAFETY: as above.
unsafe impl Sync for Copies {}

impl Copies {
    /// Room for `slots` experts of a block; `None` when the device has not that much memory.
    ///
    /// # Safety
    /// The block is one of a graph that is being computed; `buffers` is a buffer type.
    pub(super) unsafe fn new(block: &Block, slots: usize, buffers: ffi::ggml_backend_buffer_type_t) -> Option<Self> {
        let mut copies = Self {
            context: ptr::null_mut(),
            room: Room::new(),
            tensors: Vec::new(),
        };
        if slots == 0 {
            return Some(copies);
        }
        let slots = i64::try_from(slots + 1).ok()?;
        // SAFETY: tensors of a graph; a fresh context without data, whose tensors are placed into one fresh buffer.
        unsafe {
            copies.context = context(ptr::null_mut(), 0);
            for weights in block.nodes.iter().filter_map(|node| weights_of(*node)) {
                let [a, b, ..] = (*weights).ne;
                let copy = match expert_dimension(weights) {
                    2 => ffi::ggml_new_tensor_3d(copies.context, (*weights).type_, a, b, slots),
                    _ => ffi::ggml_new_tensor_2d(copies.context, (*weights).type_, a, slots),
                };
                copies.tensors.push((weights, copy));
            }
            let all: Vec<_> = copies.tensors.iter().map(|(_, copy)| *copy).collect();
            copies.room.place(buffers, &all)?;
            copies.room.clear();
        }
        Some(copies)
    }

    /// Copies an expert into a slot, and waits until it is there. With a backend, its queue does it beside others.
    ///
    /// # Safety
    /// The model is loaded, `expert` one of its experts, and `slot` one of the slots that nobody reads.
    pub(super) unsafe fn upload(&self, expert: u32, slot: u32, queue: Option<&Backend>) {
        for (weights, copy) in &self.tensors {
            // SAFETY: expert and slot are in range, and both tensors have the same bytes per expert.
            unsafe {
                let bytes = (**weights).nb[expert_dimension(*weights)];
                let source = (**weights).data.cast::<u8>().add(expert as usize * bytes).cast();
                let offset = slot as usize * bytes;
                match queue {
                    Some(queue) => ffi::ggml_backend_tensor_set_async(queue.get(), *copy, source, offset, bytes),
                    None => ffi::ggml_backend_tensor_set(*copy, source, offset, bytes),
                }
            }
        }
        if let Some(queue) = queue {
            queue.synchronize();
        }
    }

    /// The copies of a weight; `None` without slots.
    pub(super) fn of(&self, weights: *mut ggml_tensor) -> Option<*mut ggml_tensor> {
        let found = self.tensors.iter().find(|(original, _)| *original == weights);
        found.map(|(_, copy)| *copy)
    }

    /// Whether there is any slot.
    pub(super) fn exist(&self) -> bool {
        !self.room.is_empty()
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // SAFETY: made by `new`, or null, which ggml accepts.
        unsafe { ffi::ggml_free(self.context) }
    }
}

/// Bytes of one expert of a block.
///
/// # Safety
/// The block is one of a graph that is being computed.
pub(super) unsafe fn expert_bytes(block: &Block) -> usize {
    // SAFETY: as the caller says.
    unsafe {
        let weights = block.nodes.iter().filter_map(|node| weights_of(*node));
        weights.map(|weights| (*weights).nb[expert_dimension(weights)]).sum()
    }
}
