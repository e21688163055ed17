//! The backend of one context: computes the nodes that llama.cpp's scheduler gives it.

use std::collections::HashMap;
use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::block::{self, Block};
use super::buffer;
use super::cold::{Cold, Pair};
use super::copies::Entries;
use super::ffi::{self, ggml_status};
use super::hot::Hot;
use super::node::{Node, nodes_of};
use super::registry::registered;
use super::sketch::{Paper, Sketch};
use crate::experts::ExpertCache;
use crate::experts::handover;
use crate::experts::layer::Layer;
use crate::experts::policy::Overhead;
use crate::experts::selection;

/// Nodes of a graph after which a projection belongs to no block any more.
const BLOCK_AHEAD: usize = 24;

/// What one context computes with.
struct Instance {
    /// ggml's CPU backend: the experts without a copy, and without a GPU also all that is no block.
    cold: Cold,
    /// The cache device: the experts with a copy, and with a GPU also all that is no block.
    hot: Hot,
    /// Whether the tensors of the graph are on the cache device, a GPU, instead of in main memory.
    on_gpu: bool,
    /// By the weights that stand for a layer.
    layers: HashMap<Node, Known>,
    /// Experts that were selected, token by token; and as they came from the device.
    ids: Vec<u32>,
    raw_ids: Vec<u8>,
    /// The entries of those that have a copy, and the entries that stand in for the others.
    entries: Vec<Option<u32>>,
    stand_ins: Vec<u32>,
    pairs: Vec<Pair>,
    /// The block's input.
    input: Vec<u8>,
    /// For the description of a partial graph.
    paper: Paper,
    overhead: Overhead,
}

/// A layer as this context knows it, until its cache changes.
#[derive(Clone)]
struct Known {
    cache: Arc<ExpertCache>,
    version: u64,
    layer: Arc<Layer>,
    copies: Arc<Entries>,
}

/// Tells our backends apart from others.
static GUID: [u8; 16] = *b"hearth experts 1";

pub(super) extern "C" fn create(device: ffi::ggml_backend_dev_t, _: *const c_char) -> ffi::ggml_backend_t {
    let Some(plugin) = registered() else {
        return std::ptr::null_mut();
    };
    // The store computes in main memory; where there is a device before it, it is never asked to.
    let on_gpu = plugin.compute == Some(device);
    let cache_device = if on_gpu { plugin.cache_device() } else { plugin.cpu };
    // SAFETY: devices of ggml's registry; each instance has backends of its own.
    let (Some(cold), Some(hot)) = (unsafe { (Backend::new(plugin.cpu), Backend::new(cache_device)) }) else {
        return std::ptr::null_mut();
    };
    let instance = Box::new(Instance::new(cold, hot, on_gpu));
    Box::into_raw(Box::new(ffi::ggml_backend {
        guid: (&raw const GUID).cast_mut(),
        iface: ffi::ggml_backend_i {
            get_name: Some(name),
            free: Some(free),
            graph_compute: Some(compute),
            ..Default::default()
        },
        device,
        context: Box::into_raw(instance).cast(),
    }))
}

extern "C" fn name(backend: ffi::ggml_backend_t) -> *const c_char {
    // SAFETY: ggml passes a backend of ours, whose device is registered.
    unsafe { ffi::ggml_backend_dev_name((*backend).device) }
}

extern "C" fn free(backend: ffi::ggml_backend_t) {
    // SAFETY: made by `create`, and freed once.
    unsafe {
        let backend = Box::from_raw(backend);
        drop(Box::from_raw(backend.context.cast::<Instance>()));
    }
}

/// llama.cpp asks for this function by name, and tells every backend how many threads to use.
pub(super) extern "C" fn set_threads(backend: ffi::ggml_backend_t, threads: c_int) {
    // SAFETY: llama.cpp passes a backend of ours.
    let instance = unsafe { &*(*backend).context.cast::<Instance>() };
    instance.cold.backend.set_threads(threads);
    instance.hot.backend.set_threads(threads);
}

extern "C" fn compute(backend: ffi::ggml_backend_t, graph: *mut ffi::ggml_cgraph) -> ggml_status::Type {
    // SAFETY: ggml computes on one thread at a time per backend.
    let instance = unsafe { &mut *(*backend).context.cast::<Instance>() };
    // SAFETY: ggml passes a graph whose sources are complete, and which stays until this returns.
    let result = catch_unwind(AssertUnwindSafe(|| unsafe { instance.compute(graph) }));
    match result {
        Ok(Some(())) => ggml_status::GGML_STATUS_SUCCESS,
        _ => ggml_status::GGML_STATUS_FAILED,
    }
}

impl Instance {
    fn new(cold: Backend, hot: Backend, on_gpu: bool) -> Self {
        Self {
            cold: Cold::new(cold),
            hot: Hot::new(hot),
            on_gpu,
            layers: HashMap::new(),
            ids: Vec::new(),
            raw_ids: Vec::new(),
            entries: Vec::new(),
            stand_ins: Vec::new(),
            pairs: Vec::new(),
            input: Vec::new(),
            paper: Paper::default(),
            overhead: Overhead::default(),
        }
    }

    /// # Safety
    /// `graph` is a graph whose sources are complete, and nobody else computes with it.
    unsafe fn compute(&mut self, graph: *mut ffi::ggml_cgraph) -> Option<()> {
        // SAFETY: as the caller says.
        let nodes = unsafe { nodes_of(graph) };
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
            let computed = match layer {
                Some(known) => self.cached(&block, &known)?,
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
    fn pass_on(&mut self, nodes: &[Node], start: usize, end: usize) -> Option<()> {
        let nodes = nodes.get(start..end).unwrap_or_default();
        if nodes.iter().all(|node| node.is_view()) {
            return Some(());
        }
        let mut paper = std::mem::take(&mut self.paper);
        let part = Sketch::of(&mut paper, nodes);
        // SAFETY: the scheduler gives us nodes with memory that this device reads and writes; what comes before is done.
        let done = unsafe { self.main_backend().compute(part.graph()) };
        drop(part);
        self.paper = paper;
        done
    }

    /// The same for all nodes of a graph.
    fn pass_on_all(&mut self, nodes: &[Node], graph: *mut ffi::ggml_cgraph) -> Option<()> {
        if nodes.iter().all(|node| node.is_view()) {
            return Some(());
        }
        // SAFETY: as in `pass_on`.
        unsafe { self.main_backend().compute(graph) }
    }

    /// The layer of a block, made when it is first seen; `None` if the weights belong to no cache.
    fn layer(&mut self, block: &Block) -> Option<Known> {
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
        let acquired = self.acquire(block, known);
        let any_hot = acquired
            && self.entries.iter().any(Option::is_some)
            && self.hot.assign(&self.entries, block, &self.stand_ins, &known.copies);
        if !any_hot {
            self.release(known, 0);
            self.entries.fill(None);
        }
        if !any_hot && !self.on_gpu {
            return Some(false);
        }
        let took = self.split(block, any_hot.then_some(known));
        // The device has finished, whether or not it went well: nobody reads the entries any more.
        self.hot.backend.synchronize();
        if any_hot {
            let hot = self.entries.iter().flatten().count();
            self.release(known, if took.is_some() { hot } else { 0 });
        }
        let took = took?;
        if self.on_gpu {
            let cold = self.entries.iter().filter(|entry| entry.is_none()).count();
            self.overhead.observe(begin.elapsed(), took, cold, any_hot);
            let break_even = self.overhead.break_even(self.entries.len());
            known.layer.state.lock().cache.set_break_even(break_even);
        }
        Some(true)
    }

    /// Takes note of what was selected, asks for uploads, and acquires what a hot half would need; false if it may not be
    /// computed.
    fn acquire(&mut self, block: &Block, known: &Known) -> bool {
        let experts_per_token = block.experts_per_token();
        let Known {
            cache, layer, copies, ..
        } = known;
        let step = cache.step();
        cache.record(layer.number, step, experts_per_token, &self.ids);
        let possible = block.is_small() && copies.count() > 0;
        let probe = self.on_gpu && possible && self.overhead.probe();
        self.entries.clear();
        self.stand_ins.clear();
        let mut state = layer.state.lock();
        let wanted = possible && state.cache.in_use() != probe;
        if wanted {
            handover::acquire(&mut state.cache, &self.ids, &mut self.entries);
        } else {
            self.entries.resize(self.ids.len(), None);
        }
        state.observe(step, &self.ids, experts_per_token);
        cache.upload_wanted(layer, &mut state.cache);
        // After the uploads were chosen: an entry that only stands in keeps no expert from leaving.
        let spare = copies.spare();
        let missing = selection::missing_stand_ins(&self.entries, experts_per_token, spare.len());
        let complete = wanted && state.cache.entries_mut().acquire_any(missing, &mut self.stand_ins);
        // Those that need not be acquired stand last; `release` knows them by their numbers.
        self.stand_ins.extend(spare);
        complete
    }

    /// Ends what [`Instance::acquire`] began; so many selections were computed with a copy.
    fn release(&mut self, known: &Known, computed: usize) {
        let spare = known.copies.spare();
        let stand_ins = self.stand_ins.iter().copied().filter(|entry| !spare.contains(entry));
        let entries = self.entries.iter().flatten().copied().chain(stand_ins);
        let mut state = known.layer.state.lock();
        handover::release(&mut state.cache, entries);
        state.cache.computed(computed);
        drop(state);
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
    fn read_ids(&mut self, block: &Block) -> Option<()> {
        let [experts_per_token, tokens] = [0, 1].map(|dimension| block.ids.size(dimension));
        let [step, row, ..] = block.ids.strides();
        self.ids.clear();
        if experts_per_token == 0 || tokens == 0 {
            return Some(());
        }
        self.raw_ids
            .resize(row * (tokens - 1) + step * (experts_per_token - 1) + 4, 0);
        block.ids.read(0, &mut self.raw_ids)?;
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
    fn split(&mut self, block: &Block, hot: Option<&Known>) -> Option<Duration> {
        // The hot half may overwrite the input once it has read it, so the cold one's is read first.
        self.choose_pairs(block)?;
        if let Some(known) = hot {
            // SAFETY: blocks are nodes of the graph that is being computed, whose sources are complete; `cached` waits for
            // this before it releases the entries and before it starts the next.
            unsafe { self.hot.start(block, known.layer.number, &known.copies)? };
        }
        if self.pairs.is_empty() {
            return Some(Duration::ZERO);
        }
        let begin = Instant::now();
        // SAFETY: as above; the router selects experts that exist.
        let rows = unsafe { self.cold.compute(block, &self.pairs, &self.input)? };
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
            unsafe { self.hot.backend.write_aliased(result, offset, row)? };
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
