//! The two halves of blocks: which experts are in which, what is acquired for them, and the way of a block that fits all graphs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::block::{self, Block};
use super::buffer;
use super::cold::{Cold, Pair};
use super::copies::Entries;
use super::ffi;
use super::hot::Hot;
use super::node::Node;
use super::sketch::{Paper, Sketch};
use crate::experts::handover;
use crate::experts::layer::Layer;
use crate::experts::policy::Overhead;
use crate::experts::selection::{self, MAX_BLOCK_TOKENS};
use crate::experts::{ExpertCache, WorkCounts};

/// Nodes of a graph after which a projection belongs to no block any more.
const BLOCK_AHEAD: usize = 24;

/// What one context computes blocks with.
pub(super) struct Halves {
    /// ggml's CPU backend: the experts without a copy, and without a GPU also all that is no block.
    pub(super) cold: Cold,
    /// The cache device: the experts with a copy, and with a GPU also all that is no block.
    pub(super) hot: Hot,
    /// Whether the tensors of the graph are on the cache device, a GPU, instead of in main memory.
    pub(super) on_gpu: bool,
    /// By the weights that stand for a layer.
    layers: HashMap<Node, Known>,
    /// Experts that were selected, token by token; and as they came from the device.
    pub(super) ids: Vec<u32>,
    raw_ids: Vec<u8>,
    /// The router's weights of the selected experts.
    pub(super) weights: Vec<f32>,
    /// The entries of those that have a copy, and the entries that stand in for the others.
    pub(super) entries: Vec<Option<u32>>,
    pub(super) stand_ins: Vec<u32>,
    /// Kept, so that nothing is allocated per token.
    pub(super) pending_entries: Vec<u32>,
    pub(super) pairs: Vec<Pair>,
    /// The block's input.
    input: Vec<u8>,
    /// For the description of a partial graph.
    paper: Paper,
    pub(super) overhead: Overhead,
    /// What was done for the graph at hand, on the way that waits.
    done: WorkCounts,
}

/// A layer as this context knows it, until its cache changes.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) cache: Arc<ExpertCache>,
    pub(super) version: u64,
    pub(super) layer: Arc<Layer>,
    pub(super) copies: Arc<Entries>,
}

impl Halves {
    pub(super) fn new(cold: Backend, hot: Backend, on_gpu: bool) -> Self {
        Self {
            cold: Cold::new(cold),
            hot: Hot::new(hot),
            on_gpu,
            layers: HashMap::new(),
            ids: Vec::new(),
            raw_ids: Vec::new(),
            weights: Vec::new(),
            entries: Vec::new(),
            stand_ins: Vec::new(),
            pending_entries: Vec::new(),
            pairs: Vec::new(),
            input: Vec::new(),
            paper: Paper::default(),
            overhead: Overhead::default(),
            done: WorkCounts::default(),
        }
    }

    /// Computes any graph, and waits for the GPU as often as that takes.
    ///
    /// # Safety
    /// `graph` is a graph whose sources are complete, and nobody else computes with it.
    pub(super) unsafe fn compute(&mut self, graph: *mut ffi::ggml_cgraph, nodes: &[Node]) -> Option<()> {
        // The scheduler has waited.
        self.done = WorkCounts {
            waits: 1,
            ..WorkCounts::default()
        };
        let mut cache = None;
        // Nodes before this one are done.
        let mut done = 0;
        for at in 0..nodes.len() {
            // Part of a block that is done.
            if at < done {
                continue;
            }
            let Some(block) = self.block(nodes, at) else { continue };
            let layer = self.layer(&block);
            if layer.is_none() && !self.on_gpu {
                continue;
            }
            // The ids may come from this very graph.
            self.pass_on(nodes, done, block.first)?;
            done = block.first;
            self.done.recognitions += 1;
            let computed = match layer {
                Some(known) => {
                    self.done.blocks += 1;
                    let computed = self.cached(&block, &known)?;
                    cache = Some(known.cache);
                    computed
                }
                None => self.uncached(&block)?,
            };
            if computed {
                done = block.last + 1;
            }
        }
        if done == 0 {
            self.pass_on_all(nodes, graph)?;
        } else {
            self.pass_on(nodes, done, nodes.len())?;
        }
        if self.on_gpu {
            self.hot.backend.synchronize();
            self.done.waits += 1;
        }
        if let Some(cache) = cache {
            cache.work.count(self.done);
        }
        Some(())
    }

    /// The block that ends here. Without a GPU, what is no block can be passed on as it is; with one, each node with experts
    /// is a block.
    fn block(&self, nodes: &[Node], at: usize) -> Option<Block> {
        let block = block::ending_at(nodes, at);
        if block.is_some() || !self.on_gpu {
            return block;
        }
        let alone = block::alone(nodes, at)?;
        // It may be the beginning of a block that ends further on.
        let inner = (at + 1..nodes.len().min(at + BLOCK_AHEAD))
            .filter_map(|end| block::ending_at(nodes, end))
            .any(|block| block.nodes.contains(&nodes[at]));
        (!inner).then_some(alone)
    }

    /// The backend on whose device the graph's tensors are.
    fn main_backend(&self) -> &Backend {
        if self.on_gpu {
            &self.hot.backend
        } else {
            &self.cold.backend
        }
    }

    /// Computes a graph's nodes from `start` to `end`, on the device where its tensors are.
    pub(super) fn pass_on(&mut self, nodes: &[Node], start: usize, end: usize) -> Option<()> {
        let nodes = nodes.get(start..end).unwrap_or_default();
        if nodes.iter().all(|node| node.is_view()) {
            return Some(());
        }
        let mut paper = std::mem::take(&mut self.paper);
        let part = Sketch::of(&mut paper, nodes);
        // SAFETY: the scheduler gives us nodes with memory that this device reads and writes; what comes before is done.
        let done = unsafe { self.main_backend().compute(part.graph()) };
        self.done.graphs += 1;
        self.done.waits += 1;
        self.done.nodes += nodes.iter().filter(|node| !node.is_view()).count() as u64;
        drop(part);
        self.paper = paper;
        done
    }

    /// The same for all nodes of a graph.
    pub(super) fn pass_on_all(&mut self, nodes: &[Node], graph: *mut ffi::ggml_cgraph) -> Option<()> {
        if nodes.iter().all(|node| node.is_view()) {
            return Some(());
        }
        // SAFETY: as in `pass_on`.
        unsafe { self.main_backend().compute(graph) }
    }

    /// The layer of a block, made when it is first seen; `None` if the weights belong to no cache.
    pub(super) fn layer(&mut self, block: &Block) -> Option<Known> {
        let down = block.down?;
        if let Some(known) = self.layers.get(&down)
            && known.version == known.cache.version()
        {
            return Some(known.clone());
        }
        // The old copies go before the new ones come.
        self.layers.remove(&down);
        let cache = buffer::cache_of(down.buffer()?)?;
        let version = cache.version();
        let layer = cache.layer(block.layer()?, down.size(2), |capacity| {
            Entries::allocate(block, capacity)
        })?;
        let copies: Arc<dyn std::any::Any + Send + Sync> = layer.copies.clone();
        let known = Known {
            cache,
            version,
            layer,
            copies: copies.downcast().ok()?,
        };
        self.layers.insert(down, known.clone());
        Some(known)
    }

    /// Computes a block with its layer's cache; false if nothing was computed, and the nodes are to be passed on. The ids of
    /// the block are complete.
    fn cached(&mut self, block: &Block, known: &Known) -> Option<bool> {
        let begin = Instant::now();
        self.read_ids(block)?;
        let used = block.is_small() && known.copies.count() > 0 && self.are_copies_used(known);
        self.acquire(known, used);
        self.observe(known, block.experts_per_token(), 0);
        known
            .cache
            .upload_wanted(&known.layer, &mut known.layer.state.lock().cache);
        // After the uploads were chosen: an entry that only stands in keeps no expert from leaving.
        let any_hot = used
            && self.stand_in(block, known)
            && self.entries.iter().any(Option::is_some)
            && self.hot.assign(&self.entries, block, &self.stand_ins, &known.copies);
        if !any_hot {
            self.release(known);
            self.entries.fill(None);
        }
        if !any_hot && !self.on_gpu {
            return Some(false);
        }
        let took = self.split(block, any_hot.then_some(known));
        // The device has finished, whether or not it went well: nobody reads the entries any more.
        self.hot.backend.synchronize();
        self.done.waits += 1;
        if any_hot {
            let hot = self.entries.iter().flatten().count();
            self.release(known);
            if took.is_some() {
                known.layer.state.lock().cache.computed(hot);
            }
        }
        let took = took?;
        if self.on_gpu {
            let cold = self.entries.iter().filter(|entry| entry.is_none()).count();
            self.overhead.observe(begin.elapsed(), took, cold, any_hot);
        }
        Some(true)
    }

    /// Whether a layer's copies are used now; now and then that is tried out the other way.
    pub(super) fn are_copies_used(&mut self, known: &Known) -> bool {
        let probe = self.on_gpu && self.overhead.probe();
        known.layer.state.lock().cache.in_use() != probe
    }

    /// Acquires the entries of the selected experts that have a copy, if copies are used.
    pub(super) fn acquire(&mut self, known: &Known, used: bool) {
        self.entries.clear();
        self.stand_ins.clear();
        if used {
            let mut state = known.layer.state.lock();
            handover::acquire(&mut state.cache, &self.ids, &mut self.entries);
        } else {
            self.entries.resize(self.ids.len(), None);
        }
    }

    /// Acquires entries that stand in for the experts without a copy; false if there are too few of them.
    pub(super) fn stand_in(&mut self, block: &Block, known: &Known) -> bool {
        let spare = known.copies.spare();
        let missing = selection::missing_stand_ins(&self.entries, block.experts_per_token(), spare.len());
        let mut state = known.layer.state.lock();
        let complete = state.cache.entries_mut().acquire_any(missing, &mut self.stand_ins);
        // Those that need not be acquired stand last; `release` knows them by their numbers.
        self.stand_ins.extend(spare);
        complete
    }

    /// Takes note of what was selected, and of how many selections were computed with a copy.
    pub(super) fn observe(&mut self, known: &Known, experts_per_token: usize, computed: usize) {
        let Known { cache, layer, .. } = known;
        if cache.rehearses() {
            return;
        }
        let step = cache.step();
        cache.record(layer.number, step, experts_per_token, &self.ids);
        let mut state = layer.state.lock();
        // What large blocks cost beside arithmetic is not measured.
        if self.on_gpu && self.ids.len() <= MAX_BLOCK_TOKENS * experts_per_token {
            state.cache.set_break_even(self.overhead.break_even(self.ids.len()));
        }
        state.cache.computed(computed);
        state.observe(step, &self.ids, experts_per_token);
    }

    /// Ends what [`Halves::acquire`] and [`Halves::stand_in`] began.
    pub(super) fn release(&mut self, known: &Known) {
        let spare = known.copies.spare();
        let stand_ins = self.stand_ins.iter().copied().filter(|entry| !spare.contains(entry));
        let entries = self.entries.iter().flatten().copied().chain(stand_ins);
        handover::release(&mut known.layer.state.lock().cache, entries);
        self.stand_ins.clear();
    }

    /// Computes a block whose weights belong to no cache: all of it on the CPU.
    fn uncached(&mut self, block: &Block) -> Option<bool> {
        self.read_ids(block)?;
        self.entries.clear();
        self.entries.resize(self.ids.len(), None);
        self.split(block, None)?;
        self.hot.backend.synchronize();
        Some(true)
    }

    /// Reads which experts were selected, token by token. The ids may be a view with rows far apart.
    pub(super) fn read_ids(&mut self, block: &Block) -> Option<()> {
        let [experts_per_token, tokens] = [0, 1].map(|dimension| block.ids.size(dimension));
        let [step, row, ..] = block.ids.strides();
        self.ids.clear();
        if experts_per_token == 0 || tokens == 0 {
            return Some(());
        }
        self.raw_ids
            .resize(row * (tokens - 1) + step * (experts_per_token - 1) + 4, 0);
        block.ids.read(0, &mut self.raw_ids)?;
        self.done.waits += 1;
        self.done.downloads += 1;
        for token in 0..tokens {
            for index in 0..experts_per_token {
                let bytes = self.raw_ids.get(token * row + index * step..)?.first_chunk()?;
                self.ids.push(u32::try_from(i32::from_ne_bytes(*bytes)).ok()?);
            }
        }
        Some(())
    }

    /// Computes the hot and the cold half of a block at the same time; returns how long the cold one took. With a layer, the
    /// hot half was assigned, and its entries are acquired.
    pub(super) fn split(&mut self, block: &Block, hot: Option<&Known>) -> Option<Duration> {
        // The hot half may overwrite the input once it has read it, so the cold one's is read first.
        self.choose_pairs(block)?;
        if let Some(known) = hot {
            // SAFETY: blocks are nodes of the graph that is being computed, whose sources are complete; `cached` waits for
            // this before it releases the entries and before it starts the next.
            unsafe { self.hot.start(block, known.layer.number, &known.copies)? };
            self.done.graphs += 1;
            self.done.uploads += 1;
            self.done.nodes += block.nodes.iter().filter(|node| !node.is_view()).count() as u64;
        }
        if self.pairs.is_empty() {
            return Some(Duration::ZERO);
        }
        let begin = Instant::now();
        // SAFETY: as above; the router selects experts that exist.
        let rows = unsafe { self.cold.compute(block, &self.pairs, &self.input)? };
        self.done.cold_graphs += 1;
        let took = begin.elapsed();
        if !self.on_gpu {
            self.hot.backend.synchronize();
        }
        let result = block.result()?;
        let experts_per_token = block.experts_per_token().max(1);
        let [_, column, token, _] = result.strides();
        for (pair, row) in self.pairs.iter().zip(rows.chunks_exact((result.size(0) * 4).max(1))) {
            let offset = pair.row / experts_per_token * token + pair.row % experts_per_token * column;
            // SAFETY: the result is on the main device, in whose queue this stands behind the hot half; the rows stay until the
            // next block, which is after this one is synchronized.
            unsafe { self.hot.backend.write(result, offset, row)? };
            self.done.uploads += 1;
        }
        Some(took)
    }

    /// Collects the experts without a copy, and reads the block's input for them.
    fn choose_pairs(&mut self, block: &Block) -> Option<()> {
        self.pairs.clear();
        if self.entries.iter().all(Option::is_some) {
            return Some(());
        }
        self.input.resize(block.input.bytes(), 0);
        block.input.read(0, &mut self.input)?;
        self.done.waits += 1;
        self.done.downloads += 1;
        let experts_per_token = block.experts_per_token().max(1);
        let [_, column, token, _] = block.input.strides();
        let shared = block.input.size(1) == 1;
        for (row, (entry, expert)) in self.entries.iter().zip(&self.ids).enumerate() {
            if entry.is_none() {
                let index = if shared { 0 } else { row % experts_per_token };
                self.pairs.push(Pair {
                    expert: i32::try_from(*expert).ok()?,
                    row,
                    input: row / experts_per_token * token + index * column,
                });
            }
        }
        Some(())
    }
}
