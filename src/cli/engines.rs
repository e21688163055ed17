//! From a configuration to running engines.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::output;
use crate::api::{self, State};
use crate::config::{self, Loaded, MemoryConfig, ModelConfig, ModelSource, Overrides, ServerConfig};
use crate::engine::local::{self, ALL_LAYERS, LoadSpec, LocalEngine, Placement, threads};
use crate::engine::{Engine, ModelCard};
use crate::experts::heat::{Fingerprint, HeatMap};
use crate::experts::policy::{PolicyConfig, PolicyKind};
use crate::experts::{CacheConfig, Capacity, Device, ExpertCache};
use crate::folders;
use crate::gguf::Gguf;
use crate::plan::{self, Experts, Kind, Machine, ModelPlan, ModelRequest, ModelShape, Plan, Threads, Tier};
use crate::telemetry::Metrics;

/// One engine that is ready, for commands that work without a server.
pub(super) struct Started {
    pub(super) engine: Arc<LocalEngine>,
    pub(super) metrics: Metrics,
    pub(super) threads: Threads,
}

impl Started {
    /// Ends the engine and waits until its memory is given back.
    pub(super) fn finish(self) {
        if let Some(engine) = Arc::into_inner(self.engine) {
            engine.finish();
        }
    }
}

/// Reads the configuration and tells its warnings.
pub(super) fn load_config(overrides: &Overrides) -> anyhow::Result<Loaded> {
    let loaded = config::load(overrides)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

/// A model of the configuration with what its file says.
pub(super) struct Prepared<'c> {
    pub(super) config: &'c ModelConfig,
    path: PathBuf,
    gguf: Gguf,
    card: ModelCard,
    pub(super) request: ModelRequest,
}

fn path(config: &ModelConfig) -> anyhow::Result<PathBuf> {
    Ok(match &config.source {
        ModelSource::File(path) => path.clone(),
        ModelSource::Demo(demo) => demo.unpack()?,
    })
}

/// Opens a model's file.
pub(super) fn open(config: &ModelConfig) -> anyhow::Result<Gguf> {
    Gguf::open(&path(config)?).with_context(|| format!("model `{}` cannot be used", config.name))
}

/// Inspects a model's file. This is done before llama.cpp sees it, which aborts the process on some damaged ones.
pub(super) fn prepare(config: &ModelConfig) -> anyhow::Result<Prepared<'_>> {
    let path = path(config)?;
    let problem = || format!("model `{}` cannot be used", config.name);
    let gguf = Gguf::open(&path).with_context(problem)?;
    let card = local::describe(config, &gguf).with_context(problem)?;
    let request = ModelRequest {
        name: config.name.clone(),
        shape: ModelShape::read(&gguf).with_context(problem)?,
        context: plan::Context {
            tokens: card.context,
            parallel: card.parallel,
            kv_type: config.kv_type,
        },
        experts: config.experts,
        gpu_layers: config.gpu_layers,
    };
    Ok(Prepared {
        config,
        path,
        gguf,
        card,
        request,
    })
}

/// This machine, as models are planned for.
pub(super) fn machine() -> Machine {
    local::initialise();
    plan::detect::machine(threads::physical_cores())
}

/// Where a model alone goes.
pub(super) fn plan_one(model: &Prepared<'_>, memory: &MemoryConfig) -> anyhow::Result<Plan> {
    let requests = std::slice::from_ref(&model.request);
    plan::plan(&machine(), memory, requests).context("the model does not fit this machine")
}

/// Plans where the models go and starts their engines; the weights load in the background.
pub(super) fn start_all(
    models: &[ModelConfig],
    memory: &MemoryConfig,
    metrics: &Metrics,
) -> anyhow::Result<Vec<LocalEngine>> {
    let prepared = models.iter().map(prepare).collect::<anyhow::Result<Vec<_>>>()?;
    let requests: Vec<ModelRequest> = prepared.iter().map(|model| model.request.clone()).collect();
    let plan = plan::plan(&machine(), memory, &requests).context("the models do not fit this machine")?;
    for advice in &plan.advice {
        tracing::warn!("{advice}");
    }
    let models = prepared.into_iter().zip(&plan.models);
    models
        .map(|(model, planned)| start(model, planned, &plan, metrics))
        .collect()
}

fn start(model: Prepared<'_>, planned: &ModelPlan, plan: &Plan, metrics: &Metrics) -> anyhow::Result<LocalEngine> {
    let queue = model.config.queue;
    let (card, spec) = load_spec(model, planned, plan)?;
    let metrics = metrics.model(&card.name);
    LocalEngine::start(card, spec, queue, metrics).context("cannot start a thread")
}

/// What the engine of a model is to do.
fn load_spec(model: Prepared<'_>, planned: &ModelPlan, plan: &Plan) -> anyhow::Result<(ModelCard, LoadSpec)> {
    let Prepared {
        config,
        path,
        gguf,
        card,
        request,
    } = model;
    if card.context > card.context_train {
        tracing::warn!(
            model = card.name,
            context = card.context,
            trained = card.context_train,
            "the context is longer than the model was trained for"
        );
    }
    for reason in &planned.reasons {
        tracing::info!(model = card.name, "{reason}");
    }
    let spec = LoadSpec {
        path,
        context: card.context,
        parallel: card.parallel,
        threads: match config.threads {
            Some(threads) => threads.into(),
            None => plan::threads(&request.shape, plan.machine.cores, plan.on_cpu()),
        },
        max_pause: Duration::from_millis(500),
        placement: Placement {
            gpu: plan.device,
            gpu_layers: planned.gpu_layers,
            experts_in_ram: match planned.experts {
                Experts::Ram | Experts::Cache { .. } if plan.device.is_some() => ALL_LAYERS,
                _ => 0,
            },
            no_mmap: !plan.mmap,
            kv_type: config.kv_type,
            planned: planned.rows.clone(),
        },
        experts: expert_cache(config, &gguf, planned, plan.device)?,
    };
    Ok((card, spec))
}

/// The cache that the plan has room for.
fn expert_cache(
    model: &ModelConfig,
    gguf: &Gguf,
    planned: &ModelPlan,
    gpu: Option<usize>,
) -> anyhow::Result<Option<Arc<ExpertCache>>> {
    let Experts::Cache { device, slots, of } = planned.experts else {
        return Ok(None);
    };
    let shape = gguf.geometry()?;
    let device = match (device, gpu) {
        (Tier::Gpu, Some(gpu)) => Device::Gpu(gpu),
        _ => Device::Cpu,
    };
    let (layers, experts) = (usize::try_from(shape.layers + shape.mtp_layers)?, usize::try_from(of)?);
    // What makes a model route as it does: its shape, and the first router.
    let mut tensors = gguf.tensors().iter();
    let router = tensors.find(|tensor| tensor.name.contains("ffn_gate_inp"));
    let router = router.map_or(&[][..], |tensor| gguf.data(tensor));
    let fingerprint = Fingerprint::of([gguf.header_bytes(), router]);
    let file = fingerprint.heat_file(&folders::heat());
    let heat = HeatMap::load(&file, fingerprint, layers, experts).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        None
    });
    let slot_bytes = planned
        .rows
        .iter()
        .filter(|row| row.kind == Kind::Experts)
        .map(|row| row.bytes)
        .sum::<u64>()
        / u64::from(of.max(1));
    let kind = model
        .experts
        .policy
        .unwrap_or_else(|| PolicyKind::for_model(slot_bytes));
    if heat.is_none() && kind == PolicyKind::Static {
        tracing::warn!(
            model = model.name,
            "the policy `static` needs a heat map, and there is none yet: nothing is copied; `hearth profile` makes one"
        );
    }
    let config = CacheConfig {
        device,
        capacity: Capacity::PerLayer(usize::try_from(slots)?),
        policy: PolicyConfig {
            kind,
            ..PolicyConfig::default()
        },
        experts_per_token: shape.experts_used,
        pinned: BTreeMap::new(),
    };
    let heat = heat.unwrap_or_else(|| HeatMap::new(fingerprint, layers, experts));
    let cache = ExpertCache::start(config, heat, Some(file)).context("cannot start a thread")?;
    Ok(Some(cache))
}

/// The model that is meant by name, alias or role; the first one if `None`.
pub(super) fn choose<'m>(models: &'m [ModelConfig], name: Option<&str>) -> anyhow::Result<&'m ModelConfig> {
    let model = match name {
        None => models.first(),
        Some(name) => models
            .iter()
            .find(|model| model.name == name || model.aliases.iter().any(|alias| alias == name))
            .or_else(|| models.iter().find(|model| model.role.as_deref() == Some(name))),
    };
    model.with_context(|| {
        let known: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        format!(
            "there is no model `{}`; there are: {}",
            name.unwrap_or_default(),
            known.join(", ")
        )
    })
}

/// Starts the model that is meant by name, alias or role (the first one if `None`) and waits until it is loaded.
pub(super) fn start_one(overrides: &Overrides, name: Option<&str>) -> anyhow::Result<Started> {
    let loaded = load_config(overrides)?;
    start_and_wait(choose(&loaded.config.models, name)?, &loaded.config.memory)
}

/// Starts a model and waits until it is loaded.
pub(super) fn start_and_wait(model: &ModelConfig, memory: &MemoryConfig) -> anyhow::Result<Started> {
    start_as(model, memory, None)
}

/// The same, but with the experts of so many layers, from the first, in main memory, and no copies of any: what people do by
/// hand, and what benchmarks compare with.
pub(super) fn start_as(
    model: &ModelConfig,
    memory: &MemoryConfig,
    experts_in_ram: Option<u32>,
) -> anyhow::Result<Started> {
    let metrics = Metrics::new();
    let prepared = prepare(model)?;
    let plan = plan_one(&prepared, memory)?;
    let (card, mut spec) = load_spec(prepared, &plan.models[0], &plan)?;
    if let Some(layers) = experts_in_ram {
        spec.experts = None;
        spec.placement.experts_in_ram = layers;
        // The plan knows nothing of that.
        spec.placement.planned.clear();
    }
    let threads = spec.threads;
    let series = metrics.model(&card.name);
    let engine = LocalEngine::start(card, spec, model.queue, series).context("cannot start a thread")?;
    let bar = output::progress_bar(100, &format!("loading {}", model.name));
    // The number is between 0 and 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage")]
    let result = engine.wait_until_loaded(|done| bar.set_position((done * 100.0) as u64));
    bar.finish_and_clear();
    result?;
    Ok(Started {
        engine: Arc::new(engine),
        metrics,
        threads,
    })
}

/// Serves a started engine on a free port of this machine, until the process ends.
pub(super) fn serve_in_background(started: &Started) -> anyhow::Result<SocketAddr> {
    let bound = api::bind(IpAddr::V4(Ipv4Addr::LOCALHOST), 0, &[])?;
    let address = bound.address;
    let state = State::new(vec![started.engine.clone() as Arc<dyn Engine>], started.metrics.clone());
    std::thread::Builder::new().name("http".into()).spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            match bound.start(&state, &ServerConfig::default()) {
                Ok(servers) => {
                    futures_util::future::join_all(servers).await;
                }
                Err(error) => tracing::error!("{error:#}"),
            }
        });
    })?;
    Ok(address)
}
