//! The backend of one context: computes the nodes that llama.cpp's scheduler gives it.

use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use super::block::{self, Block};
use super::ffi::{self, ggml_status, ggml_tensor};
use super::replay::{self, Copies, Pair, Replay, context};
use super::{BUFFERS, ExpertCache, Layer, LayerResidency, NAME, registered};

/// Uploads per layer and step at most: they share the memory's bandwidth with the computation.
const UPLOADS: usize = 2;

/// What one context computes with.
struct Instance {
    /// ggml's CPU backend: all that is not a block, and the experts without a copy.
    cpu: Replay,
    /// The cache device.
    cache: Replay,
    set_threads: Option<SetThreads>,
    hot: Vec<Pair>,
    cold: Vec<Pair>,
    /// Room for the description of a partial graph.
    graph: Vec<u64>,
}

type SetThreads = unsafe extern "C" fn(ffi::ggml_backend_t, c_int);

/// Tells our backends apart from others.
static GUID: [u8; 16] = *b"hearth experts 1";

pub(super) extern "C" fn create(device: ffi::ggml_backend_dev_t, _: *const c_char) -> ffi::ggml_backend_t {
    let Some(plugin) = registered() else {
        return std::ptr::null_mut();
    };
    // SAFETY: ggml's CPU device; each instance has backends of its own.
    let backends = unsafe { (Replay::new(plugin.cpu), Replay::new(plugin.cpu)) };
    let (Some(cpu), Some(cache)) = backends else {
        return std::ptr::null_mut();
    };
    // SAFETY: the registry of ggml's CPU device, and a name that ends with a zero. The function, if it is there, has this type.
    let set_threads = unsafe {
        let registry = ffi::ggml_backend_dev_backend_reg(plugin.cpu);
        let function = ffi::ggml_backend_reg_get_proc_address(registry, c"ggml_backend_set_n_threads".as_ptr());
        (!function.is_null()).then(|| std::mem::transmute::<*mut c_void, SetThreads>(function))
    };
    let instance = Box::new(Instance {
        cpu,
        cache,
        set_threads,
        hot: Vec::new(),
        cold: Vec::new(),
        graph: Vec::new(),
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

extern "C" fn name(_: ffi::ggml_backend_t) -> *const c_char {
    NAME.as_ptr()
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
            set(instance.cpu.backend, threads);
            set(instance.cache.backend, threads);
        }
    }
}

extern "C" fn compute(backend: ffi::ggml_backend_t, graph: *mut ffi::ggml_cgraph) -> ggml_status::Type {
    // SAFETY: ggml computes on one thread at a time per backend.
    let instance = unsafe { &mut *(*backend).context.cast::<Instance>() };
    // SAFETY: ggml passes a graph whose sources are complete.
    let result = catch_unwind(AssertUnwindSafe(|| unsafe { instance.compute(graph) }));
    result.unwrap_or(ggml_status::GGML_STATUS_FAILED)
}

impl Instance {
    /// # Safety
    /// `graph` is a graph whose sources are complete.
    unsafe fn compute(&mut self, graph: *mut ffi::ggml_cgraph) -> ggml_status::Type {
        // SAFETY: as the caller says.
        unsafe {
            let count = usize::try_from(ffi::ggml_graph_n_nodes(graph)).unwrap_or(0);
            let nodes = std::slice::from_raw_parts(ffi::ggml_graph_nodes(graph), count);
            // Nodes before this one are done.
            let mut done = 0;
            for at in 0..count {
                let Some(block) = block::ending_at(nodes, at) else {
                    continue;
                };
                let Some(layer) = self.layer(&block) else { continue };
                // The ids may come from this very graph.
                if nodes[done..block.first]
                    .iter()
                    .any(|node| *node == block.ids || *node == (*block.ids).view_src)
                {
                    let status = self.pass_on(graph, nodes, done, block.first);
                    if status != ggml_status::GGML_STATUS_SUCCESS {
                        return status;
                    }
                    done = block.first;
                }
                let mut layer = layer.lock();
                self.sort(&block, nodes[block.last], &mut layer.residency);
                if !self.hot.is_empty() {
                    let status = self.pass_on(graph, nodes, done, block.first);
                    if status != ggml_status::GGML_STATUS_SUCCESS {
                        return status;
                    }
                    if self.split(&block, &layer.copies).is_none() {
                        return ggml_status::GGML_STATUS_FAILED;
                    }
                    done = block.last + 1;
                }
                for _ in 0..UPLOADS {
                    let Some(upload) = layer.residency.wanted() else { break };
                    layer.copies.upload(upload.expert, upload.slot);
                    layer.residency.uploaded(upload);
                }
            }
            self.pass_on(graph, nodes, done, count)
        }
    }

    /// Computes some of a graph's nodes on the CPU backend.
    ///
    /// # Safety
    /// `nodes` are the nodes of `graph`, and the sources of those from `start` to `end` are complete.
    unsafe fn pass_on(
        &mut self,
        graph: *mut ffi::ggml_cgraph,
        nodes: &[*mut ggml_tensor],
        start: usize,
        end: usize,
    ) -> ggml_status::Type {
        if start >= end {
            return ggml_status::GGML_STATUS_SUCCESS;
        }
        // SAFETY: as the caller says; the partial graph lives as long as the memory that it is described in.
        unsafe {
            if start == 0 && end == nodes.len() {
                return ffi::ggml_backend_graph_compute(self.cpu.backend, graph);
            }
            let size = ffi::ggml_graph_overhead_custom(end - start, false) + 1024;
            self.graph.resize(size.div_ceil(8).max(self.graph.len()), 0);
            let context = context(self.graph.as_mut_ptr().cast(), self.graph.len() * 8);
            let part = ffi::ggml_new_graph_custom(context, end - start, false);
            for node in &nodes[start..end] {
                ffi::ggml_graph_add_node(part, *node);
            }
            ffi::ggml_backend_graph_compute(self.cpu.backend, part)
        }
    }

    /// The layer of a block, made when it is first seen; `None` if the weights belong to no cache.
    ///
    /// # Safety
    /// The block is one of the graph that is being computed.
    unsafe fn layer(&self, block: &Block) -> Option<Arc<Mutex<Layer>>> {
        // SAFETY: a weight of the block.
        let (buffer, experts) = unsafe { ((*block.down).buffer as usize, (*block.down).ne[2]) };
        let cache: Arc<ExpertCache> = BUFFERS.lock().as_ref()?.get(&buffer)?.clone();
        let mut layers = cache.layers.lock();
        // SAFETY: as above.
        let number = unsafe { block.layer() }?;
        if let Some(layer) = layers.get(&number) {
            return Some(layer.clone());
        }
        let experts = usize::try_from(experts).ok()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share"
        )]
        let mut slots = (experts as f32 * cache.share).round() as usize;
        // A device without room gets fewer.
        let copies = loop {
            // SAFETY: as the caller says.
            match unsafe { Copies::new(block, slots, self.cache.buffers()) } {
                Some(copies) => break copies,
                None if slots == 0 => return None,
                None => {
                    tracing::warn!(
                        slots,
                        "the cache device has no room for so many experts; trying half of them"
                    );
                    slots /= 2;
                }
            }
        };
        let layer = Arc::new(Mutex::new(Layer {
            residency: LayerResidency::new(experts, slots),
            copies,
            // SAFETY: as above.
            expert_bytes: unsafe { replay::expert_bytes(block) },
        }));
        layers.insert(number, layer.clone());
        Some(layer)
    }

    /// Sorts the selected experts into those with a copy and those without, and takes note of them.
    ///
    /// # Safety
    /// As [`Instance::layer`]; the ids are complete. `result` is the block's last node.
    unsafe fn sort(&mut self, block: &Block, result: *mut ggml_tensor, residency: &mut LayerResidency) {
        self.hot.clear();
        self.cold.clear();
        // SAFETY: all tensors are in main memory, and indices stay within their shapes. The ids may be a view with
        // rows far apart.
        unsafe {
            let (ids, input) = (&*block.ids, &*block.input);
            let [per_token, tokens] = [ids.ne[0], ids.ne[1]].map(|size| usize::try_from(size).unwrap_or(0));
            let id = |token: usize, index: usize| {
                let at = ids.data.cast::<u8>().add(token * ids.nb[1] + index * ids.nb[0]);
                at.cast::<i32>().read_unaligned()
            };
            for token in 0..tokens {
                for index in 0..per_token {
                    let expert = id(token, index);
                    let row = if input.ne[1] == 1 { 0 } else { index };
                    let pair = |id: i32| Pair {
                        id,
                        input: input.data.cast::<u8>().add(token * input.nb[2] + row * input.nb[1]),
                        output: (*result)
                            .data
                            .cast::<u8>()
                            .add(token * (*result).nb[2] + index * (*result).nb[1]),
                    };
                    let slot = u32::try_from(expert).ok().and_then(|expert| residency.slot_of(expert));
                    match slot.and_then(|slot| i32::try_from(slot).ok()) {
                        Some(slot) => self.hot.push(pair(slot)),
                        None => self.cold.push(pair(expert)),
                    }
                }
                residency.observe((0..per_token).filter_map(|index| u32::try_from(id(token, index)).ok()));
            }
        }
    }

    /// Computes the sorted pairs, hot and cold at the same time.
    ///
    /// # Safety
    /// As [`Instance::layer`], after [`Instance::sort`].
    unsafe fn split(&mut self, block: &Block, copies: &Copies) -> Option<()> {
        // SAFETY: as the caller says. Inputs are read by both before the first result is written.
        unsafe {
            let hot = self.cache.start(block, &self.hot, Some(copies))?;
            let cold = match self.cold.is_empty() {
                true => None,
                false => Some(self.cpu.start(block, &self.cold, None)?),
            };
            if let Some(cold) = cold {
                self.cpu.finish(cold, &self.cold);
            }
            self.cache.finish(hot, &self.hot);
        }
        Some(())
    }
}
