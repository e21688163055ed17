//! The way of a block without a GPU, where copies are in main memory as well.
//!
//! What llama.cpp gives us is one block and the sum behind it. If no selected expert has a copy it is computed as it is, if
//! all have one with the copies in the place of the weights: one graph either way. Only in between there are two halves.

use super::backend::Arena;
use super::block::{self, Block};
use super::drawing::{Drawing, over};
use super::ffi::{self, ggml_op, ggml_type};
use super::graphs::{Drawn, Graphs};
use super::halves::{Halves, Known};
use super::node::Node;
use super::sketch::{Paper, Sketch};
use crate::experts::WorkCounts;

/// The graphs that were looked at.
#[derive(Default)]
pub(super) struct InMemory(Graphs<Box<Way>>);

/// A block that is drawn.
pub(super) struct Way {
    block: Block,
    known: Known,
    /// All of the graph, with copies.
    hot: Option<HotGraph>,
}

struct HotGraph {
    drawing: Drawing,
    /// The entries to compute with.
    ids: Node,
    _place: Arena,
}

impl Drawn for Box<Way> {
    fn layer(&self) -> Option<&Known> {
        Some(&self.known)
    }
}

impl InMemory {
    /// Computes a graph that is one block and what follows from it; false if it is not, and nothing was done.
    ///
    /// # Safety
    /// The graph is being computed, its sources are complete and in main memory, and nobody else computes with it.
    pub(super) unsafe fn compute(
        &mut self,
        halves: &mut Halves,
        whole: *mut ffi::ggml_cgraph,
        nodes: &[Node],
    ) -> Option<bool> {
        let Self(graphs) = self;
        let graph = match graphs.take(nodes) {
            Some(graph) => graph,
            None => {
                graphs.make_room();
                let way = halves.draw_in_memory(nodes).map(Box::new);
                graphs.looked_at(way)
            }
        };
        let done = match &graph.drawn {
            // SAFETY: as the caller says; the way was drawn for these nodes.
            Some(way) => unsafe { halves.go_in_memory(way, whole, nodes).map(|()| true) },
            None => Some(false),
        };
        graphs.keep(nodes, graph);
        done
    }
}

impl Halves {
    fn draw_in_memory(&mut self, nodes: &[Node]) -> Option<Way> {
        let mut blocks = (0..nodes.len()).filter_map(|at| block::ending_at(nodes, at));
        let block = blocks.next()?;
        let alone = nodes.get(..block.first)?.iter().all(|node| node.is_view());
        if !alone || blocks.next().is_some() {
            return None;
        }
        let known = self.layer(&block)?;
        known.cache.work.count(WorkCounts {
            recognitions: 1,
            ..WorkCounts::default()
        });
        let copies = block.is_small() && known.copies.count() > 0;
        let hot = if copies {
            Some(self.draw_hot(&block, &known, nodes)?)
        } else {
            None
        };
        Some(Way { block, known, hot })
    }

    /// The graph once more, with copies.
    fn draw_hot(&self, block: &Block, known: &Known, nodes: &[Node]) -> Option<HotGraph> {
        let mut paper = Paper::default();
        let mut sketch = Sketch::for_tensors(&mut paper, nodes.len() + block.sequence.len() + 1);
        let [experts_per_token, tokens, ..] = block.ids.shape();
        let ids = sketch.tensor(ggml_type::GGML_TYPE_I32, [experts_per_token, tokens, 1, 1])?;
        let mut place = Arena::new();
        // SAFETY: a fresh description in a fresh arena.
        unsafe { place.place(self.hot.backend.buffers(), &[ids], &[])? };
        let mut made = Vec::with_capacity(block.nodes.len());
        for node in block.sequence.iter().copied() {
            if !block.nodes.contains(&node) {
                // Scales are gathered by the numbers of experts: as the main graph would.
                sketch.add(node)?;
                continue;
            }
            let new = over(&mut sketch, node, &made)?;
            if let Some(weights) = node.expert_weights() {
                let position = usize::from(node.op() == ggml_op::GGML_OP_ADD_ID);
                sketch.set_source(new, position, known.copies.of(weights)?);
                sketch.set_source(new, 2, ids);
            }
            made.push((node, new));
            sketch.add(new)?;
        }
        // Over the same memory, so what follows finds it.
        for node in nodes.get(block.last + 1..)? {
            sketch.add(*node)?;
        }
        let graph = sketch.finish();
        Some(HotGraph {
            drawing: Drawing::new(graph, paper),
            ids,
            _place: place,
        })
    }

    /// # Safety
    /// As [`InMemory::compute`], and the way was drawn for these nodes.
    unsafe fn go_in_memory(&mut self, way: &Way, graph: *mut ffi::ggml_cgraph, nodes: &[Node]) -> Option<()> {
        let Way { block, known, hot } = way;
        let mut done = WorkCounts {
            blocks: 1,
            ..WorkCounts::default()
        };
        self.read_ids(block)?;
        let used = hot.is_some() && self.are_copies_used(known);
        self.acquire(known, used);
        self.observe(known, block.experts_per_token(), 0);
        known
            .cache
            .upload_wanted(&known.layer, &mut known.layer.state.lock().cache);
        let count = self.entries.iter().flatten().count();
        let assigned = count > 0
            && self.stand_in(block, known)
            && self.hot.assign(&self.entries, block, &self.stand_ins, &known.copies);
        let computed = match hot {
            Some(hot) if assigned && count == self.entries.len() => {
                let entries = self.hot.chosen();
                // SAFETY: main memory is written at once, and the graph is computed before this returns; the entries are
                // acquired. Otherwise as the caller says.
                unsafe {
                    let bytes = std::slice::from_raw_parts(entries.as_ptr().cast::<u8>(), size_of_val(entries));
                    self.hot.backend.write(hot.ids, 0, bytes)?;
                    hot.drawing.start(&self.hot.backend, &mut done)
                }
            }
            Some(_) if assigned => {
                (done.graphs, done.cold_graphs) = (2, 1);
                self.split(block, Some(known))
                    .and_then(|_| self.pass_on(nodes, block.last + 1, nodes.len()))
            }
            _ => {
                done.graphs = 1;
                self.pass_on_all(nodes, graph)
            }
        };
        self.release(known);
        if assigned && computed.is_some() {
            known.layer.state.lock().cache.computed(count);
        }
        known.cache.work.count(done);
        computed
    }
}
