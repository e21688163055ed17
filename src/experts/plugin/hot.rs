//! The hot half of a block: on the cache device, straight on the tensors of the main graph.
//!
//! The nodes of the block are rebuilt over the same memory, with the copies in the place of the weights and entries in the
//! place of expert numbers. Experts without a copy are computed with stand-ins, and leave rows behind which the cold half
//! replaces.

use std::collections::HashMap;

use super::backend::{Arena, Backend};
use super::block::Block;
use super::copies::Entries;
use super::ffi::{ggml_op, ggml_type};
use super::node::Node;
use super::sketch::{Paper, Sketch};
use crate::experts::selection::HotIds;

/// Graphs that are kept at most; more would mean that their keys are not what they should be.
const MAX_GRAPHS: usize = 4096;

/// One queue of the cache device.
#[derive(Debug)]
pub(super) struct Hot {
    pub(super) backend: Backend,
    /// Descriptions of rebuilt blocks, by layer and tokens: backends that remember graphs (CUDA) know them by their
    /// addresses.
    graphs: HashMap<(u32, usize), Paper>,
    /// The entries that the current graph reads, and where it reads them.
    ids: HotIds,
    place: Arena,
}

impl Hot {
    pub(super) fn new(backend: Backend) -> Self {
        Self {
            backend,
            graphs: HashMap::new(),
            ids: HotIds::default(),
            place: Arena::new(),
        }
    }

    /// Chooses the entries that the selected experts of a block are computed with. `hot` are those of the experts with a
    /// copy, token by token; `stand_ins` are for the others. False if there are too few of them.
    pub(super) fn assign(&mut self, hot: &[Option<u32>], block: &Block, stand_ins: &[u32], copies: &Entries) -> bool {
        let ids = self
            .ids
            .assign(hot, block.experts_per_token(), stand_ins, copies.count());
        ids.is_some()
    }

    /// The entries that [`Hot::assign`] has chosen.
    pub(super) fn chosen(&self) -> &[i32] {
        self.ids.get()
    }

    /// Starts to compute a block with the entries that [`Hot::assign`] has chosen.
    ///
    /// # Safety
    /// The block is one of the graph that is being computed, its sources are complete and lie on this device, the entries
    /// are acquired until this is synchronized, and what was started before is finished.
    pub(super) unsafe fn start(&mut self, block: &Block, layer: u32, copies: &Entries) -> Option<()> {
        if self.graphs.len() > MAX_GRAPHS {
            self.graphs.clear();
        }
        let entries = self.ids.get();
        let paper = self.graphs.entry((layer, entries.len())).or_default();
        let mut sketch = Sketch::new(paper);
        let [experts_per_token, tokens, ..] = block.ids.shape();
        let ids = sketch.tensor(ggml_type::GGML_TYPE_I32, [experts_per_token, tokens, 1, 1])?;
        rebuild(&mut sketch, block, ids, copies)?;
        // SAFETY: the ids get a place of their own, and stay where they come from until the next call, which is after this
        // one is synchronized; all else is as the caller says.
        unsafe {
            self.place.place(self.backend.buffers(), &[ids], &[])?;
            let bytes = std::slice::from_raw_parts(entries.as_ptr().cast::<u8>(), size_of_val(entries));
            self.backend.write(ids, 0, bytes)?;
            self.backend.start(sketch.graph())
        }
    }
}

/// The nodes of a block once more, over the same memory, but with copies and entries.
fn rebuild(sketch: &mut Sketch<'_>, block: &Block, ids: Node, copies: &Entries) -> Option<()> {
    let mut made: Vec<(Node, Node)> = Vec::with_capacity(block.nodes.len());
    for node in block.sequence.iter().copied() {
        if !block.nodes.contains(&node) {
            // Scales are gathered by the numbers of experts: as the main graph would.
            sketch.add(node)?;
            continue;
        }
        let twin = |of: Node| made.iter().find(|(old, _)| *old == of).map_or(of, |(_, new)| *new);
        let new = sketch.over(node, twin)?;
        if let Some(weights) = node.expert_weights() {
            let position = usize::from(node.op() == ggml_op::GGML_OP_ADD_ID);
            sketch.set_source(new, position, copies.of(weights)?);
            sketch.set_source(new, 2, ids);
        }
        made.push((node, new));
        sketch.add(new)?;
    }
    Some(())
}
