//! Recognises the nodes that compute the experts of a layer.
//!
//! llama.cpp builds them in `llm_graph_context::build_moe_ffn` (`src/llama-graph.cpp`): gate and up projections, together
//! or apart, perhaps with biases, an activation, the down projection, perhaps with a bias; then a product with the
//! router's weights and a sum over the experts.

use super::ffi::{ggml_op, ggml_type};
use super::node::Node;
use super::registry::registered;
use crate::experts::selection::MAX_BLOCK_TOKENS;

/// From the sum over the experts back to a projection there are at most as many nodes as experts per token.
const MAX_DEPTH: usize = 64;
/// Nodes of a block.
const MAX_NODES: usize = 16;

/// The nodes of one layer's experts, in the order of the graph.
#[derive(Debug)]
pub(super) struct Block {
    /// From the first projection to the last node before the product with the router's weights.
    pub(super) nodes: Vec<Node>,
    /// Positions of the first and the last of them in the graph.
    pub(super) first: usize,
    pub(super) last: usize,
    /// The input: [width, 1 or experts per token, tokens].
    pub(super) input: Node,
    /// The experts that the router chose: [experts per token, tokens].
    pub(super) ids: Node,
    /// The down projection's weights, which stand for the layer; `None` for a node alone, which belongs to none.
    pub(super) down: Option<Node>,
    /// Scales of the selected experts that the block multiplies with.
    pub(super) factors: Vec<Factor>,
    /// The nodes, and between them those that gather the scales: in the order of the graph, since the memory of one may be
    /// that of another before it.
    pub(super) sequence: Vec<Node>,
}

/// A scale of each expert.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor {
    /// Those of the selected experts: [1, experts per token, tokens].
    pub(super) selected: Node,
    /// Those of all experts.
    pub(super) all: Node,
}

impl Block {
    /// The layer's number, from the name of its weights: `blk.N.ffn_down_exps.weight`.
    pub(super) fn layer(&self) -> Option<u32> {
        let name = self.down.as_ref()?.name().to_str().ok()?;
        name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
    }

    pub(super) fn experts_per_token(&self) -> usize {
        self.ids.size(0)
    }

    pub(super) fn tokens(&self) -> usize {
        self.ids.size(1)
    }

    /// Whether it may be divided: larger batches are prefill.
    pub(super) fn is_small(&self) -> bool {
        self.tokens() <= MAX_BLOCK_TOKENS
    }

    /// The last node, whose result the rest of the graph goes on with.
    pub(super) fn result(&self) -> Option<Node> {
        self.nodes.last().copied()
    }

    /// The weights and biases of its experts.
    pub(super) fn weights(&self) -> impl Iterator<Item = Node> {
        self.nodes.iter().filter_map(|node| node.expert_weights())
    }
}

/// Whether a node multiplies with expert weights of ours, in a batch that comes to us.
fn is_projection(node: Node) -> bool {
    let Some(plugin) = registered() else { return false };
    let (Some(weights), Some(_), Some(ids)) = (node.source(0), node.source(1), node.source(2)) else {
        return false;
    };
    node.op() == ggml_op::GGML_OP_MUL_MAT_ID
        && plugin.owns(weights)
        && (plugin.takes_prefill || ids.size(1) <= MAX_BLOCK_TOKENS)
}

/// Tokens of the first block of experts in a graph; `None` without any.
pub(super) fn tokens(nodes: &[Node]) -> Option<usize> {
    let first = nodes.iter().find(|node| node.expert_weights().is_some())?;
    Some(first.source(2)?.size(1))
}

/// Whether a node is a projection of ours or hangs on one: the whole block shall come to us in one piece.
pub(super) fn belongs(node: Node) -> bool {
    belongs_within(Some(node), MAX_DEPTH)
}

fn belongs_within(node: Option<Node>, depth: usize) -> bool {
    let (Some(node), Some(depth)) = (node, depth.checked_sub(1)) else {
        return false;
    };
    match node.op() {
        ggml_op::GGML_OP_MUL_MAT_ID => is_projection(node),
        ggml_op::GGML_OP_VIEW | ggml_op::GGML_OP_RESHAPE => {
            belongs_within(node.view_of().map(|(whole, _)| whole), depth)
        }
        ggml_op::GGML_OP_GLU | ggml_op::GGML_OP_ADD_ID | ggml_op::GGML_OP_MUL => belongs_within(node.source(0), depth),
        ggml_op::GGML_OP_GET_ROWS | ggml_op::GGML_OP_REPEAT => factor(node).is_some(),
        // The sum over the experts; what is added to that sum is not ours any more, and its end may be the GPU's.
        ggml_op::GGML_OP_ADD => {
            let left_out = registered().is_some_and(|plugin| plugin.queued) && is_last_addition(node);
            !left_out && belongs_within(node.source(1), 4) && belongs_within(node.source(0), depth)
        }
        _ => false,
    }
}

/// Whether a node adds the row of a token's last expert to the sum of the others.
fn is_last_addition(node: Node) -> bool {
    let Some((product, offset)) = node.source(1).and_then(Node::view_of) else {
        return false;
    };
    node.op() == ggml_op::GGML_OP_ADD && offset == (product.size(1).max(1) - 1) * product.strides()[1]
}

/// Walks from a node back to projections with the same ids.
struct Walk {
    ids: Node,
    found: Vec<Node>,
    input: Option<Node>,
    factors: Vec<Factor>,
}

impl Walk {
    /// False for anything that is not known.
    fn collect(&mut self, node: Option<Node>) -> bool {
        let Some(node) = node.filter(|_| self.found.len() <= MAX_NODES) else {
            return false;
        };
        if self.found.contains(&node) {
            return true;
        }
        self.found.push(node);
        let [a, b, c] = [0, 1, 2].map(|index| node.source(index));
        match node.op() {
            ggml_op::GGML_OP_MUL_MAT_ID => {
                let same_input = self.input.is_none() || self.input == b;
                self.input = b;
                is_projection(node) && c == Some(self.ids) && same_input
            }
            ggml_op::GGML_OP_GLU => self.collect(a) && (b.is_none() || self.collect(b)),
            // A projection with a scale per expert.
            ggml_op::GGML_OP_MUL => match b.and_then(factor) {
                Some(factor) if is_gathered_by(factor.selected, self.ids) => {
                    self.factors.push(factor);
                    self.collect(a)
                }
                _ => false,
            },
            // The bias is a weight, a row per expert.
            ggml_op::GGML_OP_ADD_ID => {
                c == Some(self.ids) && b.is_some_and(|bias| bias.op() == ggml_op::GGML_OP_NONE) && self.collect(a)
            }
            // One half of gate and up in one.
            ggml_op::GGML_OP_VIEW => match node.view_of() {
                Some((whole, offset)) => {
                    let rows = node.shape()[1..3] == whole.shape()[1..3] && node.strides()[1] == whole.strides()[1];
                    rows && offset < whole.strides()[1] && self.collect(Some(whole))
                }
                None => false,
            },
            _ => false,
        }
    }
}

fn is_gathered_by(node: Node, ids: Node) -> bool {
    node.op() == ggml_op::GGML_OP_GET_ROWS && node.source(1) == Some(ids)
}

/// Finds the block that ends with the projection at `at`: its input comes, through the nodes between, from one or two
/// other projections with the same ids.
pub(super) fn ending_at(nodes: &[Node], at: usize) -> Option<Block> {
    let down = *nodes.get(at).filter(|down| is_projection(**down))?;
    let ids = down.source(2)?;
    let mut walk = Walk {
        ids,
        found: vec![down],
        input: None,
        factors: Vec::new(),
    };
    if !walk.collect(down.source(1)) {
        return None;
    }
    let Walk {
        mut found,
        input,
        mut factors,
        ..
    } = walk;
    let input = input?;
    let mut last = at;
    // The down projection's scale and bias; the scale itself is gathered just before.
    for (position, next) in nodes.iter().copied().enumerate().skip(at + 1) {
        let [a, b, c] = [0, 1, 2].map(|index| next.source(index));
        let of_last = a == Some(nodes[last]);
        if next.op() == ggml_op::GGML_OP_ADD_ID && of_last && c == Some(ids) {
            found.push(next);
            last = position;
        } else if next.op() == ggml_op::GGML_OP_MUL
            && of_last
            && let Some(factor) = b.and_then(factor)
        {
            found.push(next);
            factors.push(factor);
            last = position;
        } else if !next.is_view() && factor(next).is_none() {
            break;
        }
    }
    let first = nodes[..at].iter().position(|node| found.contains(node))?;
    let between = &nodes[first..=last];
    // What lies between must be ours too, or compute nothing: it might overwrite our input.
    let foreign = |node: &Node| !found.contains(node) && !node.is_view() && factor(*node).is_none();
    // Only the last node's result may be used by others: the others' are never written.
    let inner = |node: Node| found.contains(&node) && node != nodes[last];
    let uses_inner = |node: &Node| node.view_of().is_some_and(|(whole, _)| inner(whole)) || node.sources().any(inner);
    let plain = input.kind() == ggml_type::GGML_TYPE_F32 && ids.kind() == ggml_type::GGML_TYPE_I32;
    if !plain
        || between.iter().any(foreign)
        || nodes[last + 1..].iter().any(uses_inner)
        || found.iter().any(|node| node.is_output())
    {
        return None;
    }
    let ours = |node: &Node| found.contains(node);
    Some(Block {
        nodes: between.iter().copied().filter(ours).collect(),
        first,
        last,
        input,
        ids,
        down: down.source(0),
        factors,
        sequence: between
            .iter()
            .copied()
            .filter(|node| ours(node) || factor(*node).is_some())
            .collect(),
    })
}

/// A node that multiplies with weights of ours, or adds them, as a block of its own: when it is part of none.
pub(super) fn alone(nodes: &[Node], at: usize) -> Option<Block> {
    let node = *nodes.get(at)?;
    let weights = node.expert_weights()?;
    let input = match node.op() {
        ggml_op::GGML_OP_MUL_MAT_ID => node.source(1),
        _ => node.source(0),
    };
    if !registered()?.owns(weights) {
        return None;
    }
    Some(Block {
        nodes: vec![node],
        first: at,
        last: at,
        input: input?,
        ids: node.source(2)?,
        down: None,
        factors: Vec::new(),
        sequence: vec![node],
    })
}

/// The scales that a node gathers or prepares to gather: `repeat` and `get_rows` of a tensor that the file names
/// `…_exps.scale`.
fn factor(node: Node) -> Option<Factor> {
    let mut scales = node;
    for op in [ggml_op::GGML_OP_GET_ROWS, ggml_op::GGML_OP_REPEAT] {
        if scales.op() == op {
            scales = scales.source(0)?;
        }
    }
    if scales == node {
        return None;
    }
    // The weights themselves, or the scheduler's copy of them on the GPU, which has their name in its own.
    let all = scales.view_of().map_or(scales, |(whole, _)| whole);
    let known = all.name().to_str().is_ok_and(|name| name.contains("_exps.scale"));
    (known && all.kind() == ggml_type::GGML_TYPE_F32).then_some(Factor { selected: node, all })
}
