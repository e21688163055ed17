//! Graphs of ours that are kept, so that nothing is drawn again while the main graph stays the same.

use super::backend::Backend;
use super::ffi;
use super::node::{Node, nodes_of};
use super::sketch::{Paper, Sketch};
use crate::experts::WorkCounts;

/// A graph, and where its description is. Backends that remember graphs (CUDA) know them by their addresses.
#[derive(Debug)]
pub(super) struct Drawing {
    graph: *mut ffi::ggml_cgraph,
    /// Nodes that compute something.
    nodes: u64,
    _paper: Paper,
}

impl Drawing {
    /// A graph that was sketched on this paper.
    pub(super) fn new(graph: *mut ffi::ggml_cgraph, paper: Paper) -> Self {
        // SAFETY: a graph whose sources are complete, in the paper.
        let nodes = unsafe { nodes_of(graph) }.iter().filter(|node| !node.is_view());
        Self {
            nodes: nodes.count() as u64,
            graph,
            _paper: paper,
        }
    }

    /// Whether a device can compute it.
    pub(super) fn suits(&self, queue: &Backend) -> bool {
        // SAFETY: a graph whose sources are complete, and which stays with this.
        let nodes = unsafe { nodes_of(self.graph) };
        nodes.iter().all(|node| node.is_view() || queue.supports(*node))
    }

    /// Computes it behind what was started before.
    ///
    /// # Safety
    /// As [`Backend::start`].
    pub(super) unsafe fn start(&self, queue: &Backend, done: &mut WorkCounts) -> Option<()> {
        done.graphs += 1;
        done.nodes += self.nodes;
        // SAFETY: as the caller says.
        unsafe { queue.start(self.graph) }
    }
}

/// What tells a graph from another one at the same place: its nodes, where they and their sources lie, and their shapes.
pub(super) fn sign(nodes: &[Node], signature: &mut Vec<usize>) {
    signature.clear();
    for node in nodes {
        let address = |node: Node| [node.as_ptr() as usize, node.data() as usize];
        signature.extend(address(*node));
        signature.extend([node.op() as usize, node.size(0), node.size(1), node.size(2)]);
        signature.extend(node.sources().flat_map(address));
    }
}

/// What was made in the place of a node.
pub(super) fn twin(made: &[(Node, Node)], of: Node) -> Option<Node> {
    made.iter().find(|(old, _)| *old == of).map(|(_, new)| *new)
}

/// A node once more, over the same memory, from what was made before.
pub(super) fn over(sketch: &mut Sketch<'_>, node: Node, made: &[(Node, Node)]) -> Option<Node> {
    sketch.over(node, |of| twin(made, of).unwrap_or(of))
}
