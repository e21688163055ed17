//! Computes a block once more for some of its (token, expert) pairs, on one device.
//!
//! The nodes of the block are rebuilt with one row per pair instead of [experts per token, tokens]: the input rows are
//! gathered, the ids name the pair's expert (or the slot of its copy), and the results are scattered to where the block's
//! last node would have written them.

use std::ffi::c_void;
use std::ptr;

use super::block::Block;
use super::ffi::{self, ggml_op, ggml_tensor, ggml_type};

/// Tensors of a rebuilt block.
const MOST_NODES: usize = 32;

/// `GGML_TENSOR_FLAG_COMPUTE`
const COMPUTE: i32 = ffi::ggml_tensor_flag::GGML_TENSOR_FLAG_COMPUTE.cast_signed();

/// One token and one of its experts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    /// The expert, or the slot of its copy.
    pub(super) id: i32,
    /// The token's input row.
    pub(super) input: *const u8,
    /// Where its result belongs.
    pub(super) output: *mut u8,
}

/// Copies of some experts of one layer on the cache device: for each weight of the block a tensor with as many experts as
/// there are slots.
#[derive(Debug)]
pub(super) struct Copies {
    context: *mut ffi::ggml_context,
    buffer: *mut ffi::ggml_backend_buffer,
    /// The original weights, and their copies.
    tensors: Vec<(*mut ggml_tensor, *mut ggml_tensor)>,
}

// SAFETY: the pointers are only followed by who holds the layer's lock.
unsafe impl Send for Copies {}

impl Copies {
    /// Room for `slots` experts of a block; `None` when the device has not that much memory.
    ///
    /// # Safety
    /// The block is one of a graph that is being computed; `buffers` is a buffer type.
    pub(super) unsafe fn new(block: &Block, slots: usize, buffers: ffi::ggml_backend_buffer_type_t) -> Option<Self> {
        let mut copies = Self {
            context: ptr::null_mut(),
            buffer: ptr::null_mut(),
            tensors: Vec::new(),
        };
        if slots == 0 {
            return Some(copies);
        }
        let slots = i64::try_from(slots).ok()?;
        // SAFETY: tensors of a graph; a fresh context without data, whose tensors are placed into one fresh buffer.
        unsafe {
            copies.context = context(ptr::null_mut(), 0);
            let mut size = 0;
            for weights in block.nodes.iter().filter_map(|node| weights_of(*node)) {
                let [a, b, ..] = (*weights).ne;
                let copy = match expert_dimension(weights) {
                    2 => ffi::ggml_new_tensor_3d(copies.context, (*weights).type_, a, b, slots),
                    _ => ffi::ggml_new_tensor_2d(copies.context, (*weights).type_, a, slots),
                };
                size += padded(buffers, copy);
                copies.tensors.push((weights, copy));
            }
            copies.buffer = ffi::ggml_backend_buft_alloc_buffer(buffers, size);
            if copies.buffer.is_null() {
                return None;
            }
            let mut place = ffi::ggml_backend_buffer_get_base(copies.buffer).cast::<u8>();
            for (_, copy) in &copies.tensors {
                ffi::ggml_backend_tensor_alloc(copies.buffer, *copy, place.cast());
                place = place.add(padded(buffers, *copy));
            }
        }
        Some(copies)
    }

    /// Copies an expert into a slot, and waits until it is there.
    ///
    /// # Safety
    /// The model is loaded, `expert` one of its experts, `slot` one of the slots.
    pub(super) unsafe fn upload(&self, expert: u32, slot: u32) {
        for (weights, copy) in &self.tensors {
            // SAFETY: expert and slot are in range, and both tensors have the same bytes per expert.
            unsafe {
                let bytes = (**weights).nb[expert_dimension(*weights)];
                let source = (**weights).data.cast::<u8>().add(expert as usize * bytes);
                ffi::ggml_backend_tensor_set(*copy, source.cast(), slot as usize * bytes, bytes);
            }
        }
    }

    fn of(&self, weights: *mut ggml_tensor) -> Option<*mut ggml_tensor> {
        let found = self.tensors.iter().find(|(original, _)| *original == weights);
        found.map(|(_, copy)| *copy)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // SAFETY: both were made by `new`, or are null, which ggml's functions accept.
        unsafe {
            ffi::ggml_backend_buffer_free(self.buffer);
            ffi::ggml_free(self.context);
        }
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

/// The weights or biases of a node, one part per expert.
///
/// # Safety
/// `node` is a node of a block.
unsafe fn weights_of(node: *mut ggml_tensor) -> Option<*mut ggml_tensor> {
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
unsafe fn expert_dimension(weights: *mut ggml_tensor) -> usize {
    // SAFETY: as the caller says.
    if unsafe { (*weights).ne[2] } > 1 { 2 } else { 1 }
}

/// Bytes of a tensor in a buffer, with what keeps the next one aligned.
///
/// # Safety
/// Both are ggml's.
unsafe fn padded(buffers: ffi::ggml_backend_buffer_type_t, tensor: *const ggml_tensor) -> usize {
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

/// One device, and memory on it for what is computed there.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) backend: ffi::ggml_backend_t,
    buffers: ffi::ggml_backend_buffer_type_t,
    buffer: *mut ffi::ggml_backend_buffer,
    descriptions: Vec<u64>,
    rows: Vec<u8>,
    ids: Vec<i32>,
}

impl Replay {
    /// # Safety
    /// `device` is a device of ggml's registry.
    pub(super) unsafe fn new(device: ffi::ggml_backend_dev_t) -> Option<Self> {
        // SAFETY: as the caller says.
        let backend = unsafe { ffi::ggml_backend_dev_init(device, ptr::null()) };
        if backend.is_null() {
            return None;
        }
        Some(Self {
            backend,
            // SAFETY: a backend that was just made.
            buffers: unsafe { ffi::ggml_backend_get_default_buffer_type(backend) },
            buffer: ptr::null_mut(),
            descriptions: vec![0; context_size().div_ceil(8)],
            rows: Vec::new(),
            ids: Vec::new(),
        })
    }

    pub(super) fn buffers(&self) -> ffi::ggml_backend_buffer_type_t {
        self.buffers
    }

    /// Starts to compute the pairs; returns the tensor that will hold a row for each. With `copies` the ids are slots.
    ///
    /// # Safety
    /// The block is one of the graph that is being computed, its sources are complete, and so are the copies in the slots.
    pub(super) unsafe fn start(
        &mut self,
        block: &Block,
        pairs: &[Pair],
        copies: Option<&Copies>,
    ) -> Option<*mut ggml_tensor> {
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
            let graph = ffi::ggml_new_graph_custom(context, MOST_NODES, false);
            for node in &block.nodes {
                let node = *node;
                let twin = |of: *mut ggml_tensor| made.iter().find(|(old, _)| *old == of).map(|(_, new)| *new);
                let weights =
                    weights_of(node).map(|weights| copies.and_then(|copies| copies.of(weights)).unwrap_or(weights));
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
                    // Nodes without this flag are skipped.
                    (*new).flags |= COMPUTE;
                    let [a, b, ..] = (*node).src;
                    (*new).src = [ptr::null_mut(); 10];
                    match (*node).op {
                        ggml_op::GGML_OP_MUL_MAT_ID => {
                            (&mut (*new).src)[..3].copy_from_slice(&[weights?, twin(b)?, ids]);
                        }
                        ggml_op::GGML_OP_ADD_ID => (&mut (*new).src)[..3].copy_from_slice(&[twin(a)?, weights?, ids]),
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
            self.place(&placed)?;
            for view in views {
                ffi::ggml_backend_view_init(view);
            }
            let row = usize::try_from(width).ok()? * 4;
            self.rows.clear();
            self.ids.clear();
            for pair in pairs {
                self.rows.extend_from_slice(std::slice::from_raw_parts(pair.input, row));
                self.ids.push(pair.id);
            }
            ffi::ggml_backend_tensor_set(input, self.rows.as_ptr().cast(), 0, self.rows.len());
            ffi::ggml_backend_tensor_set(ids, self.ids.as_ptr().cast(), 0, self.ids.len() * 4);
            let status = ffi::ggml_backend_graph_compute_async(self.backend, graph);
            (status == ffi::ggml_status::GGML_STATUS_SUCCESS).then(|| made.last().map(|(_, last)| *last))?
        }
    }

    /// Gives tensors their places, one after the other.
    ///
    /// # Safety
    /// The tensors have no data yet, and nothing that uses this buffer is being computed.
    unsafe fn place(&mut self, tensors: &[*mut ggml_tensor]) -> Option<()> {
        // SAFETY: as the caller says; the buffer is made large enough first.
        unsafe {
            let size = tensors.iter().map(|tensor| padded(self.buffers, *tensor)).sum();
            if self.buffer.is_null() || ffi::ggml_backend_buffer_get_size(self.buffer) < size {
                ffi::ggml_backend_buffer_free(self.buffer);
                self.buffer = ffi::ggml_backend_buft_alloc_buffer(self.buffers, size);
                if self.buffer.is_null() {
                    return None;
                }
            }
            let mut place = ffi::ggml_backend_buffer_get_base(self.buffer).cast::<u8>();
            for tensor in tensors {
                ffi::ggml_backend_tensor_alloc(self.buffer, *tensor, place.cast());
                place = place.add(padded(self.buffers, *tensor));
            }
        }
        Some(())
    }

    /// Waits for the results and puts them where they belong.
    ///
    /// # Safety
    /// `results` came from `start` with the same pairs, whose outputs are still there.
    pub(super) unsafe fn finish(&mut self, results: *mut ggml_tensor, pairs: &[Pair]) {
        // SAFETY: as the caller says.
        unsafe {
            ffi::ggml_backend_synchronize(self.backend);
            let row = usize::try_from((*results).ne[0]).unwrap_or(0) * 4;
            self.rows.resize(row * pairs.len(), 0);
            ffi::ggml_backend_tensor_get(results, self.rows.as_mut_ptr().cast(), 0, self.rows.len());
            for (pair, result) in pairs.iter().zip(self.rows.chunks_exact(row.max(1))) {
                ptr::copy_nonoverlapping(result.as_ptr(), pair.output, row);
            }
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        // SAFETY: both are this struct's own.
        unsafe {
            ffi::ggml_backend_buffer_free(self.buffer);
            ffi::ggml_backend_free(self.backend);
        }
    }
}
