//! Runs prompts through a model whose cache of experts records what they select.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::results::{Measured, WARM_UP};
use crate::cli::engines;
use crate::cli::generate::{Asker, Item};
use crate::cli::output;
use crate::config::{CacheDevice, CacheSize, Config, DraftKind, ExpertPlacement, MemoryConfig, ModelConfig};
use crate::engine::SamplingOverrides;
use crate::experts::ExpertCache;
use crate::experts::policy::LayerCounts;
use crate::experts::trace::Trace;
use crate::generation::{GenerationError, Options};
use crate::models;

/// As people use it; greedy answers of small models go round in circles.
const TEMPERATURE: f32 = 0.8;

/// What a run showed.
pub(super) struct Recorded {
    pub(super) trace: Trace,
    /// What the cache did meanwhile.
    pub(super) measured: Option<Measured>,
    /// Where the heat map was saved, for later starts of the model.
    pub(super) heat_file: Option<PathBuf>,
}

/// The model as it is profiled: one sequence, and with a cache that can record.
pub(super) fn with_cache(model: &ModelConfig) -> anyhow::Result<ModelConfig> {
    if models::open(model)?.geometry()?.experts == 0 {
        bail!(
            "the model `{}` has no experts, so there is no routing to profile: choose another one with --model",
            model.name
        );
    }
    let mut model = model.clone();
    model.parallel = Some(1);
    // Wrong guesses are routed, too.
    model.draft.kind = DraftKind::None;
    let experts = &mut model.experts;
    if experts.placement != ExpertPlacement::Cache {
        experts.placement = ExpertPlacement::Cache;
        experts.device = CacheDevice::Cpu;
        experts.cache = CacheSize::Percent(25);
    } else if models::machine(&MemoryConfig::default()).devices.is_empty() {
        experts.device = CacheDevice::Cpu;
    }
    Ok(model)
}

/// Starts the model and runs all prompts, one after the other.
pub(super) fn run(model: &ModelConfig, config: &Config, items: &[Item], generate: u32) -> anyhow::Result<Recorded> {
    let started = engines::start_and_wait(model, config)?;
    let Some(cache) = started.engine.expert_cache().cloned() else {
        bail!("the model `{}` was started without a cache of experts", model.name);
    };
    let asker = Asker::new(started.engine);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let bar = output::progress_bar(items.len() as u64, "prompts");
    let mut snapshots = vec![cache.stats().total()];
    cache.record_trace();
    for (seed, item) in (1..).zip(items) {
        runtime.block_on(complete(&asker, item, options(item, seed, generate)))?;
        snapshots.push(cache.stats().total());
        bar.inc(1);
    }
    bar.finish_and_clear();
    let trace = cache.take_trace();
    let trace =
        trace.context("no layer with experts computed a token: the model's experts are not where hearth looks")?;
    cache.save_heat();
    Ok(Recorded {
        measured: measured(&cache, &snapshots),
        trace,
        heat_file: cache.heat_file().map(ToOwned::to_owned),
    })
}

fn options(item: &Item, seed: u32, generate: u32) -> Options {
    Options {
        sampling: SamplingOverrides {
            temperature: item.temperature.or(Some(TEMPERATURE)),
            seed: item.seed.or(Some(seed)),
            max_tokens: item.max_tokens.or(Some(generate)),
            ..SamplingOverrides::default()
        },
        cache_prompt: false,
        special: true,
        ..Options::default()
    }
}

async fn complete(asker: &Asker, item: &Item, options: Options) -> Result<(), GenerationError> {
    let outputs = asker.ask(item.system.as_deref(), &item.prompt, options).await?;
    outputs.collect().await.map(drop)
}

/// What happened after the warm-up, which ends with the prompt that makes it long enough. `snapshots` are the counts
/// before the first prompt and after each; `None` if there is nothing after the warm-up.
fn measured(cache: &Arc<ExpertCache>, snapshots: &[LayerCounts]) -> Option<Measured> {
    let stats = cache.stats();
    let layers = stats.layers.len() as u64;
    let (first, last) = (*snapshots.first()?, *snapshots.last()?);
    let total = last.since(first).tokens;
    let wanted = (WARM_UP as u64 * layers).min(total / 4);
    let warm = snapshots.iter().find(|counts| counts.since(first).tokens >= wanted)?;
    let counts = last.since(*warm);
    Some(Measured {
        policy: stats.policy,
        capacity: stats.layers.iter().map(|layer| layer.capacity).min()?,
        warm_up: usize::try_from(warm.since(first).tokens / layers.max(1)).ok()?,
        hit_rate: counts.hit_rate()?,
        counts,
        simulated: None,
    })
}
