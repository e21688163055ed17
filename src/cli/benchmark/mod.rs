//! `hearth benchmark`: how fast a model answers on this machine, and what the layers above llama.cpp cost.
//!
//! Every round measures all cases one after the other, so that a machine that changes its speed changes it for all of
//! them. The first round warms caches and clocks and is not counted.

mod case;
mod measure;
mod overhead;
mod placements;
mod prompts;
mod render;
mod results;
mod statistics;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::case::Case;
use self::measure::Measured;
use self::prompts::Prompts;
use self::results::{CaseReport, ModelFacts, Report};
use super::engines;
use super::machine::Machine;
use super::output;
use crate::config::Overrides;
use crate::engine::Engine;
use crate::models::{self, Started};

/// Arguments of `hearth benchmark`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name, alias or role of the model; the first one if not given.
    #[arg(long, short)]
    model: Option<String>,

    /// Lengths of the prompts, in tokens.
    #[arg(long, value_name = "N,N..", value_delimiter = ',', default_value = "512",
        value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "overhead")]
    prompt_tokens: Vec<u32>,

    /// Tokens to generate after each prompt; 1 measures the prompt alone.
    #[arg(long, value_name = "N,N..", value_delimiter = ',', default_value = "128",
        value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "overhead")]
    generate: Vec<u32>,

    /// Streams at once. Every combination of the three lists is measured.
    #[arg(long, value_name = "N,N..", value_delimiter = ',', default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "overhead")]
    concurrency: Vec<u32>,

    /// How often each combination is measured, after one round that is not counted.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000),
        conflicts_with = "overhead")]
    repeat: u32,

    /// Write report.md, report.json, report.html and the charts into this folder.
    #[arg(long, short, value_name = "DIR", conflicts_with = "overhead")]
    output: Option<PathBuf>,

    /// Compare a bare llama_decode loop, the engine, and HTTP streaming instead.
    #[arg(long)]
    overhead: bool,

    /// Compare where the experts can be, with the same GPU memory: all on the CPU, those of whole layers on the GPU, and the
    /// cache of hot experts.
    #[arg(long, conflicts_with_all = ["overhead", "output"])]
    placements: bool,

    /// With --overhead: tokens to decode in each measurement.
    #[arg(long, default_value_t = 256, requires = "overhead")]
    tokens: u32,

    /// With --overhead: rounds of measurements.
    #[arg(long, default_value_t = 5, requires = "overhead")]
    rounds: usize,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    overrides: Overrides,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    if args.overhead {
        return overhead::run(&args);
    }
    let loaded = engines::load_config(&args.overrides)?;
    let config = engines::choose(&loaded.config.models, args.model.as_deref())?;
    let cases = case::combine(&args.prompt_tokens, &args.generate, &args.concurrency);
    // Everything that can go wrong is found before minutes of loading and measuring.
    let file = models::open(config)?;
    case::check(&cases, &models::describe(config, &file)?)?;
    if args.placements {
        return placements::run(&args, config, &loaded.config, &cases);
    }
    if let Some(folder) = &args.output {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the folder {} for the report", folder.display()))?;
    }
    // The effective keys, however many there are.
    let experts = loaded.config.models.iter().position(|model| model.name == config.name);
    let experts = experts.map(|index| loaded.to_json()["model"][index]["experts"].take());

    let date = OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?;
    let started = engines::start_and_wait(config, &loaded.config)?;
    let measured = measure_all(&started, &cases, args.repeat)?;
    let report = Report {
        hearth: env!("CARGO_PKG_VERSION"),
        date,
        command: output::command_line(std::env::args()),
        machine: Machine::this(),
        model: ModelFacts::new(
            started.engine.card(),
            &file,
            started.threads.decode,
            experts.unwrap_or_default(),
        ),
        memory: started.engine.memory(),
        repeat: args.repeat,
        cases: cases
            .iter()
            .zip(&measured)
            .map(|(case, runs)| CaseReport::new(*case, runs))
            .collect(),
    };
    if let Some(folder) = &args.output {
        write_report(&report, folder)?;
    }
    if args.json {
        return output::print_json(&report);
    }
    write!(std::io::stdout().lock(), "{}", render::terminal(&report))?;
    Ok(())
}

/// The counted runs of each case.
fn measure_all(started: &Started, cases: &[Case], repeat: u32) -> anyhow::Result<Vec<Vec<Measured>>> {
    let engine: &dyn Engine = &*started.engine;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let prompts = runtime.block_on(Prompts::of(engine))?;
    let bar = output::progress_bar(cases.len() as u64 * (u64::from(repeat) + 1), "runs");
    let mut measured: Vec<Vec<Measured>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 0..=repeat {
        for (case, runs) in cases.iter().zip(&mut measured) {
            bar.set_message(case.to_string());
            let run = runtime
                .block_on(measure::run(engine, &prompts, *case, round))
                .with_context(|| format!("the measurement of {case} failed"))?;
            if round > 0 {
                runs.push(run);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(measured)
}

fn write_report(report: &Report, folder: &Path) -> anyhow::Result<()> {
    let page = render::page(report);
    let mut json = serde_json::to_string_pretty(report)?;
    json.push('\n');
    let files = [
        ("report.md", page.markdown()),
        ("report.json", json),
        ("report.html", page.html()),
    ];
    output::write_files(folder, files, page.figures())
}
