//! `hearth benchmark --placements`: the expert cache against the placements that llama.cpp offers.

use std::io::Write;

use anyhow::{Context, bail};
use serde::Serialize;

use super::case::Case;
use super::results::CaseReport;
use super::{Args, measure_all, render};
use crate::cli::machine::Machine;
use crate::cli::{engines, output};
use crate::config::{Config, ModelConfig};
use crate::engine::local::ALL_LAYERS;
use crate::memory::{Kind, Tier};
use crate::models;
use crate::plan::Experts;
use crate::report::Table;

/// One way to place the experts, and how fast it is.
#[derive(Debug, Serialize)]
struct Placement {
    name: String,
    cases: Vec<CaseReport>,
}

#[derive(Debug, Serialize)]
struct Report {
    hearth: &'static str,
    command: String,
    machine: Machine,
    model: String,
    /// Size of the expert cache, and the limit for the experts of whole layers.
    cache_bytes: u64,
    repeat: u32,
    placements: Vec<Placement>,
}

pub(super) fn run(args: &Args, config: &ModelConfig, all: &Config, cases: &[Case]) -> anyhow::Result<()> {
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

    let mut ways = vec![("experts on the CPU".to_owned(), Some(ALL_LAYERS))];
    if device == Tier::Gpu {
        let name = format!("experts of {on_gpu} of {layers} layers on the GPU");
        ways.push((name, Some(layers - on_gpu)));
    }
    ways.push((format!("cache of {capacity} of {of} experts per layer"), None));
    let mut placements = Vec::new();
    for (name, experts_in_ram) in ways {
        if !args.json {
            eprintln!("{name}");
        }
        let started = engines::start_as(config, all, experts_in_ram)?;
        let measured = measure_all(&started, cases, args).with_context(|| name.clone())?;
        placements.push(Placement {
            name,
            cases: cases
                .iter()
                .zip(&measured)
                .map(|(case, runs)| CaseReport::new(*case, runs))
                .collect(),
        });
        started.finish();
    }
    let report = Report {
        hearth: env!("CARGO_PKG_VERSION"),
        command: output::command_line(std::env::args()),
        machine: Machine::this(),
        model: config.name.clone(),
        cache_bytes,
        repeat: args.repeat,
        placements,
    };
    if args.json {
        return output::print_json(&report);
    }
    let memory = output::bytes(cache_bytes);
    let out = format!("{}\nThe cache takes {memory}.\n", table(&report, cases).markdown());
    std::io::stdout().lock().write_all(out.as_bytes())?;
    Ok(())
}

/// A row for each case and placement, with its ratio to the first placement.
fn table(report: &Report, cases: &[Case]) -> Table {
    let mut rows = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let base = &report.placements[0].cases[index];
        for placement in &report.placements {
            let now = &placement.cases[index];
            let rate = now.experts.as_ref().and_then(|experts| experts.hit_rate);
            rows.push(vec![
                case.to_string(),
                placement.name.clone(),
                render::spread_text(now.rates.prefill_per_second),
                render::ratio_text(now.rates.prefill_per_second, base.rates.prefill_per_second),
                render::spread_text(now.rates.decode_per_second),
                render::ratio_text(now.rates.decode_per_second, base.rates.decode_per_second),
                rate.map_or("-".into(), |rate| format!("{:.1} %", rate.median * 100.0)),
            ]);
        }
    }
    let header = [
        "case",
        "experts",
        "prefill tokens/s",
        "ratio",
        "decode tokens/s",
        "ratio",
        "hit rate",
    ];
    Table {
        header: header.map(str::to_owned).into(),
        rows,
    }
}
