//! Runs prompts through a model whose cache of experts records what they select.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::results::{Measured, WARM_UP};
use crate::cli::engines::{self, Started};
use crate::cli::generate::{Item, Style};
use crate::cli::output;
use crate::config::{CacheDevice, CacheSize, ExpertPlacement, MemoryConfig, ModelConfig};
use crate::engine::{Engine, Event, GenerateRequest, Prompt, SamplingOverrides};
use crate::experts::ExpertCache;
use crate::experts::policy::LayerCounts;
use crate::experts::trace::Trace;

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
    if engines::open(model)?.geometry()?.experts == 0 {
        bail!(
            "the model `{}` has no experts, so there is no routing to profile: choose another one with --model",
            model.name
        );
    }
    let mut model = model.clone();
    model.parallel = 1;
    let experts = &mut model.experts;
    if experts.placement != ExpertPlacement::Cache {
        experts.placement = ExpertPlacement::Cache;
        experts.device = CacheDevice::Cpu;
        experts.cache = CacheSize::Percent(25);
    } else if engines::machine().devices.is_empty() {
        experts.device = CacheDevice::Cpu;
    }
    Ok(model)
}

/// Starts the model and runs all prompts, one after the other.
pub(super) fn run(
    model: &ModelConfig,
    memory: &MemoryConfig,
    items: &[Item],
    generate: u32,
) -> anyhow::Result<Recorded> {
    let started = engines::start_and_wait(model, memory)?;
    let Some(cache) = started.engine.expert_cache().cloned() else {
        bail!("the model `{}` was started without a cache of experts", model.name);
    };
    let style = Style::of(started.engine.card())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let bar = output::progress_bar(items.len() as u64, "prompts");
    let mut snapshots = vec![cache.stats().total()];
    cache.record_trace();
    for (seed, item) in (1..).zip(items) {
        let request = request(&style, item, seed, generate)?;
        runtime.block_on(complete(&started, request))?;
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

fn request(style: &Style, item: &Item, seed: u32, generate: u32) -> anyhow::Result<GenerateRequest> {
    let sampling = SamplingOverrides {
        temperature: item.temperature.or(Some(TEMPERATURE)),
        seed: item.seed.or(Some(seed)),
        ..SamplingOverrides::default()
    };
    Ok(GenerateRequest {
        prompt: Prompt::Text {
            text: style.text(item.system.as_deref(), &item.prompt)?,
            add_special: true,
        },
        max_tokens: Some(item.max_tokens.unwrap_or(generate)),
        sampling: sampling.resolve(Vec::new())?,
        stop: Vec::new(),
        stop_tokens: Vec::new(),
        ignore_eos: false,
        cache_prompt: false,
        special: true,
        progress: false,
    })
}

async fn complete(started: &Started, request: GenerateRequest) -> anyhow::Result<()> {
    let mut events = started.engine.submit(request).await?;
    while let Some(event) = events.next().await {
        match event {
            Event::Finished { .. } => return Ok(()),
            Event::Failed(error) => return Err(error.into()),
            Event::Delta { .. } | Event::Progress(_) => {}
        }
    }
    bail!("the engine ended without an answer")
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
        slots: stats.layers.iter().map(|layer| layer.capacity).min()?,
        warm_up: usize::try_from(warm.since(first).tokens / layers.max(1)).ok()?,
        hit_rate: counts.hit_rate()?,
        counts,
        simulated: None,
    })
}
