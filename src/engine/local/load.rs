//! Loading a model and its context through llama.cpp.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams, RopeScalingType};
use llama_cpp_2::llama_backend::{LlamaBackend, NumaStrategy};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};

use super::error::LoadError;
use super::queue::Shared;
use super::sealed::SavedSequences;
use crate::engine::{Health, Pooling};
use crate::experts::{self, ExpertCache};
use crate::gguf::TensorType;
use crate::host::{self, GpuId};
use crate::llama::log::Listener;
use crate::llama::mtp::{HeadParams, HiddenStates};
use crate::llama::outputs::with_outputs;
use crate::memory::{KvType, KvTypes, Row};
use crate::plan::{BATCH, Threads, head_batch, outputs};

/// Everything the engine thread needs to load a model.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// A GGUF file (of a split model, its first part) that was inspected: llama.cpp aborts on some damaged ones.
    pub path: PathBuf,
    /// Tokens per slot.
    pub context: u32,
    /// Number of slots.
    pub parallel: u32,
    /// All slots share a memory of `context` tokens.
    pub pool: bool,
    /// Tokens that are computed in one pass at most; not fewer than slots.
    pub batch: u32,
    /// Positions are stretched by this factor with YaRN.
    pub yarn: Option<f32>,
    /// Threads that compute.
    pub threads: Threads,
    /// The longest pause that the prompts of others may cause in a running stream.
    pub max_pause: Duration,
    /// Beginnings of next turns are computed while there are no requests.
    pub prepares: bool,
    /// Main memory for saved states of sequences, in bytes.
    pub prompt_cache: u64,
    /// Where sequences are written when clients ask for it, and over restarts.
    pub saved: Option<SavedSequences>,
    pub placement: Placement,
    /// Keep copies of hot experts on a cache device.
    pub experts: Option<Arc<ExpertCache>>,
    /// Turn texts into vectors.
    pub embedding: Option<EmbeddingSpec>,
    /// Guess the tokens that come next.
    pub draft: Option<DraftSpec>,
    /// The file of the small model, if one guesses; inspected as `path` is.
    pub draft_model: Option<PathBuf>,
}

impl LoadSpec {
    /// Whether the model's head for multi-token prediction is used.
    fn has_head(&self) -> bool {
        self.draft.is_some_and(|draft| draft.source == DraftSource::Mtp)
    }

    /// Tokens of a pass that have logits at most.
    fn outputs(&self) -> u32 {
        outputs(self.parallel, self.draft.map_or(0, |draft| draft.most), self.batch)
    }
}

/// What a model does with texts, beside generating or instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingSpec {
    pub pooling: Pooling,
    /// The model does nothing else.
    pub only: bool,
    /// Tokens of a text at most, and of all texts that are computed in one pass.
    pub max_tokens: u32,
}

/// How a model makes drafts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DraftSpec {
    pub source: DraftSource,
    /// Guesses for each stream in a pass at most; at least 1.
    pub most: u32,
    /// A guess that is less likely than this is not made.
    pub least_probability: f32,
    /// As many guesses as possible are made in every pass; else as many as pay, which may be none.
    pub always: bool,
    /// What each pass takes longer than it does, as if a device had to be waited for: to try drafts where they do not pay.
    pub pass_price: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DraftSource {
    /// A small model with the same vocabulary.
    Model,
    /// The model's head for multi-token prediction.
    Mtp,
    /// What followed the same tokens before.
    Lookup,
}

/// Where the parts of a model go, as its plan says.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// `None` computes all on the CPU.
    pub gpu: Option<GpuId>,
    /// Layers on the GPU, as llama.cpp counts them; `None` for all.
    pub gpu_layers: Option<u32>,
    /// Routed experts of so many layers, from the first, stay in main memory, whatever their layers do.
    pub experts_in_ram: u32,
    /// Weights are read instead of mapped.
    pub no_mmap: bool,
    pub kv_type: KvTypes,
    /// What the plan expects, to be held against what is allocated.
    pub planned: Vec<Row>,
}

/// Makes llama.cpp and its devices known, once per process. What asks for devices before a model is loaded calls this first.
pub fn initialise() {
    backend();
}

/// llama.cpp, initialised once per process.
pub(crate) fn backend() -> &'static LlamaBackend {
    static BACKEND: OnceLock<LlamaBackend> = OnceLock::new();
    BACKEND.get_or_init(|| {
        send_logs_to_tracing(LogOptions::default());
        #[cfg(feature = "dynamic-backends")]
        crate::llama::modules::load();
        #[cfg(all(target_os = "linux", not(feature = "dynamic-backends")))]
        crate::llama::prompt_attention::register();
        let nodes = host::numa_nodes();
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

/// ggml's number of half precision.
const F16: u32 = 1;

/// More layers than any model has.
pub const ALL_LAYERS: u32 = 9999;

/// Reads the weights; reports progress to `shared`, and gives up when it is told to stop.
pub(super) fn load_model(spec: &LoadSpec, shared: &Arc<Shared>, log: &Listener) -> Result<LlamaModel, LoadError> {
    let backend = backend();
    let progress = shared.clone();
    let placement = &spec.placement;
    let layers = match placement.gpu {
        None => 0,
        Some(_) => placement.gpu_layers.unwrap_or(ALL_LAYERS),
    };
    let mut params = LlamaModelParams::default()
        .with_n_gpu_layers(layers)
        .with_use_mmap(!placement.no_mmap)
        .with_load_mtp(spec.has_head());
    // Without this llama.cpp would spread layers over all GPUs.
    if let Some(gpu) = placement.gpu {
        params = params
            .with_devices(&[gpu.ggml_index()])
            .map_err(|error| LoadError::Device(error.to_string()))?;
    }
    let params = params.with_progress_callback(move |progress_now| {
        progress.set_health(Health::Loading { progress: progress_now });
        !progress.stopping()
    });
    let mut params = pin!(params);
    let cached = spec.experts.is_some();
    let in_ram = Some(placement.experts_in_ram).filter(|layers| !cached && *layers < ALL_LAYERS);
    let pattern = experts::in_main_memory(in_ram, cached);
    if let Some(pattern) = &pattern {
        params.as_mut().add_cpu_buft_override(pattern);
    }
    let load = || LlamaModel::load_from_file(backend, &spec.path, &params);
    let loaded = match &spec.experts {
        None => load(),
        Some(cache) => experts::load_with(cache, load).map_err(LoadError::Experts)?,
    };
    loaded.map_err(|error| LoadError::Model {
        path: spec.path.clone(),
        reason: log.explain(&error),
        on_gpu: placement.gpu.is_some(),
    })
}

/// Reads the weights of the small model that makes drafts, if there is one. It lies where the large one's layers are.
pub(super) fn load_small(
    spec: &LoadSpec,
    shared: &Arc<Shared>,
    log: &Listener,
) -> Result<Option<LlamaModel>, LoadError> {
    let Some(path) = &spec.draft_model else {
        return Ok(None);
    };
    let placement = &spec.placement;
    let gpu = placement.gpu.filter(|_| placement.gpu_layers != Some(0));
    let mut params = LlamaModelParams::default()
        .with_n_gpu_layers(gpu.map_or(0, |_| ALL_LAYERS))
        .with_use_mmap(!placement.no_mmap);
    if let Some(gpu) = placement.gpu {
        params = params
            .with_devices(&[gpu.ggml_index()])
            .map_err(|error| LoadError::Device(error.to_string()))?;
    }
    let shared = shared.clone();
    let params = params.with_progress_callback(move |_| !shared.stopping());
    let loaded = LlamaModel::load_from_file(backend(), path, &params);
    loaded.map(Some).map_err(|error| LoadError::Model {
        path: path.clone(),
        reason: log.explain(&error),
        on_gpu: gpu.is_some(),
    })
}

/// Tokens of the small model's passes at most.
pub(super) fn small_batch(spec: &LoadSpec) -> u32 {
    spec.batch.min(BATCH)
}

/// The context of the small model: the sequences of the large one.
pub(super) fn new_small_context<'m>(
    spec: &LoadSpec,
    model: &'m LlamaModel,
    log: &Listener,
) -> Result<LlamaContext<'m>, LoadError> {
    let (context, parallel) = (spec.context, spec.parallel);
    let params = LlamaContextParams::default()
        .with_n_ctx(total(spec).and_then(NonZeroU32::new))
        .with_n_batch(small_batch(spec))
        .with_n_ubatch(small_batch(spec))
        .with_n_seq_max(parallel)
        .with_kv_unified(spec.pool)
        .with_n_threads(threads(spec.threads.decode))
        .with_n_threads_batch(threads(spec.threads.prefill))
        .with_no_perf(true);
    model
        .new_context(backend(), params)
        .map_err(|error| LoadError::Context {
            context,
            parallel,
            reason: log.explain(&error),
        })
}

/// Tokens of all sequences; `None` if that is more than a number can hold.
fn total(spec: &LoadSpec) -> Option<u32> {
    if spec.pool {
        Some(spec.context)
    } else {
        spec.context.checked_mul(spec.parallel)
    }
}

/// Creates the one context of a model: `parallel` sequences, each with a KV stream of its own, or all in one memory.
///
/// In a unified memory every token looks at the cells of all sequences, which is slower under load.
pub(super) fn new_context<'m>(
    spec: &LoadSpec,
    model: &'m LlamaModel,
    log: &Listener,
) -> Result<LlamaContext<'m>, LoadError> {
    let (context, parallel) = (spec.context, spec.parallel);
    let total = total(spec).ok_or(LoadError::TooLarge { context, parallel })?;
    let kinds = spec.placement.kv_type;
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(total))
        .with_n_batch(spec.batch)
        .with_n_ubatch(spec.batch)
        .with_n_seq_max(spec.parallel)
        .with_kv_unified(spec.pool)
        .with_type_k(KvCacheType::Unknown(kv_type(kinds.keys)))
        .with_type_v(KvCacheType::Unknown(kv_type(kinds.values)))
        .with_n_threads(threads(spec.threads.decode))
        .with_n_threads_batch(threads(spec.threads.prefill))
        .with_no_perf(true);
    let params = with_outputs(stretched(params, spec.yarn), spec.outputs());
    let created = model.new_context(backend(), params);
    let created = created.map_err(|error| LoadError::Context {
        context,
        parallel,
        reason: log.explain(&error),
    })?;
    if let Some(states) = HiddenStates::of(&created) {
        states.want(false);
    }
    Ok(created)
}

/// With positions that are stretched by a factor. llama.cpp takes the length of the training from the file.
pub(super) fn stretched(params: LlamaContextParams, yarn: Option<f32>) -> LlamaContextParams {
    match yarn {
        Some(factor) => params
            .with_rope_scaling_type(RopeScalingType::Yarn)
            .with_rope_freq_scale(1.0 / factor),
        None => params,
    }
}

fn threads(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(1)
}

/// ggml's number of a type of keys or values.
fn kv_type(kind: KvType) -> u32 {
    TensorType::from_name(kind.name()).map_or(F16, |kind| kind.id)
}

fn has_copies_on_gpu(spec: &LoadSpec) -> bool {
    let device = spec.experts.as_ref().map(|cache| cache.device());
    matches!(device, Some(experts::Device::Gpu(_)))
}

/// What the context of the model's head for multi-token prediction is like.
pub(super) fn head_params(spec: &LoadSpec) -> HeadParams {
    HeadParams {
        tokens: total(spec).unwrap_or(u32::MAX),
        shared: spec.pool,
        sequences: spec.parallel,
        batch: spec.batch.min(head_batch(has_copies_on_gpu(spec)).max(spec.parallel)),
        yarn: spec.yarn,
        kv_types: [spec.placement.kv_type.keys, spec.placement.kv_type.values].map(kv_type),
        threads: (threads(spec.threads.decode), threads(spec.threads.prefill)),
    }
}
