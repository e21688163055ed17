//! From plans to running engines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::attention::requests;
use super::error::ModelError;
use super::file::{Prepared, in_file, open, prepare};
use super::info::{describe, stretched};
use super::member::Member;
use super::residents::{Resident, beside};
use super::trial::Trials;
use crate::config::{Config, DraftConfig, DraftKind, LoadAt, MemoryConfig, ModelConfig, ModelSource};
use crate::engine::local::{
    self, ALL_LAYERS, DraftSource, DraftSpec, EmbeddingSpec, LoadSpec, LocalEngine, Placement, SavedSequences,
};
use crate::engine::{Health, ModelInfo, Pooling};
use crate::experts::heat::{HeatMap, heat_file};
use crate::experts::policy::{PolicyConfig, PolicyKind};
use crate::experts::{CacheConfig, Capacity, Device, ExpertCache};
use crate::fingerprint::Fingerprint;
use crate::folders;
use crate::gguf::Gguf;
use crate::host::{self, GpuId, Machine};
use crate::memory::{Kind, KvTypes, Tier};
use crate::plan::{self, Context, Embeddings, Experts, ModelPlan, Plan, Threads};
use crate::telemetry::Metrics;
use crate::upstream;

/// One engine whose model loads, for commands that work without a server.
#[derive(Debug)]
pub struct Started {
    pub engine: Arc<LocalEngine>,
    pub metrics: Metrics,
    pub threads: Threads,
}

impl Started {
    /// Ends the engine and waits until its memory is given back. Blocks.
    pub fn finish(self) {
        if let Some(engine) = Arc::into_inner(self.engine) {
            engine.finish();
        }
    }
}

/// This machine, as models are planned for within these limits. llama.cpp is initialised, so that its devices are known.
#[must_use]
pub fn machine(limits: &MemoryConfig) -> Machine {
    local::initialise();
    host::machine().sharing(limits.unified)
}

/// Where a model alone goes.
///
/// # Errors
/// [`ModelError::DoesNotFit`] with what would fit.
pub fn plan_one(model: &Prepared<'_>, memory: &MemoryConfig) -> Result<Plan, ModelError> {
    let machine = machine(memory);
    let requests = requests(std::slice::from_ref(model), &machine)?;
    plan::plan(&machine, memory, &requests).map_err(ModelError::DoesNotFit)
}

/// The models of a configuration before any engine is started.
pub(super) struct Begun<'c> {
    pub(super) members: Vec<Arc<Member>>,
    /// Those that are loaded at start-up and can be, with their places among the members.
    startup: Vec<(usize, Prepared<'c>)>,
    plan: Option<Plan>,
}

/// Inspects the models of a configuration and plans where those go that are loaded at start-up. Those that cannot be used do not
/// stop the others.
///
/// # Errors
/// [`ModelError`] when no model can be used, with what is wrong with the first, or when not all fit.
pub(super) fn begin<'c>(config: &'c Config, metrics: &Metrics) -> Result<Begun<'c>, ModelError> {
    let machine = machine(&config.memory);
    let mut members = Vec::with_capacity(config.models.len());
    let (mut startup, mut wanted) = (Vec::new(), Vec::new());
    let mut failures = Vec::new();
    for (place, model) in config.models.iter().enumerate() {
        if model.load == LoadAt::Demand || model.source == ModelSource::Upstream {
            members.push(without_engine(model, metrics));
            continue;
        }
        let candidate = prepare(model).and_then(|candidate| {
            let request = requests(std::slice::from_ref(&candidate), &machine)?;
            Ok((candidate, request))
        });
        members.push(match candidate {
            Ok((candidate, request)) => {
                wanted.extend(request);
                let info = candidate.info.clone();
                startup.push((place, candidate));
                Member::absent(model.clone(), info, Health::Loading { progress: 0.0 })
            }
            Err(error) => {
                let reason = error.reason();
                failures.push((model.name.as_str(), reason.clone(), error));
                Member::absent(model.clone(), outline(model), Health::Failed { reason })
            }
        });
    }
    if failures.len() == members.len()
        && let Some((_, _, error)) = failures.into_iter().next()
    {
        return Err(error);
    }
    let plan = match startup.is_empty() {
        true => None,
        false => Some(plan::plan(&machine, &config.memory, &wanted).map_err(ModelError::DoNotFit)?),
    };
    for member in &members {
        if let Health::Failed { reason } = member.health() {
            tracing::error!(model = member.config.name, reason, "the model is not available");
        }
    }
    Ok(Begun {
        members: members.into_iter().map(Arc::new).collect(),
        startup,
        plan,
    })
}

impl Begun<'_> {
    /// Tries the files that hearth has not seen before. Models whose file fails are left out, which changes no plan: the others
    /// have their places. Blocks.
    pub(super) fn try_files(&mut self, trials: &Trials) {
        self.startup.retain(|(place, model)| match trials.pass(model) {
            Ok(()) => true,
            Err(error) => {
                self.members[*place].fail(&error);
                false
            }
        });
    }

    /// Whether there is nothing to be tried.
    pub(super) fn is_tried(&self, trials: &Trials) -> bool {
        self.startup.iter().all(|(_, model)| trials.knows(model))
    }

    /// Starts the engines; the weights load in the background.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(self, config: &Config, metrics: &Metrics) -> Result<(), ModelError> {
        let Some(plan) = self.plan else { return Ok(()) };
        for advice in &plan.advice {
            tracing::warn!("{advice}");
        }
        for (place, model) in self.startup {
            let name = &model.config.name;
            let Some(planned) = plan.models.iter().find(|planned| planned.name == *name) else {
                continue;
            };
            self.members[place].show_engine(start_planned(model, config, planned, &plan, metrics)?, false);
        }
        Ok(())
    }
}

/// What comes of loading a model beside others.
pub(super) enum Attempt<'c> {
    Started(Box<LocalEngine>),
    /// There is not enough memory.
    DoesNotFit {
        error: ModelError,
        /// Whether it would be enough if so much were given back.
        fits: Box<dyn Fn(Resident) -> bool + 'c>,
    },
}

/// Plans a model for what loaded ones leave, and starts its engine; the weights load in the background.
///
/// # Errors
/// [`ModelError`] when the model cannot be used.
pub(super) fn start_beside<'c>(
    model: &ModelConfig,
    config: &'c Config,
    residents: &[Resident],
    trials: Option<&Trials>,
    metrics: &Metrics,
) -> Result<Attempt<'c>, ModelError> {
    let prepared = prepare(model)?;
    if let Some(trials) = trials {
        trials.pass(&prepared)?;
    }
    let now = machine(&config.memory);
    let request = requests(std::slice::from_ref(&prepared), &now)?;
    let loaded = Resident::sum(residents);
    let plan_without = move |leaving: Resident| {
        let (machine, memory) = beside(now.clone(), config.memory, loaded, leaving);
        plan::plan(&machine, &memory, &request)
    };
    match plan_without(Resident::default()) {
        Ok(plan) => {
            for advice in &plan.advice {
                tracing::warn!("{advice}");
            }
            let engine = start_planned(prepared, config, &plan.models[0], &plan, metrics)?;
            Ok(Attempt::Started(Box::new(engine)))
        }
        Err(error) => Ok(Attempt::DoesNotFit {
            error: ModelError::DoesNotFit(error),
            fits: Box::new(move |leaving| plan_without(leaving).is_ok()),
        }),
    }
}

/// A model that is not in memory, or one that other servers compute.
pub(super) fn without_engine(config: &ModelConfig, metrics: &Metrics) -> Member {
    if config.source != ModelSource::Upstream {
        return Member::absent(config.clone(), outline(config), Health::Unloaded);
    }
    match upstream::start(config, metrics) {
        Ok(upstream) => Member::elsewhere(config.clone(), upstream),
        Err(source) => {
            let model = config.name.clone();
            let reason = ModelError::Upstream { model, source }.reason();
            Member::absent(config.clone(), ModelInfo::of_config(config), Health::Failed { reason })
        }
    }
}

/// What is told of a model that is not in memory: what its file says, or nearly nothing if it cannot be read.
fn outline(config: &ModelConfig) -> ModelInfo {
    let described = open(config).ok().and_then(|gguf| describe(config, &gguf).ok());
    described.unwrap_or_else(|| ModelInfo::of_config(config))
}

/// Starts one model of a configuration; the weights load in the background. With `experts_in_ram` the experts of so many
/// layers, from the first, are in main memory and none has a copy: what people do by hand, and what benchmarks compare with.
///
/// # Errors
/// [`ModelError`] when the model cannot be used or does not fit.
pub fn start(model: &ModelConfig, config: &Config, experts_in_ram: Option<u32>) -> Result<Started, ModelError> {
    let metrics = Metrics::new();
    let prepared = prepare(model)?;
    let plan = plan_one(&prepared, &config.memory)?;
    let (info, mut spec) = load_spec(prepared, config, &plan.models[0], &plan)?;
    // What a server keeps is not for what runs once.
    spec.saved = None;
    if let Some(layers) = experts_in_ram {
        spec.experts = None;
        spec.placement.experts_in_ram = layers;
        // The plan knows nothing of that.
        spec.placement.planned.clear();
    }
    let threads = spec.threads;
    let series = metrics.model(&info.name);
    let engine = LocalEngine::start(info, spec, model.queue, series).map_err(ModelError::Thread)?;
    Ok(Started {
        engine: Arc::new(engine),
        metrics,
        threads,
    })
}

fn start_planned(
    model: Prepared<'_>,
    settings: &Config,
    planned: &ModelPlan,
    plan: &Plan,
    metrics: &Metrics,
) -> Result<LocalEngine, ModelError> {
    let queue = model.config.queue;
    let (info, spec) = load_spec(model, settings, planned, plan)?;
    let metrics = metrics.model(&info.name);
    LocalEngine::start(info, spec, queue, metrics).map_err(ModelError::Thread)
}

/// What the engine of a model is to do.
fn load_spec(
    model: Prepared<'_>,
    settings: &Config,
    planned: &ModelPlan,
    plan: &Plan,
) -> Result<(ModelInfo, LoadSpec), ModelError> {
    let Prepared {
        config,
        path,
        gguf,
        mut info,
        request,
        draft_model,
    } = model;
    let chosen = planned.context;
    (info.context, info.parallel) = (chosen.tokens, chosen.parallel);
    if info.context > stretched(config, info.context_train) {
        tracing::warn!(
            model = info.name,
            context = info.context,
            trained = info.context_train,
            "the context is longer than the model was trained for; `rope = {{ yarn = ... }}` stretches it"
        );
    }
    for reason in &planned.reasons {
        tracing::info!(model = info.name, "{reason}");
    }
    let gpu = plan.device.and_then(|device| plan.machine.devices.get(device)?.id);
    let spec = LoadSpec {
        path,
        context: info.context,
        parallel: info.parallel,
        batch: chosen.batch,
        threads: match config.threads {
            Some(threads) => threads.into(),
            None => plan::threads(&request.shape, plan.machine.cores, plan.on_cpu()),
        },
        max_pause: settings.server.max_pause,
        prepares: settings.server.prepare_next_turn,
        prompt_cache: plan.prompt_cache,
        pool: chosen.pool,
        yarn: config.rope.yarn,
        saved: saved_sequences(config, settings, &gguf, chosen.kv_type),
        placement: Placement {
            gpu,
            gpu_layers: planned.gpu_layers,
            experts_in_ram: match planned.experts {
                Experts::Ram | Experts::Cache { .. } if gpu.is_some() => ALL_LAYERS,
                _ => 0,
            },
            no_mmap: !plan.mmap,
            kv_type: chosen.kv_type,
            planned: planned.rows.clone(),
        },
        experts: expert_cache(config, &gguf, planned, gpu)?,
        draft: draft(config, request.head)?,
        draft_model: draft_model.map(|model| model.path),
        embedding: embedding(request.embeddings, chosen, config.pooling, &gguf, &info.architecture),
    };
    Ok((info, spec))
}

/// Where sequences of a model are written. They are of no use to another model, nor where keys and values have another type.
fn saved_sequences(config: &ModelConfig, settings: &Config, gguf: &Gguf, kv_type: KvTypes) -> Option<SavedSequences> {
    let folder = settings.server.slot_save_path.clone()?;
    let weights = |name: &str| {
        let tensor = gguf.tensors().iter().find(|tensor| tensor.name.contains(name));
        tensor.map_or(&[][..], |tensor| gguf.data(tensor))
    };
    let model = Fingerprint::of([
        gguf.header_bytes(),
        // Small ones, which two trainings of one architecture do not have in common.
        weights("output_norm"),
        weights("attn_norm"),
        config.name.as_bytes(),
        kv_type.to_string().as_bytes(),
        // Keys are turned by their positions.
        &config.rope.yarn.unwrap_or(1.0).to_le_bytes(),
        env!("CARGO_PKG_VERSION").as_bytes(),
    ]);
    Some(SavedSequences { folder, model })
}

/// What guesses the tokens that come next, if something does.
fn draft(config: &ModelConfig, has_head: bool) -> Result<Option<DraftSpec>, ModelError> {
    let DraftConfig {
        kind,
        max,
        min_probability,
        ..
    } = config.draft;
    let source = match kind {
        DraftKind::None => return Ok(None),
        DraftKind::Model | DraftKind::Auto if config.draft.path.is_some() => DraftSource::Model,
        DraftKind::Model => return Err(ModelError::NoDraftModel(config.name.clone())),
        DraftKind::Mtp if !has_head => return Err(ModelError::NoHead(config.name.clone())),
        DraftKind::Mtp => DraftSource::Mtp,
        DraftKind::Auto if has_head => DraftSource::Mtp,
        DraftKind::Auto | DraftKind::Ngram => DraftSource::Lookup,
    };
    Ok(Some(DraftSpec {
        source,
        most: max,
        least_probability: min_probability,
        always: kind != DraftKind::Auto,
        pass_price: Duration::ZERO,
    }))
}

/// What the model does with texts, beside generating or instead.
fn embedding(
    wanted: Embeddings,
    context: Context,
    pooling: Option<Pooling>,
    gguf: &Gguf,
    architecture: &str,
) -> Option<EmbeddingSpec> {
    let only = match wanted {
        Embeddings::None => return None,
        Embeddings::Beside => false,
        Embeddings::Only => true,
    };
    let in_file = gguf.get(&format!("{architecture}.pooling_type"));
    let in_file = in_file.and_then(|number| Pooling::from_number(number.as_u64()?));
    Some(EmbeddingSpec {
        pooling: pooling.or(in_file).unwrap_or(Pooling::Mean),
        only,
        max_tokens: context.of_embeddings(only).tokens,
    })
}

/// The cache as planned.
fn expert_cache(
    model: &ModelConfig,
    gguf: &Gguf,
    planned: &ModelPlan,
    gpu: Option<GpuId>,
) -> Result<Option<Arc<ExpertCache>>, ModelError> {
    let Experts::Cache { device, capacity, of } = planned.experts else {
        return Ok(None);
    };
    let shape = gguf.geometry().map_err(|error| in_file(model, error))?;
    let device = match (device, gpu) {
        (Tier::Gpu, Some(gpu)) => Device::Gpu(gpu),
        _ => Device::Cpu,
    };
    // Bounded by llama.cpp's most layers and experts.
    let (layers, experts) = ((shape.layers + shape.mtp_layers) as usize, of as usize);
    // What makes a model route as it does: its shape, and the first router.
    let mut tensors = gguf.tensors().iter();
    let router = tensors.find(|tensor| tensor.name.contains("ffn_gate_inp"));
    let router = router.map_or(&[][..], |tensor| gguf.data(tensor));
    let fingerprint = Fingerprint::of([gguf.header_bytes(), router]);
    let file = heat_file(&fingerprint, &folders::heat());
    let heat = HeatMap::load(&file, fingerprint, layers, experts).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        None
    });
    let entry_bytes = planned
        .rows
        .iter()
        .filter(|row| row.kind == Kind::Experts)
        .map(|row| row.bytes)
        .sum::<u64>()
        / u64::from(of.max(1));
    let kind = model
        .experts
        .policy
        .unwrap_or_else(|| PolicyKind::for_model(entry_bytes));
    if heat.is_none() && kind == PolicyKind::Static {
        tracing::warn!(
            model = model.name,
            "the policy `static` needs a heat map, and there is none yet: nothing is copied; `hearth profile` makes one"
        );
    }
    let config = CacheConfig {
        device,
        capacity: Capacity::PerLayer(capacity as usize),
        policy: PolicyConfig {
            kind,
            ..PolicyConfig::default()
        },
        experts_per_token: shape.experts_per_token,
        pinned: BTreeMap::new(),
    };
    let heat = heat.unwrap_or_else(|| HeatMap::new(fingerprint, layers, experts));
    let cache = ExpertCache::start(config, heat, Some(file)).map_err(ModelError::Thread)?;
    Ok(Some(cache))
}
