//! `hearth benchmark --placements` and `--drafts`: the same cases with the same model, started in several ways.

use std::io::Write;

use anyhow::{Context, bail};
use serde::Serialize;

use super::case::Case;
use super::results::CaseReport;
use super::{Args, measure_all, render};
use crate::cli::machine::Machine;
use crate::cli::{engines, output};
use crate::config::{Config, DraftKind, ModelConfig};
use crate::engine::local::ALL_LAYERS;
use crate::memory::{Kind, Tier};
use crate::models;
use crate::plan::Experts;
use crate::report::Table;

/// One way to start the model.
struct Way {
    name: String,
    model: ModelConfig,
    /// As in [`models::start`].
    experts_in_ram: Option<u32>,
}

/// How fast it is.
#[derive(Debug, Serialize)]
struct Measured {
    name: String,
    cases: Vec<CaseReport>,
}

/// Ways to place the experts.
#[derive(Debug, Serialize)]
struct Placements {
    #[serde(flatten)]
    facts: Facts,
    /// Size of the expert cache, and the limit for the experts of whole layers.
    cache_bytes: u64,
    placements: Vec<Measured>,
}

/// Kinds of drafts.
#[derive(Debug, Serialize)]
struct Drafts {
    #[serde(flatten)]
    facts: Facts,
    drafts: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct Facts {
    hearth: &'static str,
    command: String,
    machine: Machine,
    model: String,
    repeat: u32,
}

impl Facts {
    fn new(args: &Args, model: &ModelConfig) -> Self {
        Self {
            hearth: env!("CARGO_PKG_VERSION"),
            command: output::command_line(std::env::args()),
            machine: Machine::this(),
            model: model.name.clone(),
            repeat: args.repeat,
        }
    }
}

/// The expert cache against the placements that llama.cpp offers.
pub(super) fn placements(args: &Args, config: &ModelConfig, all: &Config, cases: &[Case]) -> anyhow::Result<()> {
    let prepared = models::prepare(config)?;
    let plan = models::plan_one(&prepared, &all.memory)?;
    let planned = &plan.models[0];
    let Experts::Cache { device, capacity, of } = planned.experts else {
        let reasons: Vec<&str> = plan
            .reasons
            .iter()
            .chain(&planned.reasons)
            .map(String::as_str)
            .collect();
        bail!(
            "the plan has no expert cache for `{}`, so there is nothing to compare: {}\n  hint: --vram limits the GPU \
             memory; `experts = {{ placement = \"cache\" }}` asks for a cache",
            config.name,
            reasons.join("; ")
        );
    };
    let cache_bytes = planned.kind(device, Kind::ExpertCache);
    let shape = &prepared.request.shape;
    let layers = u32::try_from(shape.layers.len())?;
    // Layers have nearly the same size: the experts of this many take about as much memory as the cache.
    let per_layer = (shape.routed_experts() / u64::from(layers.max(1))).max(1);
    let on_gpu = u32::try_from(cache_bytes / per_layer)?.min(layers);
    drop(prepared);

    let way = |name: String, experts_in_ram: Option<u32>| Way {
        name,
        model: config.clone(),
        experts_in_ram,
    };
    let mut ways = vec![way("experts on the CPU".to_owned(), Some(ALL_LAYERS))];
    if device == Tier::Gpu {
        let name = format!("experts of {on_gpu} of {layers} layers on the GPU");
        ways.push(way(name, Some(layers - on_gpu)));
    }
    ways.push(way(format!("cache of {capacity} of {of} experts per layer"), None));
    let placements = measure(ways, args, all, cases)?;
    if args.json {
        return output::print_json(&Placements {
            facts: Facts::new(args, config),
            cache_bytes,
            placements,
        });
    }
    let memory = output::bytes(cache_bytes);
    print(&format!(
        "{}\nThe cache takes {memory}.\n",
        table("experts", &placements, cases).markdown()
    ))
}

/// Drafts as they are configured, against none.
pub(super) fn drafts(args: &Args, config: &ModelConfig, all: &Config, cases: &[Case]) -> anyhow::Result<()> {
    let kind = config.draft.kind;
    if kind == DraftKind::None {
        bail!(
            "the drafts of `{}` are switched off, so there is nothing to compare\n  hint: `--draft auto`, or another kind of \
             drafts than \"none\" in models.toml",
            config.name
        );
    }
    let ways = [DraftKind::None, kind].map(|kind| {
        let mut model = config.clone();
        model.draft.kind = kind;
        let name = match kind {
            DraftKind::Auto => "auto",
            DraftKind::Mtp => "mtp",
            DraftKind::Model => "model",
            DraftKind::Ngram => "ngram",
            DraftKind::None => "none",
        };
        Way {
            name: name.to_owned(),
            model,
            experts_in_ram: None,
        }
    });
    let drafts = measure(ways.into(), args, all, cases)?;
    if args.json {
        return output::print_json(&Drafts {
            facts: Facts::new(args, config),
            drafts,
        });
    }
    print(&table("drafts", &drafts, cases).markdown())
}

/// Starts the model in each way, one after the other: two of them may not fit into the memory.
fn measure(ways: Vec<Way>, args: &Args, all: &Config, cases: &[Case]) -> anyhow::Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for Way {
        name,
        model,
        experts_in_ram,
    } in ways
    {
        if !args.json {
            eprintln!("{name}");
        }
        let started = engines::start_as(&model, all, experts_in_ram)?;
        let runs = measure_all(&started, cases, args).with_context(|| name.clone())?;
        let cases = cases.iter().zip(&runs);
        measured.push(Measured {
            name,
            cases: cases.map(|(case, runs)| CaseReport::new(*case, runs)).collect(),
        });
        started.finish();
    }
    Ok(measured)
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// A row for each case and way, with its ratio to the first way.
fn table(what: &str, ways: &[Measured], cases: &[Case]) -> Table {
    let mut rows = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let base = &ways[0].cases[index];
        for way in ways {
            let now = &way.cases[index];
            let rate = now.experts.as_ref().and_then(|experts| experts.hit_rate);
            rows.push(vec![
                case.to_string(),
                way.name.clone(),
                render::spread_text(now.rates.prefill_per_second),
                render::ratio_text(now.rates.prefill_per_second, base.rates.prefill_per_second),
                render::spread_text(now.rates.decode_per_second),
                render::ratio_text(now.rates.decode_per_second, base.rates.decode_per_second),
                render::acceptance_text(now.rates.drafts),
                rate.map_or("-".into(), |rate| format!("{:.1} %", rate.median * 100.0)),
            ]);
        }
    }
    let header = [
        "case",
        what,
        "prefill tokens/s",
        "ratio",
        "decode tokens/s",
        "ratio",
        "drafts accepted",
        "hit rate",
    ];
    Table {
        header: header.map(str::to_owned).into(),
        rows,
    }
}
