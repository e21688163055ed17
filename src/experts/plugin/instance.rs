//! The backend of one context: computes the nodes that llama.cpp's scheduler gives it.

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::block::{self, Block, MOST_TOKENS};
use super::cold::{Cold, Pair};
use super::copies::Copies;
use super::ffi::{self, ggml_status, ggml_tensor};
use super::hot::Hot;
use super::layer::Layer;
use super::tensors::{Backend, context};
use super::{buffer, device, registered};
use crate::experts::ExpertCache;
use crate::experts::handover;
use crate::experts::policy::Overhead;
use crate::experts::settings::Step;

const SUCCESS: ggml_status::Type = ggml_status::GGML_STATUS_SUCCESS;
const FAILED: ggml_status::Type = ggml_status::GGML_STATUS_FAILED;

/// What one context computes with.
struct Instance {
    /// ggml's CPU backend: the experts without a copy, and without a GPU also all that is no block.
    cold: Cold,
    /// The cache device: the experts with a copy, and with a GPU also all that is no block.
    hot: Hot,
    /// Whether the tensors of the graph are on the cache device, a GPU, instead of in main memory.
    on_gpu: bool,
    set_threads: Option<SetThreads>,
    /// By the address of the weights that stand for a layer.
    layers: HashMap<usize, Known>,
    /// Experts that were selected, token by token; and as they came from the GPU.
    ids: Vec<u32>,
    selected: Vec<u8>,
    slots: Vec<Option<u32>>,
    pairs: Vec<Pair>,
    /// The block's input, if it is not in main memory.
    input: Vec<u8>,
    /// Room for the description of a partial graph.
    graph: Vec<u64>,
    overhead: Overhead,
}

/// A layer as this context knows it, until its cache changes.
struct Known {
    cache: Arc<ExpertCache>,
    version: u64,
    layer: Arc<Layer>,
}

type SetThreads = unsafe extern "C" fn(ffi::ggml_backend_t, c_int);

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
    // SAFETY: the registry of ggml's CPU device, and a name that ends with a zero. The function, if it is there, has this type.
    let set_threads = unsafe {
        let registry = ffi::ggml_backend_dev_backend_reg(plugin.cpu);
        let function = ffi::ggml_backend_reg_get_proc_address(registry, c"ggml_backend_set_n_threads".as_ptr());
        (!function.is_null()).then(|| std::mem::transmute::<*mut c_void, SetThreads>(function))
    };
    let instance = Box::new(Instance {
        cold: Cold::new(cold),
        hot: Hot::new(hot),
        on_gpu,
        set_threads,
        layers: HashMap::new(),
        ids: Vec::new(),
        selected: Vec::new(),
        slots: Vec::new(),
        pairs: Vec::new(),
        input: Vec::new(),
        graph: Vec::new(),
        overhead: Overhead::default(),
    });
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
    // SAFETY: ggml passes a backend of ours.
    device::name(unsafe { (*backend).device })
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
    if let Some(set) = instance.set_threads {
        // SAFETY: backends of ggml's CPU device.
        unsafe {
            set(instance.cold.backend.get(), threads);
            if !instance.on_gpu {
                set(instance.hot.backend.get(), threads);
            }
        }
    }
}

extern "C" fn compute(backend: ffi::ggml_backend_t, graph: *mut ffi::ggml_cgraph) -> ggml_status::Type {
    // SAFETY: ggml computes on one thread at a time per backend.
    let instance = unsafe { &mut *(*backend).context.cast::<Instance>() };
    // SAFETY: ggml passes a graph whose sources are complete.
    let result = catch_unwind(AssertUnwindSafe(|| unsafe { instance.compute(graph) }));
    match result {
        Ok(Some(())) => SUCCESS,
        _ => FAILED,
    }
}

impl Instance {
    /// # Safety
    /// `graph` is a graph whose sources are complete.
    unsafe fn compute(&mut self, graph: *mut ffi::ggml_cgraph) -> Option<()> {
        // SAFETY: as the caller says.
        unsafe {
            let count = usize::try_from(ffi::ggml_graph_n_nodes(graph)).unwrap_or(0);
            let nodes = std::slice::from_raw_parts(ffi::ggml_graph_nodes(graph), count);
            // Nodes before this one are done.
            let mut done = 0;
            for at in 0..count {
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
                self.pass_on(graph, nodes, done, block.first)?;
                done = block.first;
                let computed = match layer {
                    Some((cache, layer)) => self.cached(&block, &cache, &layer)?,
                    None => self.uncached(&block)?,
                };
                if computed {
                    done = block.last + 1;
                }
            }
            self.pass_on(graph, nodes, done, count)?;
            if self.on_gpu {
                self.hot.backend.synchronize();
            }
        }
        Some(())
    }

    /// The block that ends here. Without a GPU, what is no block can be passed on as it is; with one, each node with experts
    /// is a block.
    ///
    /// # Safety
    /// `nodes` are the nodes of a graph that is being computed.
    unsafe fn block(&self, nodes: &[*mut ggml_tensor], at: usize) -> Option<Block> {
        // SAFETY: as the caller says.
        unsafe {
            let block = block::ending_at(nodes, at);
            if block.is_some() || !self.on_gpu {
                return block;
            }
            let alone = block::alone(nodes, at)?;
            // It may be the beginning of a block that ends further on.
            let inner = (at + 1..nodes.len().min(at + 24))
                .filter_map(|end| block::ending_at(nodes, end))
                .any(|block| block.nodes.contains(&nodes[at]));
            (!inner).then_some(alone)
        }
    }

    /// Computes some of a graph's nodes, on the device where its tensors are.
    ///
    /// # Safety
    /// `nodes` are the nodes of `graph`, and the sources of those from `start` to `end` are complete.
    unsafe fn pass_on(
        &mut self,
        graph: *mut ffi::ggml_cgraph,
        nodes: &[*mut ggml_tensor],
        start: usize,
        end: usize,
    ) -> Option<()> {
        // SAFETY: as the caller says; the partial graph lives as long as the memory that it is described in.
        let status = unsafe {
            if nodes[start.min(end)..end].iter().all(|node| block::is_view(*node)) {
                return Some(());
            }
            let backend = match self.on_gpu {
                true => self.hot.backend.get(),
                false => self.cold.backend.get(),
            };
            if start == 0 && end == nodes.len() {
                ffi::ggml_backend_graph_compute(backend, graph)
            } else {
                let size = ffi::ggml_graph_overhead_custom(end - start, false) + 1024;
                self.graph.resize(size.div_ceil(8).max(self.graph.len()), 0);
                let context = context(self.graph.as_mut_ptr().cast(), self.graph.len() * 8);
                let part = ffi::ggml_new_graph_custom(context, end - start, false);
                for node in &nodes[start..end] {
                    ffi::ggml_graph_add_node(part, *node);
                }
                ffi::ggml_backend_graph_compute(backend, part)
            }
        };
        (status == SUCCESS).then_some(())
    }

    /// The layer of a block, made when it is first seen; `None` if the weights belong to no cache.
    ///
    /// # Safety
    /// The block is one of the graph that is being computed.
    unsafe fn layer(&mut self, block: &Block) -> Option<(Arc<ExpertCache>, Arc<Layer>)> {
        let known = self.layers.get(&(block.down as usize));
        if let Some(known) = known.filter(|known| known.version == known.cache.version()) {
            return Some((known.cache.clone(), known.layer.clone()));
        }
        // The old copies go before the new ones come.
        self.layers.remove(&(block.down as usize));
        // SAFETY: as the caller says; the weights stand for the layer.
        unsafe {
            let number = block.layer()?;
            let cache = buffer::cache_of((*block.down).buffer)?;
            let experts = usize::try_from((*block.down).ne[2]).ok()?;
            let version = cache.version();
            let layer = cache.layer(number, experts, |slots, state| Layer::new(block, slots, state))?;
            let known = Known {
                cache: cache.clone(),
                version,
                layer: layer.clone(),
            };
            self.layers.insert(block.down as usize, known);
            Some((cache, layer))
        }
    }

    /// Computes a block with its layer's cache; false if nothing was computed, and the nodes are to be passed on.
    ///
    /// # Safety
    /// As [`Instance::layer`]; the ids are complete.
    unsafe fn cached(&mut self, block: &Block, cache: &Arc<ExpertCache>, layer: &Arc<Layer>) -> Option<bool> {
        // SAFETY: as the caller says. Slots stay pinned until the device has read them.
        unsafe {
            let begin = Instant::now();
            self.read_ids(block)?;
            let per_token = usize::try_from((*block.ids).ne[0]).ok()?;
            let step = cache.step();
            cache.record(layer.number, step, per_token, &self.ids);
            self.slots.clear();
            let large = (*block.ids).ne[1] > MOST_TOKENS;
            let zero = {
                let mut state = layer.state.lock();
                if !large && state.cache.in_use() && layer.copies.exist() {
                    handover::pin(&mut state.cache, &self.ids, &mut self.slots);
                } else {
                    self.slots.resize(self.ids.len(), None);
                }
                for token in self.ids.chunks_exact(per_token.max(1)) {
                    state.note(token);
                    match step {
                        Step::Decode => state.cache.decoded(token),
                        Step::Prefill => state.cache.prefilled(token),
                    }
                }
                cache.upload_wanted(layer, &mut state.cache);
                state.cache.slots().slots()
            };
            let any_hot = self.slots.iter().any(Option::is_some);
            if !any_hot && !self.on_gpu {
                return Some(false);
            }
            let hot = any_hot.then_some((&layer.copies, layer.number, zero));
            let result = self.split(block, hot);
            // The device has finished, whether or not it went well.
            self.hot.backend.synchronize();
            let mut state = layer.state.lock();
            handover::unpin(&mut state.cache, &self.slots);
            if self.on_gpu {
                let cold = self.slots.iter().filter(|slot| slot.is_none()).count();
                self.overhead.observe(begin.elapsed(), result?, cold, any_hot);
                state.cache.set_break_even(self.overhead.break_even(self.slots.len()));
            } else {
                result?;
            }
        }
        Some(true)
    }

    /// Computes a block whose weights belong to no cache: all of it on the CPU.
    ///
    /// # Safety
    /// As [`Instance::cached`].
    unsafe fn uncached(&mut self, block: &Block) -> Option<bool> {
        // SAFETY: as the caller says.
        unsafe {
            self.read_ids(block)?;
            self.slots.clear();
            self.slots.resize(self.ids.len(), None);
            self.split(block, None)?;
            self.hot.backend.synchronize();
        }
        Some(true)
    }

    /// Reads which experts were selected, token by token.
    ///
    /// # Safety
    /// As [`Instance::cached`].
    unsafe fn read_ids(&mut self, block: &Block) -> Option<()> {
        // SAFETY: indices stay within the tensor's shape. It may be a view with rows far apart.
        unsafe {
            let ids = block.ids;
            let [per_token, tokens] = [(*ids).ne[0], (*ids).ne[1]].map(|size| usize::try_from(size).unwrap_or(0));
            let [step, row] = [(*ids).nb[0], (*ids).nb[1]];
            self.ids.clear();
            if per_token == 0 || tokens == 0 {
                return Some(());
            }
            let mut base = (*ids).data.cast::<u8>().cast_const();
            if self.on_gpu {
                let copy = &mut self.selected;
                copy.resize(row * (tokens - 1) + step * (per_token - 1) + 4, 0u8);
                ffi::ggml_backend_tensor_get(ids, copy.as_mut_ptr().cast(), 0, copy.len());
                base = copy.as_ptr();
            }
            for token in 0..tokens {
                for index in 0..per_token {
                    let id = base.add(token * row + index * step).cast::<i32>().read_unaligned();
                    self.ids.push(u32::try_from(id).ok()?);
                }
            }
        }
        Some(())
    }

    /// Computes the hot and the cold half at the same time; returns how long the cold one took.
    ///
    /// # Safety
    /// As [`Instance::cached`], after [`Instance::read_ids`]; hot slots are pinned.
    unsafe fn split(&mut self, block: &Block, hot: Option<(&Copies, u32, usize)>) -> Option<std::time::Duration> {
        let Self { cold, pairs, .. } = self;
        // SAFETY: as the caller says. The hot half may overwrite the input once it has read it, so the cold one's rows are
        // gathered first; the results of the cold half are written when the hot one has left its zeros.
        unsafe {
            let input = &*block.input;
            let per_token = usize::try_from((*block.ids).ne[0]).ok()?.max(1);
            pairs.clear();
            let any_cold = self.slots.iter().any(Option::is_none);
            if any_cold {
                self.input.resize(ffi::ggml_nbytes(input), 0);
                ffi::ggml_backend_tensor_get(input, self.input.as_mut_ptr().cast(), 0, self.input.len());
                for (row, slot) in self.slots.iter().enumerate() {
                    if slot.is_none() {
                        let (token, index) = (row / per_token, row % per_token);
                        let index = if input.ne[1] == 1 { 0 } else { index };
                        pairs.push(Pair {
                            expert: i32::try_from(self.ids[row]).ok()?,
                            row,
                            input: self.input.as_ptr().add(token * input.nb[2] + index * input.nb[1]),
                        });
                    }
                }
            }
            if let Some((copies, layer, zero)) = hot {
                self.hot.start(block, layer, copies, &self.slots, zero)?;
            }
            let begin = Instant::now();
            if any_cold {
                let rows = cold.compute(block, pairs)?;
                let took = begin.elapsed();
                if !self.on_gpu {
                    self.hot.backend.synchronize();
                }
                let result = *block.nodes.last()?;
                let width = usize::try_from((*result).ne[0]).ok()? * 4;
                for (pair, bytes) in pairs.iter().zip(rows.chunks_exact(width.max(1))) {
                    let (token, index) = (pair.row / per_token, pair.row % per_token);
                    let offset = token * (*result).nb[2] + index * (*result).nb[1];
                    match self.on_gpu {
                        true => self.hot.write(result, offset, bytes),
                        false => {
                            let place = (*result).data.cast::<u8>().add(offset);
                            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, width);
                        }
                    }
                }
                return Some(took);
            }
            Some(std::time::Duration::ZERO)
        }
    }
}
