//! The cold half of a block: the experts without a copy, on the CPU, with the weights where they lie.
//!
//! The nodes of the block are rebuilt with one row per (token, expert) pair instead of [experts per token, tokens]: the
//! input rows are gathered, and the results are one row per pair.

use super::block::Block;
use super::ffi::{self, ggml_op, ggml_tensor, ggml_type};
use super::tensors::{Backend, COMPUTE, MOST_NODES, Room, context, context_size, weights_of};

/// One token and one of its experts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) expert: i32,
    /// Which of the token's experts it is, counted over all tokens: its row in the block's result.
    pub(super) row: usize,
    /// The token's input, in main memory.
    pub(super) input: *const u8,
}

/// ggml's CPU backend, and memory for what it computes.
#[derive(Debug)]
pub(super) struct Cold {
    pub(super) backend: Backend,
    room: Room,
    descriptions: Vec<u64>,
    rows: Vec<u8>,
    ids: Vec<i32>,
}

impl Cold {
    pub(super) fn new(backend: Backend) -> Self {
        Self {
            backend,
            room: Room::new(),
            descriptions: vec![0; context_size().div_ceil(8)],
            rows: Vec::new(),
            ids: Vec::new(),
        }
    }

    /// Computes the pairs, and returns a row for each, in their order.
    ///
    /// # Safety
    /// The block is one of the graph that is being computed; the inputs of the pairs are complete, and their experts exist.
    pub(super) unsafe fn compute(&mut self, block: &Block, pairs: &[Pair]) -> Option<&[u8]> {
        let count = i64::try_from(pairs.len()).ok()?;
        let size = self.descriptions.len() * 8;
        // SAFETY: tensors of the graph on the one hand, fresh descriptions on the other; each gets its place in a buffer
        // that is large enough before anything is computed.
        unsafe {
            let context = context(self.descriptions.as_mut_ptr().cast(), size);
            let width = (*block.input).ne[0];
            let input = ffi::ggml_new_tensor_3d(context, ggml_type::GGML_TYPE_F32, width, 1, count);
            let ids = ffi::ggml_new_tensor_2d(context, ggml_type::GGML_TYPE_I32, 1, count);
            let mut placed = vec![input, ids];
            let mut views = Vec::new();
            let mut made: Vec<(*mut ggml_tensor, *mut ggml_tensor)> = vec![(block.input, input)];
            for factor in &block.factors {
                let twin = ffi::ggml_new_tensor_3d(context, ggml_type::GGML_TYPE_F32, 1, 1, count);
                placed.push(twin);
                made.push((factor.selected, twin));
            }
            let graph = ffi::ggml_new_graph_custom(context, MOST_NODES, false);
            for node in &block.nodes {
                let node = *node;
                let twin = |of: *mut ggml_tensor| made.iter().find(|(old, _)| *old == of).map(|(_, new)| *new);
                let new = if (*node).op == ggml_op::GGML_OP_VIEW {
                    let whole = twin((*node).view_src)?;
                    let (row, matrix) = ((*whole).nb[1], (*whole).nb[2]);
                    let new =
                        ffi::ggml_view_3d(context, whole, (*node).ne[0], 1, count, row, matrix, (*node).view_offs);
                    views.push(new);
                    new
                } else {
                    let new = ffi::ggml_new_tensor_3d(context, (*node).type_, (*node).ne[0], 1, count);
                    (*new).op = (*node).op;
                    (*new).op_params = (*node).op_params;
                    (*new).flags |= COMPUTE;
                    let [a, b, ..] = (*node).src;
                    match (*node).op {
                        ggml_op::GGML_OP_MUL_MAT_ID => {
                            (&mut (*new).src)[..3].copy_from_slice(&[weights_of(node)?, twin(b)?, ids]);
                        }
                        ggml_op::GGML_OP_ADD_ID => {
                            (&mut (*new).src)[..3].copy_from_slice(&[twin(a)?, weights_of(node)?, ids]);
                        }
                        _ => {
                            (*new).src[0] = twin(a)?;
                            (*new).src[1] = if b.is_null() { b } else { twin(b)? };
                        }
                    }
                    placed.push(new);
                    new
                };
                made.push((node, new));
                ffi::ggml_graph_add_node(graph, new);
            }
            self.room.place(self.backend.buffers(), &placed)?;
            for view in views {
                ffi::ggml_backend_view_init(view);
            }
            let row = usize::try_from(width).ok()? * 4;
            self.rows.clear();
            self.ids.clear();
            for pair in pairs {
                self.rows.extend_from_slice(std::slice::from_raw_parts(pair.input, row));
                self.ids.push(pair.expert);
            }
            ffi::ggml_backend_tensor_set(input, self.rows.as_ptr().cast(), 0, self.rows.len());
            ffi::ggml_backend_tensor_set(ids, self.ids.as_ptr().cast(), 0, self.ids.len() * 4);
            for (factor, twin) in block.factors.iter().zip(&placed[2..]) {
                for (at, pair) in pairs.iter().enumerate() {
                    let mut scale = 0.0f32;
                    let place = usize::try_from(pair.expert).ok()? * 4;
                    ffi::ggml_backend_tensor_get(factor.all, (&raw mut scale).cast(), place, 4);
                    ffi::ggml_backend_tensor_set(*twin, (&raw const scale).cast(), at * 4, 4);
                }
            }
            let status = ffi::ggml_backend_graph_compute(self.backend.get(), graph);
            if status != ffi::ggml_status::GGML_STATUS_SUCCESS {
                return None;
            }
            let results = made.last().map(|(_, last)| *last)?;
            let bytes = usize::try_from((*results).ne[0]).ok()? * 4 * pairs.len();
            self.rows.resize(bytes, 0);
            ffi::ggml_backend_tensor_get(results, self.rows.as_mut_ptr().cast(), 0, bytes);
        }
        Some(&self.rows)
    }
}
