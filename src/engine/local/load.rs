//! Loading a model and its context through llama.cpp.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::{LlamaBackend, NumaStrategy};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};

use super::queue::Shared;
use super::schedule::BATCH;
use super::threads;
use crate::engine::Health;
use crate::experts::{self, ExpertCache};

/// Everything the engine thread needs to load a model.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// A GGUF file (of a split model, its first part) that was inspected: llama.cpp aborts on some damaged ones.
    pub path: PathBuf,
    /// Tokens per slot.
    pub context: u32,
    /// Number of slots.
    pub parallel: u32,
    /// Threads that compute; `None`: one per physical core.
    pub threads: Option<u32>,
    /// Keep hot experts on a cache device; `None` leaves all experts where llama.cpp puts them.
    pub experts: Option<Arc<ExpertCache>>,
}

/// llama.cpp, initialised once per process.
pub(crate) fn backend() -> &'static LlamaBackend {
    static BACKEND: OnceLock<LlamaBackend> = OnceLock::new();
    BACKEND.get_or_init(|| {
        send_logs_to_tracing(LogOptions::default());
        #[cfg(feature = "dynamic-backends")]
        llama_cpp_2::llama_backend::load_backends();
        let nodes = threads::numa_nodes();
        let initialised = if nodes > 1 {
            tracing::info!(nodes, "several NUMA nodes: threads are spread over them");
            LlamaBackend::init_numa(NumaStrategy::DISTRIBUTE)
        } else {
            LlamaBackend::init()
        };
        // Only a second initialisation fails, and there is none.
        initialised.expect("llama.cpp is initialised once")
    })
}

/// Reads the weights; reports progress to `shared`, and gives up when it is told to stop.
pub(super) fn load_model(spec: &LoadSpec, shared: &Arc<Shared>) -> Result<LlamaModel, String> {
    let backend = backend();
    let progress = shared.clone();
    let params = LlamaModelParams::default().with_progress_callback(move |progress_now| {
        progress.set_health(Health::Loading { progress: progress_now });
        !progress.stopping()
    });
    let loaded = match &spec.experts {
        None => LlamaModel::load_from_file(backend, &spec.path, &params),
        Some(cache) => {
            let mut params = pin!(params);
            // Gate and up apart, and gate and up in one tensor.
            params.as_mut().add_cpu_moe_override();
            params.as_mut().add_cpu_buft_override(c"\\.ffn_gate_up_exps");
            experts::load_with(cache, || LlamaModel::load_from_file(backend, &spec.path, &params))?
        }
    };
    loaded.map_err(|error| format!("llama.cpp cannot load {}: {error}", spec.path.display()))
}

/// Creates the one context of a model: `parallel` sequences that share a unified memory.
///
/// Unified, because a batch then is computed in one pass whichever slots are active: split memories need slots with
/// consecutive numbers, and a gap doubles the passes.
pub(super) fn new_context<'m>(spec: &LoadSpec, model: &'m LlamaModel) -> Result<LlamaContext<'m>, String> {
    let total = u64::from(spec.context) * u64::from(spec.parallel);
    let total = u32::try_from(total).map_err(|_| {
        format!(
            "a context of {} tokens in {} slots is more than llama.cpp can address",
            spec.context, spec.parallel
        )
    })?;
    let threads = spec.threads.unwrap_or_else(threads::physical_cores);
    let threads = i32::try_from(threads).unwrap_or(1);
    let batch = u32::try_from(BATCH).unwrap_or(512);
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(total))
        .with_n_batch(batch)
        .with_n_ubatch(batch)
        .with_n_seq_max(spec.parallel)
        .with_kv_unified(true)
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        .with_no_perf(true);
    model.new_context(backend(), params).map_err(|_| {
        format!(
            "llama.cpp cannot create a context of {} x {} tokens; there may not be enough memory",
            spec.parallel, spec.context
        )
    })
}
