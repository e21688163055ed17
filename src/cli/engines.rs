//! From a configuration to running engines.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;

use super::output;
use crate::api::{self, State};
use crate::config::{
    self, CacheDevice, CacheSize, ExpertPlacement, Loaded, ModelConfig, ModelSource, Overrides, ServerConfig,
};
use crate::engine::Engine;
use crate::engine::local::{self, LoadSpec, LocalEngine, threads};
use crate::experts::heat::{Fingerprint, HeatMap};
use crate::experts::policy::PolicyConfig;
use crate::experts::{CacheConfig, Device, ExpertCache, Slots, has_gpu};
use crate::folders;
use crate::gguf::Gguf;
use crate::telemetry::Metrics;

/// One engine that is ready, for commands that work without a server.
pub(super) struct Started {
    pub(super) engine: Arc<LocalEngine>,
    pub(super) metrics: Metrics,
    /// Threads that compute.
    pub(super) threads: u32,
}

/// Reads the configuration and tells its warnings.
pub(super) fn load_config(overrides: &Overrides) -> anyhow::Result<Loaded> {
    let loaded = config::load(overrides)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

/// Inspects a model's file and starts its engine; the weights load in the background.
///
/// The file is checked here since llama.cpp aborts the process on some damaged ones.
pub(super) fn start(model: &ModelConfig, metrics: &Metrics) -> anyhow::Result<LocalEngine> {
    let path = match &model.source {
        ModelSource::File(path) => path.clone(),
        ModelSource::Demo(demo) => demo.unpack()?,
    };
    let gguf = Gguf::open(&path).with_context(|| format!("model `{}` cannot be used", model.name))?;
    let card = local::describe(model, &gguf).with_context(|| format!("model `{}` cannot be used", model.name))?;
    if card.context > card.context_train {
        tracing::warn!(
            model = card.name,
            context = card.context,
            trained = card.context_train,
            "the context is longer than the model was trained for"
        );
    }
    let spec = LoadSpec {
        path,
        context: card.context,
        parallel: card.parallel,
        threads: model.threads,
        experts: expert_cache(model, &gguf)?,
    };
    let metrics = metrics.model(&card.name);
    LocalEngine::start(card, spec, model.queue, metrics).context("cannot start a thread")
}

/// The cache that the configuration asks for. Without a GPU llama.cpp's own way is faster, so only an explicit `cpu` brings
/// one.
fn expert_cache(model: &ModelConfig, gguf: &Gguf) -> anyhow::Result<Option<Arc<ExpertCache>>> {
    let config = &model.experts;
    let shape = gguf.geometry()?;
    if config.placement != ExpertPlacement::Cache || shape.experts == 0 {
        return Ok(None);
    }
    let device = match config.device {
        CacheDevice::Cpu => Device::Cpu,
        CacheDevice::Auto => Device::Gpu,
    };
    if device == Device::Gpu && !has_gpu() {
        tracing::warn!(
            model = model.name,
            "there is no GPU to hold copies of experts: the cache is left out, since llama.cpp alone is faster \
             (device = \"cpu\" would keep it)"
        );
        return Ok(None);
    }
    let experts = usize::try_from(shape.experts)?;
    let total: u64 = gguf
        .tensors()
        .iter()
        .filter(|tensor| tensor.name.contains("_exps."))
        .map(|tensor| tensor.bytes)
        .sum();
    let slots = match config.cache {
        CacheSize::Auto => Slots::Share(0.25),
        CacheSize::Percent(percent) => Slots::Share(f32::from(percent) / 100.0),
        // In each layer one slot more than can be used: the one of zeros.
        CacheSize::Bytes(bytes) => {
            let slot = total.div_ceil(u64::from(shape.experts)).max(1);
            Slots::PerLayer(usize::try_from(bytes / slot)?.saturating_sub(1))
        }
    };
    let layers = usize::try_from(shape.layers + shape.mtp_layers)?;
    // What makes a model route as it does: its shape, and the first router.
    let router = gguf
        .tensors()
        .iter()
        .find(|tensor| tensor.name.contains("ffn_gate_inp"));
    let router = router.map_or(&[][..], |tensor| gguf.data(tensor));
    let fingerprint = Fingerprint::of([gguf.header_bytes(), router]);
    let file = fingerprint.heat_file(&folders::heat());
    let heat = HeatMap::load(&file, fingerprint, layers, experts).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        None
    });
    let heat = heat.unwrap_or_else(|| HeatMap::new(fingerprint, layers, experts));
    let config = CacheConfig {
        device,
        slots,
        policy: PolicyConfig {
            kind: model.experts.policy,
            ..PolicyConfig::default()
        },
        active: shape.experts_used,
        pins: BTreeMap::new(),
    };
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
    start_and_wait(choose(&loaded.config.models, name)?)
}

/// Starts a model and waits until it is loaded.
pub(super) fn start_and_wait(model: &ModelConfig) -> anyhow::Result<Started> {
    let metrics = Metrics::new();
    let engine = start(model, &metrics)?;
    let bar = output::progress_bar(100, &format!("loading {}", model.name));
    // The number is between 0 and 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage")]
    let result = engine.wait_until_loaded(|done| bar.set_position((done * 100.0) as u64));
    bar.finish_and_clear();
    result?;
    Ok(Started {
        engine: Arc::new(engine),
        metrics,
        threads: model.threads.unwrap_or_else(threads::physical_cores),
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
