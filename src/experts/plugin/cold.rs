//! The cold half of a block: the experts without a copy, on the CPU, with the weights where they lie.
//!
//! The nodes of the block are rebuilt with one row per (token, expert) pair instead of [experts per token, tokens]: the
//! input rows are gathered, and the results are one row per pair. The experts of a single token share its input.

use std::collections::HashMap;

use super::backend::{Arena, Backend};
use super::block::{Block, Factor};
use super::ffi::{self, ggml_op, ggml_type};
use super::node::Node;
use super::sketch::{Paper, Sketch};

/// One token and one of its experts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) expert: i32,
    /// Which of the token's experts it is, counted over all tokens: its row in the block's result.
    pub(super) row: usize,
    /// Where the token's input begins in the block's, in bytes.
    pub(super) input: usize,
}

/// Drawn blocks that are kept at most: more than the layers of a model times the experts of a token.
const MAX_DRAWN: usize = 8192;

/// ggml's CPU backend, and memory for what it computes.
#[derive(Debug)]
pub(super) struct Cold {
    pub(super) backend: Backend,
    /// Blocks of a single token, by their down projection's weights and the number of experts: most of what is computed.
    drawn: HashMap<(Node, usize), Drawn>,
    /// Of the other blocks.
    paper: Paper,
    arena: Arena,
    rows: Vec<u8>,
    ids: Vec<u8>,
}

/// A block of pairs that is drawn.
#[derive(Debug)]
struct Drawn {
    paper: Paper,
    graph: *mut ffi::ggml_cgraph,
    rebuilt: Rebuilt,
    /// How often the arena had moved.
    moves: u64,
}

/// A block of pairs.
#[derive(Debug)]
struct Rebuilt {
    input: Node,
    ids: Node,
    /// The scales of the pairs, in the order of the block's factors.
    scales: Vec<Node>,
    result: Node,
    /// All that needs memory, and what looks into that.
    placed: Vec<Node>,
    views: Vec<Node>,
}

impl Cold {
    pub(super) fn new(backend: Backend) -> Self {
        Self {
            backend,
            drawn: HashMap::new(),
            paper: Paper::default(),
            arena: Arena::new(),
            rows: Vec::new(),
            ids: Vec::new(),
        }
    }

    /// Computes the pairs, and returns a row for each, in their order. `input` has the bytes of the block's input.
    ///
    /// # Safety
    /// The block is one of the graph that is being computed, and the experts of the pairs exist.
    pub(super) unsafe fn compute(&mut self, block: &Block, pairs: &[Pair], input: &[u8]) -> Option<&[u8]> {
        let single = block.ids.size(1) == 1 && block.input.size(1) == 1;
        let key = block.down.filter(|_| single).map(|down| (down, pairs.len()));
        let known = key.and_then(|key| self.drawn.remove(&key));
        let drawn = match known.filter(|known| known.moves == self.arena.moves()) {
            Some(known) => known,
            // SAFETY: nothing is being computed in the arena, as the caller says.
            None => unsafe { self.draw(block, pairs.len(), single)? },
        };
        // SAFETY: as the caller says; the block is drawn where the arena is.
        let done = unsafe { self.compute_drawn(&drawn, block, pairs, input, single) };
        self.rows.resize(drawn.rebuilt.result.size(0) * 4 * pairs.len(), 0);
        done?;
        drawn.rebuilt.result.read(0, &mut self.rows)?;
        match key {
            Some(key) => {
                if self.drawn.len() >= MAX_DRAWN {
                    self.drawn.clear();
                }
                self.drawn.insert(key, drawn);
            }
            None => self.paper = drawn.paper,
        }
        Some(&self.rows)
    }

    /// Draws a block of a single token for each number of experts that may have no copy, so that nothing has to be drawn
    /// while tokens are decoded.
    ///
    /// # Safety
    /// The block is one of the graph that is being computed, and nothing is being computed in the arena.
    pub(super) unsafe fn prepare(&mut self, block: &Block) -> Option<()> {
        let down = block.down?;
        // The largest one first: the arena does not move afterwards.
        for count in (1..=block.experts_per_token()).rev() {
            if self
                .drawn
                .get(&(down, count))
                .is_none_or(|drawn| drawn.moves != self.arena.moves())
            {
                // SAFETY: as the caller says.
                let drawn = unsafe { self.draw(block, count, true)? };
                self.drawn.insert((down, count), drawn);
            }
        }
        Some(())
    }

    /// Draws a block of so many pairs.
    ///
    /// # Safety
    /// As [`Cold::compute`], and nothing is being computed in the arena.
    unsafe fn draw(&mut self, block: &Block, pairs: usize, single: bool) -> Option<Drawn> {
        let mut paper = std::mem::take(&mut self.paper);
        let mut sketch = Sketch::new(&mut paper);
        let rebuilt = rebuild(&mut sketch, block, i64::try_from(pairs).ok()?, single)?;
        // SAFETY: fresh descriptions; otherwise as the caller says.
        unsafe {
            self.arena
                .place(self.backend.buffers(), &rebuilt.placed, &rebuilt.views)?;
        }
        let graph = sketch.finish();
        Some(Drawn {
            paper,
            graph,
            rebuilt,
            moves: self.arena.moves(),
        })
    }

    /// # Safety
    /// As [`Cold::compute`], and the block is drawn where the arena is.
    unsafe fn compute_drawn(
        &mut self,
        drawn: &Drawn,
        block: &Block,
        pairs: &[Pair],
        input: &[u8],
        single: bool,
    ) -> Option<()> {
        let rebuilt = &drawn.rebuilt;
        let row = block.input.size(0) * 4;
        self.rows.clear();
        self.ids.clear();
        for (index, pair) in pairs.iter().enumerate() {
            if index == 0 || !single {
                self.rows
                    .extend_from_slice(input.get(pair.input..pair.input.checked_add(row)?)?);
            }
            self.ids.extend(pair.expert.to_ne_bytes());
        }
        // SAFETY: the CPU's memory is written at once; all tensors have their places now, and the weights theirs.
        unsafe {
            self.backend.write(rebuilt.input, 0, &self.rows)?;
            self.backend.write(rebuilt.ids, 0, &self.ids)?;
            for (factor, scales) in block.factors.iter().zip(&rebuilt.scales) {
                self.backend.write(*scales, 0, &gather(*factor, pairs)?)?;
            }
            self.backend.compute(drawn.graph)
        }
    }
}

/// The scales of the pairs' experts.
fn gather(factor: Factor, pairs: &[Pair]) -> Option<Vec<u8>> {
    let mut scales = vec![0; pairs.len() * 4];
    for (pair, scale) in pairs.iter().zip(scales.as_chunks_mut::<4>().0) {
        factor
            .all
            .read(usize::try_from(pair.expert).ok()?.checked_mul(4)?, scale)?;
    }
    Some(scales)
}

/// The nodes of a block once more, for `count` pairs: of a single token, or each of one of its own.
fn rebuild(sketch: &mut Sketch<'_>, block: &Block, count: i64, single: bool) -> Option<Rebuilt> {
    let (experts, tokens) = if single { (count, 1) } else { (1, count) };
    let input = sketch.tensor(ggml_type::GGML_TYPE_F32, [block.input.shape()[0], 1, tokens, 1])?;
    let ids = sketch.tensor(ggml_type::GGML_TYPE_I32, [experts, tokens, 1, 1])?;
    let mut made = vec![(block.input, input)];
    let mut scales = Vec::new();
    for factor in &block.factors {
        let scale = sketch.tensor(ggml_type::GGML_TYPE_F32, [1, experts, tokens, 1])?;
        made.push((factor.selected, scale));
        scales.push(scale);
    }
    let mut placed = vec![input, ids];
    placed.extend(&scales);
    let mut views = Vec::new();
    for node in block.nodes.iter().copied() {
        let twin = |of: Node| made.iter().find(|(old, _)| *old == of).map(|(_, new)| *new);
        let width = node.shape()[0];
        let (a, b) = (node.source(0), node.source(1));
        let sources = match (node.op(), node.view_of()) {
            (ggml_op::GGML_OP_VIEW, Some((whole, offset))) => {
                let view = sketch.rows_of(twin(whole)?, [width, experts, tokens], offset)?;
                made.push((node, view));
                views.push(view);
                sketch.add(view)?;
                continue;
            }
            (ggml_op::GGML_OP_MUL_MAT_ID, _) => [a, Some(twin(b?)?), Some(ids)],
            (ggml_op::GGML_OP_ADD_ID, _) => [Some(twin(a?)?), b, Some(ids)],
            (_, _) => {
                let b = match b {
                    Some(b) => Some(twin(b)?),
                    None => None,
                };
                [Some(twin(a?)?), b, None]
            }
        };
        let new = sketch.operation(node, [width, experts, tokens, 1], sources)?;
        placed.push(new);
        made.push((node, new));
        sketch.add(new)?;
    }
    let (_, result) = *made.last()?;
    Some(Rebuilt {
        input,
        ids,
        scales,
        result,
        placed,
        views,
    })
}
