//! What is drawn for a block that goes through llama.cpp's own queue: see `queued`.

use super::backend::{Arena, Backend};
use super::block::Block;
use super::drawing::{Drawing, over, twin};
use super::ffi::{self, ggml_op, ggml_type};
use super::halves::Known;
use super::node::Node;
use super::sketch::{Paper, Place, Sketch, Tensors};
use super::stage::{Layout, Stage, pinned};
use super::tail::Tail;
use crate::experts::WorkCounts;

/// A block that is drawn.
pub(super) struct Way {
    pub(super) block: Block,
    pub(super) tail: Tail,
    pub(super) known: Known,
    pub(super) layout: Layout,
    /// Puts together what comes from the GPU.
    pub(super) gather: Drawing,
    pub(super) gathered: Node,
    /// The entries and the mask.
    pub(super) given: Node,
    /// The hot half; where all experts have a copy, and where not. Without copies there is none.
    pub(super) all: Option<Drawing>,
    pub(super) some: Option<Drawing>,
    /// The hot half that finds its entries itself, for a single token.
    pub(super) ahead: Option<Ahead>,
}

/// A hot half with a table of entries by expert.
pub(super) struct Ahead {
    drawing: Drawing,
    /// The table on the GPU, and what is in it.
    place: Node,
    pub(super) table: Vec<i32>,
    /// What the GPU copies it from: of this layer's own, since the copy may still stand in the queue when the next layer's
    /// begins.
    source: Place,
    /// The state of the residency that it shows.
    changes: Option<u64>,
    _arenas: [Arena; 2],
    _descriptions: Tensors,
}

/// Where a hot half has its entries from.
#[derive(Clone, Copy)]
enum Entries {
    /// From the CPU, for experts that all have a copy, or not.
    Given { all: bool },
    /// From a table by expert.
    Found { table: Node },
}

impl Way {
    /// Draws a block; `None` without memory, or for one that is too large.
    ///
    /// # Safety
    /// `gpu` is a device of ggml's registry, and the block one of a graph of its tensors.
    pub(super) unsafe fn draw(
        gpu: ffi::ggml_backend_dev_t,
        stage: &Stage,
        layout: Layout,
        block: Block,
        tail: Tail,
        known: Known,
    ) -> Option<Self> {
        let (gather, gathered, given) = gather(stage, &layout, &block, &tail)?;
        let draw = |entries| hot(stage, &layout, &block, &tail, &known, entries);
        let any = known.copies.count() > 0;
        let drawn = |all| match any {
            true => draw(Entries::Given { all }).map(Some),
            false => Some(None),
        };
        // Kernels for one token do not mind an entry that is named twice, if the weights are quantized.
        let matrices = || block.weights().filter(|weights| weights.size(1) > 1);
        let single = any && block.ids.size(1) == 1 && matrices().all(Node::is_quantized);
        let experts = block.down?.size(2);
        // SAFETY: as the caller says.
        let ahead = single.then(|| unsafe { Ahead::new(gpu, experts, draw) });
        Some(Self {
            gather,
            gathered,
            given,
            all: drawn(true)?,
            some: drawn(false)?,
            ahead: ahead.flatten(),
            block,
            tail,
            known,
            layout,
        })
    }

    /// This, if a device can compute it.
    pub(super) fn fit_for(mut self, main: &Backend) -> Option<Self> {
        let suits = |drawing: &Drawing| drawing.suits(main);
        self.ahead = self.ahead.filter(|ahead| suits(&ahead.drawing));
        let fit = suits(&self.gather) && [&self.all, &self.some].into_iter().flatten().all(suits);
        fit.then_some(self)
    }
}

impl Way {
    /// Starts a hot half that finds its entries in its table, which is written anew if others have a copy now.
    ///
    /// # Safety
    /// What the block reads stands in this queue; all entries are held until the next block has waited.
    pub(super) unsafe fn start_ahead(&mut self, main: &Backend, done: &mut WorkCounts) -> Option<()> {
        let ahead = self.ahead.as_mut()?;
        let zeros = i32::try_from(self.known.copies.spare().start).ok()?;
        let mut state = self.known.layer.state.lock();
        let entries = state.cache.entries_mut();
        entries.hold();
        let changed = ahead.changes.replace(entries.changes()) != Some(entries.changes());
        if changed {
            for (expert, place) in (0..).zip(&mut ahead.table) {
                let entry = entries.entry_of(expert).and_then(|entry| i32::try_from(entry).ok());
                *place = entry.unwrap_or(zeros);
            }
        }
        drop(state);
        if changed {
            done.tables += 1;
            // SAFETY: this layer's last table was copied before its last block, for which was waited.
            unsafe { ahead.write(main)? };
        }
        // SAFETY: as the caller says.
        unsafe { ahead.drawing.start(main, done) }
    }
}

impl Ahead {
    /// `None` without memory for the table.
    ///
    /// # Safety
    /// `gpu` is a device of ggml's registry.
    unsafe fn new(
        gpu: ffi::ggml_backend_dev_t,
        experts: usize,
        draw: impl FnOnce(Entries) -> Option<Drawing>,
    ) -> Option<Self> {
        let (mut arena, mut host) = (Arena::new(), Arena::new());
        // SAFETY: as the caller says, and nobody uses fresh arenas.
        let (place, source) = unsafe {
            let place = arena.piece(ffi::ggml_backend_dev_buffer_type(gpu), experts * 4)?;
            let source = host.piece(pinned(gpu), experts * 4)?;
            (place, source)
        };
        let mut descriptions = Tensors::new();
        let table = descriptions.placed(ggml_type::GGML_TYPE_I32, [1, i64::try_from(experts).ok()?, 1, 1], place)?;
        Some(Self {
            drawing: draw(Entries::Found { table })?,
            place: table,
            table: vec![0; experts],
            source,
            changes: None,
            _arenas: [arena, host],
            _descriptions: descriptions,
        })
    }

    /// Starts to copy the table to the GPU.
    ///
    /// # Safety
    /// `queue` is the GPU's queue, and what was started with this before is done.
    unsafe fn write(&self, queue: &Backend) -> Option<()> {
        let entries: *mut i32 = self.source.data.cast();
        // SAFETY: memory for as many numbers, of which nothing is being copied, as the caller says; it stays with this.
        unsafe {
            entries.copy_from_nonoverlapping(self.table.as_ptr(), self.table.len());
            let bytes = std::slice::from_raw_parts(self.source.data, self.table.len() * 4);
            queue.write(self.place, 0, bytes)
        }
    }
}

/// The graph that puts together what the CPU needs; where that lies; and where the entries and the mask lie.
fn gather(stage: &Stage, layout: &Layout, block: &Block, tail: &Tail) -> Option<(Drawing, Node, Node)> {
    let mut paper = Paper::default();
    let mut sketch = Sketch::new(&mut paper);
    let parts = [
        (block.input, layout.input),
        (tail.weights, layout.weights),
        (block.ids, layout.ids),
    ];
    for (part, offset) in parts {
        let from = sketch.known(part)?;
        let to = sketch.leaf(part.kind(), part.shape(), None, stage.on_gpu(offset)?)?;
        let copy = sketch.copy(from, to)?;
        sketch.expand(copy);
    }
    let numbers = |bytes: usize| i64::try_from(bytes / 4).ok().map(|count| [count, 1, 1, 1]);
    let gathered = sketch.leaf(
        ggml_type::GGML_TYPE_F32,
        numbers(layout.gathered())?,
        None,
        stage.on_gpu(layout.input)?,
    )?;
    let place = stage.on_gpu(layout.entries)?;
    let given = numbers(layout.to_gpu - layout.entries)?;
    let given = sketch.leaf(ggml_type::GGML_TYPE_F32, given, None, place)?;
    let graph = sketch.finish();
    Some((Drawing::new(graph, paper), gathered, given))
}

/// The hot half, weighted and summed, over the memory of the main graph's nodes. Where all experts have a copy for sure the
/// last one's row stays out of the sum, as in the main graph; else it is in the sum, and gives its place to the cold half.
fn hot(stage: &Stage, layout: &Layout, block: &Block, tail: &Tail, known: &Known, entries: Entries) -> Option<Drawing> {
    let mut paper = Paper::default();
    let mut sketch = Sketch::for_tensors(&mut paper, block.nodes.len() + 2 * tail.sums.len() + 16);
    let [experts_per_token, tokens, ..] = block.ids.shape();
    let place = stage.on_gpu(layout.entries)?;
    let mut ids = sketch.leaf(ggml_type::GGML_TYPE_I32, [experts_per_token, tokens, 1, 1], None, place)?;
    if let Entries::Found { table } = entries {
        let (table, selected) = (sketch.known(table)?, sketch.known(block.ids)?);
        let found = sketch.leaf(ggml_type::GGML_TYPE_I32, [1, experts_per_token, 1, 1], None, place)?;
        sketch.set_operation(found, ggml_op::GGML_OP_GET_ROWS, [table, selected]);
        ids = sketch.in_a_row(found)?;
    }
    let mut made = vec![(block.input, sketch.known(block.input)?)];
    for node in block.nodes.iter().copied() {
        let new = over(&mut sketch, node, &made)?;
        if let Some(weights) = node.expert_weights() {
            let position = usize::from(node.op() == ggml_op::GGML_OP_ADD_ID);
            sketch.set_source(new, position, known.copies.of(weights)?);
            sketch.set_source(new, 2, ids);
        }
        made.push((node, new));
    }
    let mut weights = sketch.known(tail.weights)?;
    if let Entries::Given { all: false } = entries {
        let shape = tail.weights.shape();
        let mask = sketch.leaf(ggml_type::GGML_TYPE_F32, shape, None, stage.on_gpu(layout.mask)?)?;
        let masked = sketch.leaf(ggml_type::GGML_TYPE_F32, shape, None, stage.on_gpu(layout.masked)?)?;
        sketch.set_operation(masked, ggml_op::GGML_OP_MUL, [weights, mask]);
        weights = masked;
    }
    made.push((tail.weights, weights));
    let last = (block.experts_per_token() - 1) * tail.product.strides()[1];
    let mut last_row = None;
    for node in std::iter::once(tail.product).chain(tail.sums.iter().copied()) {
        let new = over(&mut sketch, node, &made)?;
        made.push((node, new));
        sketch.expand(new);
        if node.view_of().is_some_and(|(_, offset)| offset == last) {
            last_row = Some(new);
        }
    }
    if !matches!(entries, Entries::Given { all: true }) {
        let sum = twin(&made, tail.sum)?;
        let (kind, shape, strides) = (tail.sum.kind(), tail.sum.shape(), tail.sum.strides());
        let whole = sketch.leaf(kind, shape, Some(strides), Place::of(tail.sum)?)?;
        sketch.set_operation(whole, ggml_op::GGML_OP_ADD, [sum, last_row?]);
        sketch.expand(whole);
    }
    let graph = sketch.finish();
    Some(Drawing::new(graph, paper))
}
