//! Graphs of llama.cpp that were looked at, with what was drawn for each: while tokens are decoded the same ones come again and
//! again.

use std::collections::HashMap;

use super::drawing::sign;
use super::halves::Known;
use super::node::Node;

/// Graphs that are known at most; more would mean that their keys are not what they should be.
const MAX_GRAPHS: usize = 4096;

/// What is drawn for a graph.
pub(super) trait Drawn {
    /// The layer that it computes with; `None` for one without a cache.
    fn layer(&self) -> Option<&Known>;
}

/// The graphs that were looked at.
pub(super) struct Graphs<D> {
    /// By the first node of a graph and how many there are.
    known: HashMap<(Node, usize), Graph<D>>,
    /// What the graph at hand looks like.
    signature: Vec<usize>,
}

/// A graph that was looked at.
pub(super) struct Graph<D> {
    signature: Vec<usize>,
    /// `None` if it goes another way.
    pub(super) drawn: Option<D>,
}

impl<D> Default for Graphs<D> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            signature: Vec::new(),
        }
    }
}

impl<D: Drawn> Graphs<D> {
    /// Takes out a graph that was looked at before; `None` for one that looks otherwise, or whose layer has changed.
    pub(super) fn take(&mut self, nodes: &[Node]) -> Option<Graph<D>> {
        sign(nodes, &mut self.signature);
        let known = self.known.remove(&key(nodes)?)?;
        (known.signature == self.signature && known.is_current()).then_some(known)
    }

    /// Makes room for the graph that [`Graphs::take`] did not know. Layers may change when it is drawn: what still uses the
    /// old ones goes first.
    pub(super) fn make_room(&mut self) {
        if self.known.len() >= MAX_GRAPHS || !self.known.values().all(Graph::is_current) {
            self.known.clear();
        }
    }

    /// That graph.
    pub(super) fn looked_at(&self, drawn: Option<D>) -> Graph<D> {
        Graph {
            signature: self.signature.clone(),
            drawn,
        }
    }

    /// Puts a graph back, or a new one in.
    pub(super) fn keep(&mut self, nodes: &[Node], graph: Graph<D>) {
        if let Some(key) = key(nodes) {
            self.known.insert(key, graph);
        }
    }

    /// Forgets all of them: what they were drawn for lies nowhere any more.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}

impl<D: Drawn> Graph<D> {
    fn is_current(&self) -> bool {
        let layer = self.drawn.as_ref().and_then(Drawn::layer);
        layer.is_none_or(|layer| layer.version == layer.cache.version())
    }
}

fn key(nodes: &[Node]) -> Option<(Node, usize)> {
    Some((*nodes.first()?, nodes.len()))
}
