//! Recognises what comes behind a block: the product with the router's weights, and the sum over a token's experts.
//!
//! The last addition of the sum is left to the GPU's own backend (`block` leaves it out). So the block hands over two
//! tensors that the main graph adds: what the hot experts come to, and, in the place of the last expert's row, what the cold
//! ones do. No graph of ours has to wait for the cold half.

use super::block::Block;
use super::ffi::{ggml_op, ggml_type};
use super::node::Node;

/// The nodes behind a block.
#[derive(Debug)]
pub(super) struct Tail {
    /// The weight of each selected expert: [1, experts per token, tokens].
    pub(super) weights: Node,
    /// The weighted rows: [width, experts per token, tokens].
    pub(super) product: Node,
    /// The views of the product and the additions, all but the last one, in the order of the graph.
    pub(super) sums: Vec<Node>,
    /// What the main graph adds the last expert's row to.
    pub(super) sum: Node,
}

impl Tail {
    /// What follows a block in its graph; `None` unless that is all that does.
    pub(super) fn behind(block: &Block, nodes: &[Node]) -> Option<Self> {
        let result = block.result()?;
        let mut rest = nodes.get(block.last + 1..)?.iter().copied();
        let product = rest.by_ref().find(|node| !node.is_view())?;
        let weights = product.source(1)?;
        let experts_per_token = block.experts_per_token();
        let rows = [1, i64::try_from(experts_per_token).ok()?, block.ids.shape()[1], 1];
        let weighted = product.op() == ggml_op::GGML_OP_MUL
            && product.source(0) == Some(result)
            && product.shape() == result.shape()
            && [product, weights]
                .iter()
                .all(|node| node.kind() == ggml_type::GGML_TYPE_F32)
            && weights.shape() == rows;
        if !weighted || experts_per_token < 2 {
            return None;
        }
        let row = |node: Node, index: usize| {
            node.view_of() == Some((product, index * product.strides()[1])) && node.size(0) == product.size(0)
        };
        let mut sums = Vec::new();
        let mut sum = None;
        let mut added = 1;
        for node in rest {
            match node.op() {
                ggml_op::GGML_OP_VIEW if node.view_of().is_some_and(|(whole, _)| whole == product) => {
                    if row(node, 0) && sum.is_none() {
                        sum = Some(node);
                    }
                }
                ggml_op::GGML_OP_ADD => {
                    let next = node.source(0) == sum && node.source(1).is_some_and(|view| row(view, added));
                    if !next {
                        return None;
                    }
                    added += 1;
                    sum = Some(node);
                }
                _ if node.is_view() => continue,
                _ => return None,
            }
            sums.push(node);
        }
        let whole = added + 1 == experts_per_token && !sums.iter().chain([&product]).any(|node| node.is_output());
        Some(Self {
            weights,
            product,
            sums,
            sum: sum.filter(|_| whole)?,
        })
    }
}
