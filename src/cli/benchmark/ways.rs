//! The same cases with the same model, started in several ways; and `hearth benchmark --drafts`.

use std::io::Write;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::case::Case;
use super::prompts::Prompts;
use super::results::CaseReport;
use super::statistics::Spread;
use super::{Args, long_prompt, measure_all, render};
use crate::cli::machine::Machine;
use crate::cli::{engines, output};
use crate::config::{Config, DraftKind, MemoryConfig, ModelConfig};
use crate::engine::TokenEngine;
use crate::memory::Tier;
use crate::models::{self, Started};
use crate::report::Table;

/// One way to start the model.
pub(super) struct Way {
    pub(super) name: String,
    pub(super) model: ModelConfig,
    /// As in [`models::start`].
    pub(super) experts_in_ram: Option<u32>,
}

/// What each way is measured with.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) cases: Vec<Case>,
    /// Streams that decode while a long prompt arrives.
    pub(super) mixed: Option<Case>,
}

/// How fast it is.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) name: String,
    /// What the model takes of the GPU's memory, as allocated.
    pub(super) gpu_bytes: u64,
    /// What is in use of the GPUs' memory after the measurement, by this process and all others; `None` without a GPU that has
    /// memory of its own.
    pub(super) gpu_used_bytes: Option<u64>,
    pub(super) cases: Vec<CaseReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mixed: Option<Mixed>,
    /// Why it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// What a long prompt cost those who decoded when it arrived.
#[derive(Debug, Serialize)]
pub(super) struct Mixed {
    #[serde(flatten)]
    case: Case,
    /// By the names of [`long_prompt::COLUMNS`].
    #[serde(flatten)]
    values: Map<String, Value>,
    #[serde(skip)]
    pub(super) spreads: Vec<Option<Spread>>,
}

/// Kinds of drafts.
#[derive(Debug, Serialize)]
struct Drafts {
    #[serde(flatten)]
    facts: Facts,
    drafts: Vec<Measured>,
}

#[derive(Debug, Serialize)]
pub(super) struct Facts {
    hearth: &'static str,
    date: String,
    command: String,
    machine: Machine,
    model: String,
    repeat: u32,
}

impl Facts {
    pub(super) fn new(args: &Args, model: &ModelConfig, date: String) -> Self {
        Self {
            hearth: env!("CARGO_PKG_VERSION"),
            date,
            command: output::command_line(std::env::args()),
            machine: Machine::this(),
            model: model.name.clone(),
            repeat: args.repeat,
        }
    }
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
    let load = Load {
        cases: cases.to_vec(),
        mixed: None,
    };
    let date = super::now()?;
    let drafts = measure(ways.into(), args, all, &load, |_| ());
    if args.json {
        output::print_json(&Drafts {
            facts: Facts::new(args, config, date),
            drafts: drafts.ways,
        })?;
    } else {
        print(&table(&drafts.ways, cases).markdown())?;
    }
    drafts.failed
}

/// All ways, and the first error if one of them could not be measured.
pub(super) struct Outcome {
    pub(super) ways: Vec<Measured>,
    pub(super) failed: anyhow::Result<()>,
}

/// Starts the model in each way, one after the other: two of them may not fit into the memory. One that fails does not stop the
/// others. `tell` sees what is measured so far, after each way.
pub(super) fn measure(ways: Vec<Way>, args: &Args, all: &Config, load: &Load, tell: impl Fn(&[Measured])) -> Outcome {
    let mut outcome = Outcome {
        ways: Vec::new(),
        failed: Ok(()),
    };
    for Way {
        name,
        model,
        experts_in_ram,
    } in ways
    {
        eprintln!("{name}");
        let measured = engines::start_as(&model, all, experts_in_ram).and_then(|started| {
            let measured = measure_way(&started, name.clone(), args, load);
            started.finish();
            measured
        });
        outcome.ways.push(measured.unwrap_or_else(|error| {
            let failed = Measured {
                name: name.clone(),
                gpu_bytes: 0,
                gpu_used_bytes: None,
                cases: Vec::new(),
                mixed: None,
                error: Some(format!("{error:#}")),
            };
            if outcome.failed.is_ok() {
                outcome.failed = Err(error.context(format!("`{name}` could not be measured")));
            }
            failed
        }));
        tell(&outcome.ways);
    }
    outcome
}

fn measure_way(started: &Started, name: String, args: &Args, load: &Load) -> anyhow::Result<Measured> {
    let runs = measure_all(started, &load.cases, args)?;
    let mixed = load.mixed.map(|case| measure_mixed(started, case, args)).transpose()?;
    let cases = load.cases.iter().zip(&runs);
    let memory = started.engine.memory();
    Ok(Measured {
        name,
        gpu_bytes: memory.map_or(0, |memory| memory.allocated(Tier::Gpu).1),
        gpu_used_bytes: gpu_used(),
        cases: cases.map(|(case, runs)| CaseReport::new(*case, runs)).collect(),
        mixed,
        error: None,
    })
}

/// Bytes in use of all GPUs with memory of their own.
fn gpu_used() -> Option<u64> {
    let devices = models::machine(&MemoryConfig::default()).devices;
    let own = devices.iter().filter(|gpu| !gpu.unified);
    let used: Vec<u64> = own.map(|gpu| gpu.total.saturating_sub(gpu.free)).collect();
    (!used.is_empty()).then(|| used.iter().sum())
}

/// A long prompt beside streams; the first round is not counted.
fn measure_mixed(started: &Started, case: Case, args: &Args) -> anyhow::Result<Mixed> {
    let engine: &dyn TokenEngine = &*started.engine;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let prompts = runtime.block_on(Prompts::of(engine))?;
    let mut columns: Vec<Vec<f64>> = vec![Vec::new(); long_prompt::COLUMNS.len()];
    for round in 0..=args.repeat {
        let values = runtime
            .block_on(long_prompt::measure(engine, &prompts, case, round))
            .context("the measurement of a long prompt beside streams failed")?;
        for (column, value) in columns.iter_mut().zip(values).filter(|_| round > 0) {
            column.extend(value);
        }
    }
    let spreads: Vec<_> = columns.iter().map(|values| Spread::of(values)).collect();
    let named = long_prompt::COLUMNS.iter().zip(&spreads);
    Ok(Mixed {
        case,
        values: named
            .map(|((key, _), spread)| ((*key).to_owned(), json!(spread)))
            .collect(),
        spreads,
    })
}

pub(super) fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// A row for each case and kind of drafts, with its ratio to the first.
fn table(ways: &[Measured], cases: &[Case]) -> Table {
    let mut rows = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let base = ways[0].cases.get(index);
        for way in ways {
            let Some(now) = way.cases.get(index) else { continue };
            let rate = now.experts.as_ref().and_then(|experts| experts.hit_rate);
            let base = base.map(|base| &base.rates);
            rows.push(vec![
                case.to_string(),
                way.name.clone(),
                render::spread_text(now.rates.prefill_per_second),
                render::ratio_text(
                    now.rates.prefill_per_second,
                    base.and_then(|base| base.prefill_per_second),
                ),
                render::spread_text(now.rates.decode_per_second),
                render::ratio_text(
                    now.rates.decode_per_second,
                    base.and_then(|base| base.decode_per_second),
                ),
                render::acceptance_text(now.rates.drafts),
                rate.map_or("-".into(), |rate| format!("{:.1} %", rate.median * 100.0)),
            ]);
        }
    }
    let header = [
        "case",
        "drafts",
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
