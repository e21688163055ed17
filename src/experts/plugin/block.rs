//! Recognises the nodes that compute the experts of a layer.
//!
//! llama.cpp builds them in `llm_graph_context::build_moe_ffn` (`src/llama-graph.cpp`): gate and up projections, together
//! or apart, perhaps with biases, an activation, the down projection, perhaps with a bias; then a product with the
//! router's weights and a sum over the experts.

use std::ffi::CStr;

use super::ffi::{self, ggml_op, ggml_tensor};
use super::registered;

/// Larger batches are prefill: there llama.cpp's own way, which reads each expert once for many tokens, is faster.
pub(super) const MOST_TOKENS: i64 = 16;
/// From the sum over the experts back to a projection there are at most as many nodes as active experts.
const DEEPEST: usize = 64;
/// Nodes of a block.
const LARGEST: usize = 16;

/// The nodes of one layer's experts, in the order of the graph.
#[derive(Debug)]
pub(super) struct Block {
    /// From the first projection to the last node before the product with the router's weights.
    pub(super) nodes: Vec<*mut ggml_tensor>,
    /// Positions of the first and the last of them in the graph.
    pub(super) first: usize,
    pub(super) last: usize,
    /// The input: [width, 1 or experts per token, tokens].
    pub(super) input: *mut ggml_tensor,
    /// The experts that the router chose: [experts per token, tokens].
    pub(super) ids: *mut ggml_tensor,
    /// The down projection's weights, which stand for the layer; null for a node alone, which belongs to none.
    pub(super) down: *mut ggml_tensor,
    /// Scales of the selected experts that the block multiplies with.
    pub(super) factors: Vec<Factor>,
    /// The nodes, and between them those that gather the scales: in the order of the graph, since the memory of one may be
    /// that of another before it.
    pub(super) sequence: Vec<*mut ggml_tensor>,
}

/// A scale of each expert.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor {
    /// Those of the selected experts: [1, experts per token, tokens].
    pub(super) selected: *mut ggml_tensor,
    /// Those of all experts.
    pub(super) all: *mut ggml_tensor,
}

impl Block {
    /// The layer's number, from the name of its weights: `blk.N.ffn_down_exps.weight`.
    ///
    /// # Safety
    /// The model is loaded.
    pub(super) unsafe fn layer(&self) -> Option<u32> {
        if self.down.is_null() {
            return None;
        }
        // SAFETY: names of tensors end with a zero.
        let name = unsafe { CStr::from_ptr((*self.down).name.as_ptr()) };
        name.to_str()
            .ok()?
            .strip_prefix("blk.")?
            .split('.')
            .next()?
            .parse()
            .ok()
    }
}

/// Whether a node multiplies with expert weights of ours, in a small batch.
///
/// # Safety
/// `node` is a tensor of a graph.
unsafe fn is_projection(node: *const ggml_tensor) -> bool {
    let Some(plugin) = registered() else { return false };
    // SAFETY: the sources of a MUL_MAT_ID are tensors: weights, input, ids.
    unsafe {
        let [weights, input, ids, ..] = (*node).src;
        if (*node).op != ggml_op::GGML_OP_MUL_MAT_ID || weights.is_null() || input.is_null() || ids.is_null() {
            return false;
        }
        plugin.owns(weights) && (plugin.takes_prefill || (*ids).ne[1] <= MOST_TOKENS)
    }
}

/// Whether a node is a projection of ours or hangs on one: the whole block shall come to us in one piece.
///
/// # Safety
/// `node` is a tensor of a graph.
pub(super) unsafe fn belongs(node: *const ggml_tensor) -> bool {
    // SAFETY: as the caller says; sources of a tensor are tensors.
    unsafe { belongs_within(node.cast_mut(), DEEPEST) }
}

/// # Safety
/// As [`belongs`].
unsafe fn belongs_within(node: *mut ggml_tensor, depth: usize) -> bool {
    if node.is_null() || depth == 0 {
        return false;
    }
    // SAFETY: as the caller says.
    unsafe {
        let [a, b, ..] = (*node).src;
        match (*node).op {
            ggml_op::GGML_OP_MUL_MAT_ID => is_projection(node),
            ggml_op::GGML_OP_VIEW | ggml_op::GGML_OP_RESHAPE => belongs_within((*node).view_src, depth - 1),
            ggml_op::GGML_OP_GLU | ggml_op::GGML_OP_ADD_ID | ggml_op::GGML_OP_MUL => belongs_within(a, depth - 1),
            ggml_op::GGML_OP_GET_ROWS | ggml_op::GGML_OP_REPEAT => factor(node).is_some(),
            // The sum over the experts; what is added to that sum is not ours any more.
            ggml_op::GGML_OP_ADD => belongs_within(b, 4) && belongs_within(a, depth - 1),
            _ => false,
        }
    }
}

/// Finds the block that ends with the projection at `at`: its input comes, through the nodes between, from one or two
/// other projections with the same ids.
///
/// # Safety
/// `nodes` are the nodes of a graph that is being computed.
pub(super) unsafe fn ending_at(nodes: &[*mut ggml_tensor], at: usize) -> Option<Block> {
    let down = nodes[at];
    // SAFETY: nodes of a graph, and their sources.
    unsafe {
        if !is_projection(down) {
            return None;
        }
        let ids = (*down).src[2];
        let mut found = vec![down];
        let mut input = std::ptr::null_mut();
        let mut factors = Vec::new();
        if !collect((*down).src[1], ids, &mut found, &mut input, &mut factors) || input.is_null() {
            return None;
        }
        let mut last = at;
        // The down projection's scale and bias; the scale itself is gathered just before.
        for (position, next) in nodes.iter().copied().enumerate().skip(at + 1) {
            let [a, b, c, ..] = (*next).src;
            let of_last = a == nodes[last];
            if (*next).op == ggml_op::GGML_OP_ADD_ID && of_last && c == ids {
                found.push(next);
                last = position;
            } else if (*next).op == ggml_op::GGML_OP_MUL
                && of_last
                && let Some(factor) = factor(b)
            {
                found.push(next);
                factors.push(factor);
                last = position;
            } else if !is_view(next) && factor(next).is_none() {
                break;
            }
        }
        let first = nodes[..at].iter().position(|node| found.contains(node))?;
        // What lies between must be ours too, or compute nothing: it might overwrite our input.
        let foreign = |node: &&*mut ggml_tensor| !found.contains(*node) && !is_view(**node) && factor(**node).is_none();
        if nodes[first..=last].iter().find(foreign).is_some() {
            return None;
        }
        // Only the last node's result may be used by others: the others' are never written.
        let inner = |node: *mut ggml_tensor| found.contains(&node) && node != nodes[last];
        let used_outside = nodes[last + 1..]
            .iter()
            .any(|node| inner((**node).view_src) || (**node).src.iter().any(|source| inner(*source)));
        let kept = found.iter().any(|node| (**node).flags & OUTPUT != 0);
        let plain = (*input).type_ == ffi::ggml_type::GGML_TYPE_F32 && (*ids).type_ == ffi::ggml_type::GGML_TYPE_I32;
        if used_outside || kept || !plain {
            return None;
        }
        let ordered = nodes[first..=last]
            .iter()
            .copied()
            .filter(|node| found.contains(node))
            .collect();
        Some(Block {
            nodes: ordered,
            first,
            last,
            input,
            ids,
            down: (*down).src[0],
            factors,
            sequence: nodes[first..=last]
                .iter()
                .copied()
                .filter(|node| found.contains(node) || factor(*node).is_some())
                .collect(),
        })
    }
}

/// A node that multiplies with weights of ours, or adds them, as a block of its own: when it is part of none.
///
/// # Safety
/// `nodes` are the nodes of a graph that is being computed.
pub(super) unsafe fn alone(nodes: &[*mut ggml_tensor], at: usize) -> Option<Block> {
    let node = nodes[at];
    let plugin = registered()?;
    // SAFETY: nodes of a graph, and their sources.
    unsafe {
        let weights = super::tensors::weights_of(node)?;
        let [a, b, ids, ..] = (*node).src;
        let input = if (*node).op == ggml_op::GGML_OP_MUL_MAT_ID {
            b
        } else {
            a
        };
        plugin.owns(weights).then(|| Block {
            nodes: vec![node],
            first: at,
            last: at,
            input,
            ids,
            down: std::ptr::null_mut(),
            factors: Vec::new(),
            sequence: vec![node],
        })
    }
}

/// The scales that a node gathers or prepares to gather: `repeat` and `get_rows` of a tensor that the file names
/// `…_exps.scale`.
///
/// # Safety
/// `node` is null or a tensor of a graph.
unsafe fn factor(node: *mut ggml_tensor) -> Option<Factor> {
    // SAFETY: as the caller says.
    unsafe {
        let mut scales = node;
        for op in [ggml_op::GGML_OP_GET_ROWS, ggml_op::GGML_OP_REPEAT] {
            if !scales.is_null() && (*scales).op == op {
                scales = (*scales).src[0];
            }
        }
        if scales == node || scales.is_null() {
            return None;
        }
        // The weights themselves, or the scheduler's copy of them on the GPU, which has their name in its own.
        let all = if (*scales).view_src.is_null() {
            scales
        } else {
            (*scales).view_src
        };
        let name = CStr::from_ptr((*all).name.as_ptr());
        let known = name.to_str().is_ok_and(|name| name.contains("_exps.scale"));
        let known = known && (*all).type_ == ffi::ggml_type::GGML_TYPE_F32;
        known.then_some(Factor { selected: node, all })
    }
}

const OUTPUT: i32 = ffi::ggml_tensor_flag::GGML_TENSOR_FLAG_OUTPUT.cast_signed();

/// Whether a node computes nothing.
///
/// # Safety
/// `node` is a tensor.
pub(super) unsafe fn is_view(node: *const ggml_tensor) -> bool {
    // SAFETY: as the caller says.
    let op = unsafe { (*node).op };
    matches!(
        op,
        ggml_op::GGML_OP_NONE
            | ggml_op::GGML_OP_VIEW
            | ggml_op::GGML_OP_RESHAPE
            | ggml_op::GGML_OP_PERMUTE
            | ggml_op::GGML_OP_TRANSPOSE
    )
}

/// Walks from a node back to projections; false for anything that is not known.
///
/// # Safety
/// `node` is null or a tensor of the graph.
unsafe fn collect(
    node: *mut ggml_tensor,
    ids: *mut ggml_tensor,
    found: &mut Vec<*mut ggml_tensor>,
    input: &mut *mut ggml_tensor,
    factors: &mut Vec<Factor>,
) -> bool {
    if node.is_null() || found.len() > LARGEST {
        return false;
    }
    if found.contains(&node) {
        return true;
    }
    found.push(node);
    // SAFETY: as the caller says.
    unsafe {
        let [a, b, c, ..] = (*node).src;
        match (*node).op {
            ggml_op::GGML_OP_MUL_MAT_ID => {
                if !is_projection(node) || c != ids || !(input.is_null() || *input == b) {
                    return false;
                }
                *input = b;
                true
            }
            ggml_op::GGML_OP_GLU => {
                collect(a, ids, found, input, factors) && (b.is_null() || collect(b, ids, found, input, factors))
            }
            // A projection with a scale per expert.
            ggml_op::GGML_OP_MUL => match factor(b) {
                Some(factor) if (*b).op == ggml_op::GGML_OP_GET_ROWS && (*b).src[1] == ids => {
                    factors.push(factor);
                    collect(a, ids, found, input, factors)
                }
                _ => false,
            },
            // The bias is a weight, a row per expert.
            ggml_op::GGML_OP_ADD_ID => {
                c == ids && (*b).op == ggml_op::GGML_OP_NONE && collect(a, ids, found, input, factors)
            }
            // One half of gate and up in one.
            ggml_op::GGML_OP_VIEW => {
                let whole = (*node).view_src;
                let rows = (*node).ne[1] == (*whole).ne[1]
                    && (*node).ne[2] == (*whole).ne[2]
                    && (*node).nb[1] == (*whole).nb[1];
                rows && (*node).view_offs < (*whole).nb[1] && collect(whole, ids, found, input, factors)
            }
            _ => false,
        }
    }
}
