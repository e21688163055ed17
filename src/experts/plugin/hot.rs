//! The hot half of a block: on the cache device, straight on the tensors of the main graph.
//!
//! The nodes of the block are rebuilt over the same memory, with the copies in the place of the weights and slots in the
//! place of expert numbers. Experts without a copy go to the slot of zeros, and leave rows of zeros behind, which the cold
//! half replaces.

use std::collections::HashMap;

use super::block::Block;
use super::copies::Copies;
use super::ffi::{self, ggml_op, ggml_tensor, ggml_type};
use super::tensors::{Backend, COMPUTE, Room, context, context_size, weights_of};

/// Graphs that are kept at most; more would mean that their keys are not what they should be.
const MOST_GRAPHS: usize = 4096;

/// One queue of the cache device.
#[derive(Debug)]
pub(super) struct Hot {
    pub(super) backend: Backend,
    /// Descriptions of rebuilt blocks, by layer and tokens: backends that remember graphs (CUDA) know them by their
    /// addresses.
    graphs: HashMap<(u32, usize), Box<[u64]>>,
    /// The slots that the current graph reads.
    ids: Room,
    slots: Vec<i32>,
}

impl Hot {
    pub(super) fn new(backend: Backend) -> Self {
        Self {
            backend,
            graphs: HashMap::new(),
            ids: Room::new(),
            slots: Vec::new(),
        }
    }

    /// Starts to compute the experts of a block that have a copy. `slots` are those of the selected experts, token by token;
    /// the others count as slot `zero`.
    ///
    /// # Safety
    /// The block is one of the graph that is being computed, its sources are complete and lie on this device, the slots are
    /// pinned, and what was started before is finished.
    pub(super) unsafe fn start(
        &mut self,
        block: &Block,
        layer: u32,
        copies: &Copies,
        slots: &[Option<u32>],
        zero: usize,
    ) -> Option<()> {
        let zero = i32::try_from(zero).ok()?;
        self.slots.clear();
        self.slots.extend(
            slots
                .iter()
                .map(|slot| slot.and_then(|slot| i32::try_from(slot).ok()).unwrap_or(zero)),
        );
        if self.graphs.len() > MOST_GRAPHS {
            self.graphs.clear();
        }
        let memory = self
            .graphs
            .entry((layer, slots.len()))
            .or_insert_with(|| vec![0; context_size().div_ceil(8)].into());
        // SAFETY: fresh descriptions over tensors of the graph; the ids get a place of their own first.
        unsafe {
            let context = context(memory.as_mut_ptr().cast(), memory.len() * 8);
            let [per_token, tokens, ..] = (*block.ids).ne;
            let ids = ffi::ggml_new_tensor_2d(context, ggml_type::GGML_TYPE_I32, per_token, tokens);
            self.ids.place(self.backend.buffers(), &[ids])?;
            let bytes = self.slots.len() * 4;
            ffi::ggml_backend_tensor_set_async(self.backend.get(), ids, self.slots.as_ptr().cast(), 0, bytes);
            let graph = ffi::ggml_new_graph_custom(context, super::tensors::MOST_NODES, false);
            let mut made: Vec<(*mut ggml_tensor, *mut ggml_tensor)> = Vec::with_capacity(block.nodes.len());
            for node in &block.sequence {
                let node = *node;
                if !block.nodes.contains(&node) {
                    // Scales are gathered by the numbers of experts: as the main graph would.
                    ffi::ggml_graph_add_node(graph, node);
                    continue;
                }
                let twin = |of: *mut ggml_tensor| made.iter().find(|(old, _)| *old == of).map_or(of, |(_, new)| *new);
                let new = ffi::ggml_new_tensor_4d(
                    context,
                    (*node).type_,
                    (*node).ne[0],
                    (*node).ne[1],
                    (*node).ne[2],
                    (*node).ne[3],
                );
                (*new).nb = (*node).nb;
                (*new).data = (*node).data;
                (*new).buffer = (*node).buffer;
                (*new).extra = (*node).extra;
                (*new).op = (*node).op;
                (*new).op_params = (*node).op_params;
                (*new).flags |= COMPUTE;
                (*new).view_offs = (*node).view_offs;
                (*new).view_src = twin((*node).view_src);
                (*new).src = (*node).src.map(twin);
                match (*node).op {
                    ggml_op::GGML_OP_MUL_MAT_ID => {
                        (*new).src[0] = copies.of(weights_of(node)?)?;
                        (*new).src[2] = ids;
                    }
                    ggml_op::GGML_OP_ADD_ID => {
                        (*new).src[1] = copies.of(weights_of(node)?)?;
                        (*new).src[2] = ids;
                    }
                    _ => {}
                }
                made.push((node, new));
                ffi::ggml_graph_add_node(graph, new);
            }
            let status = ffi::ggml_backend_graph_compute_async(self.backend.get(), graph);
            (status == ffi::ggml_status::GGML_STATUS_SUCCESS).then_some(())
        }
    }

    /// Writes bytes of a tensor of the main graph, in the order of this queue: behind what was started. They must stay where
    /// they are until the queue is synchronized.
    ///
    /// # Safety
    /// The tensor lies on this device, and `offset..offset + bytes.len()` within it.
    pub(super) unsafe fn write(&self, tensor: *mut ggml_tensor, offset: usize, bytes: &[u8]) {
        // SAFETY: as the caller says. Backends compare the buffer's type by its address before they queue anything, and do
        // not know our alias: for this call alone the tensor is described as lying in a buffer of their own type.
        unsafe {
            let mut tensor = std::ptr::read(tensor);
            let owner = if tensor.view_src.is_null() {
                tensor.buffer
            } else {
                (*tensor.view_src).buffer
            };
            let mut buffer = std::ptr::read(owner);
            buffer.buft = self.backend.buffers();
            tensor.buffer = &raw mut buffer;
            // Its data already begins where the view does.
            tensor.view_src = std::ptr::null_mut();
            tensor.view_offs = 0;
            let source = bytes.as_ptr().cast();
            ffi::ggml_backend_tensor_set_async(self.backend.get(), &raw mut tensor, source, offset, bytes.len());
        }
    }
}
