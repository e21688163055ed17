//! The life of an engine's thread: it loads the model, computes, and tells why it ends.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use llama_cpp_2::model::LlamaModel;
use parking_lot::Mutex;

use super::allocated;
use super::drafts::Drafts;
use super::embedder::{self, Embedder};
use super::error::LoadError;
use super::load::{self, LoadSpec};
use super::queue::{Shared, fail};
use super::tokenize::Tokenizer;
use super::worker::Worker;
use crate::engine::{Buffers, EngineError, Health, MemoryUse};
use crate::experts::Device;
use crate::llama::log::Listener;
use crate::memory::{Kind, Tier, bytes};
use crate::plan::DRAFTS;
use crate::telemetry::ModelMetrics;

/// What the engine thread takes with it.
pub(super) struct Thread {
    pub(super) name: String,
    pub(super) spec: LoadSpec,
    pub(super) shared: Arc<Shared>,
    pub(super) model: Arc<OnceLock<Arc<LlamaModel>>>,
    pub(super) tokenizer: Arc<OnceLock<Arc<Tokenizer>>>,
    pub(super) memory: Arc<OnceLock<MemoryUse>>,
    /// Weak: when the engine is dropped no job can come any more, and the thread ends.
    pub(super) embedder: Weak<OnceLock<Embedder>>,
    pub(super) metrics: ModelMetrics,
}

impl Thread {
    /// Loads the model, and computes until the engine is told to stop.
    pub(super) fn main(self) {
        // A panic of this thread must not take the other models down.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.serve()));
        let reason = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(LoadError::Panic.to_string()),
        };
        let error = match reason {
            None => {
                self.shared.set_health(Health::ShuttingDown);
                EngineError::ShuttingDown
            }
            Some(reason) => {
                tracing::error!(model = self.name, reason, "the model is not available");
                self.shared.set_health(Health::Failed { reason: reason.clone() });
                EngineError::Unavailable {
                    model: self.name.clone(),
                    reason,
                }
            }
        };
        self.metrics.prompt_cache.set(0);
        self.shared.stop();
        for request in self.shared.drain() {
            self.metrics.count_request("error");
            fail(&request, error.clone());
        }
    }

    fn serve(&self) -> Result<(), LoadError> {
        let started = Instant::now();
        // One model at a time: GPU backends compile their kernels meanwhile, and not all can do so for two at once.
        let loading = (self.spec.placement.gpu.is_some()).then(|| LOADING.lock());
        let mapped = !self.spec.placement.no_mmap;
        let log = Listener::start();
        let model = Arc::new(load::load_model(&self.spec, &self.shared, &log)?);
        let embedding = self.spec.embedding;
        if embedding.is_some() && self.spec.experts.is_some() {
            return Err(LoadError::EmbeddingsBesideCache);
        }
        if let Some(embedding) = embedding.filter(|embedding| embedding.only) {
            let mut embeddings = embedder::Embeddings::new(&self.spec, embedding, &model, &log)?;
            let (embedder, jobs) = Embedder::new();
            drop(loading);
            let memory = MemoryUse {
                planned: self.spec.placement.planned.clone(),
                actual: allocated::buffers(&log, mapped),
            };
            self.ready(&model, memory, Some(embedder), started);
            embeddings.run(jobs, &log);
            return Ok(());
        }
        let context = load::new_context(&self.spec, &model, &log)?;
        let mut memory = MemoryUse {
            planned: self.spec.placement.planned.clone(),
            actual: allocated::buffers(&log, mapped),
        };
        let small = load::load_small(&self.spec, &self.shared, &log)?;
        let drafts = Drafts::of(&self.spec, &model, &context, small.as_ref(), &log)?;
        let of_drafts = allocated::buffers(&log, mapped);
        let mut worker = Worker::new(
            self.name.clone(),
            &model,
            context,
            &self.spec,
            self.shared.clone(),
            self.metrics.clone(),
            log,
        );
        worker.warm_up()?;
        if worker.draft(drafts)? {
            memory.actual.extend(of_drafts);
        } else {
            memory.planned.retain(|row| row.component != DRAFTS);
        }
        drop(loading);
        let beside = |embedding| embedder::start_beside(&self.name, self.spec.clone(), embedding, model.clone());
        let embedder = match embedding.map(beside).transpose()? {
            Some((embedder, more)) => {
                memory.actual.extend(more);
                Some(embedder)
            }
            None => None,
        };
        worker.recall();
        self.ready(&model, memory, embedder, started);
        worker.run();
        worker.store();
        Ok(())
    }

    /// Lets requests in.
    fn ready(&self, model: &Arc<LlamaModel>, memory: MemoryUse, embedder: Option<Embedder>, started: Instant) {
        // Set once, here.
        let _ = self.tokenizer.set(Arc::new(Tokenizer::new(&model.vocab())));
        let _ = self.model.set(model.clone());
        let _ = self.memory.set(memory);
        if let (Some(embedder), Some(place)) = (embedder, self.embedder.upgrade()) {
            let _ = place.set(embedder);
        }
        self.compare();
        let took = started.elapsed();
        self.metrics.load_seconds.set(took.as_secs_f64());
        self.shared.set_health(Health::Ready);
        tracing::info!(
            model = self.name,
            seconds = format_args!("{:.2}", took.as_secs_f32()),
            slots = self.spec.parallel,
            context = self.spec.context,
            "model is ready"
        );
    }

    /// Warns where much more or less was allocated than planned.
    fn compare(&self) {
        let Some(memory) = memory(&self.spec, &self.memory) else {
            return;
        };
        if memory.planned.is_empty() {
            return;
        }
        for tier in [Tier::Gpu, Tier::Ram] {
            let (planned, actual) = memory.allocated(tier);
            if planned.abs_diff(actual) > (planned / 20).max(NEGLIGIBLE) {
                tracing::warn!(
                    model = self.name,
                    planned = bytes(planned),
                    allocated = bytes(actual),
                    "the {} does not take what was planned",
                    tier.name()
                );
            }
        }
    }
}

/// Held by who loads a model onto a GPU.
static LOADING: Mutex<()> = Mutex::new(());

/// Differences that are not worth a warning: small models are mostly rounding.
const NEGLIGIBLE: u64 = 16 << 20;

/// What a loaded model takes.
pub(super) fn memory(spec: &LoadSpec, loaded: &OnceLock<MemoryUse>) -> Option<MemoryUse> {
    let mut memory = loaded.get()?.clone();
    if let Some(cache) = &spec.experts {
        let (device, tier) = match cache.device() {
            Device::Gpu(_) => ("GPU", Tier::Gpu),
            Device::Cpu => ("CPU", Tier::Ram),
        };
        let mut add = |kind: Kind, bytes: u64| {
            memory.actual.push(Buffers {
                device: device.to_owned(),
                kind,
                tier,
                bytes,
                mapped: false,
            });
        };
        add(Kind::ExpertCache, cache.stats().cache_bytes());
        add(Kind::Compute, cache.area());
    }
    Some(memory)
}
