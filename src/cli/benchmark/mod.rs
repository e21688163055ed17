//! `hearth benchmark`: how fast a model is on this machine, how running servers compare, and what the layers above
//! llama.cpp cost.
//!
//! Every round measures all cases one after the other, so that a machine that changes its speed changes it for all of
//! them. The first round warms caches and clocks and is not counted.

mod case;
mod charts;
mod long_prompt;
mod measure;
mod overhead;
mod placements;
mod prompts;
mod render;
mod results;
mod servers;
mod statistics;
mod streams;
mod ways;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::case::Case;
use self::prompts::Prompts;
use self::results::{CaseReport, ModelFacts, Report};
use self::servers::scenario::Scenario;
use self::streams::Measured;
use super::engines;
use super::machine::Machine;
use super::output;
use crate::config::{self, Overrides};
use crate::engine::TokenEngine;
use crate::models::{self, Started};
use crate::report::Page;

/// Length of a prompt, and tokens that are generated, where none are given.
const PROMPT_TOKENS: [u32; 1] = [512];
const GENERATE: [u32; 1] = [128];

/// A list of the command line, or what is measured without one.
fn given_or<'l>(given: &'l [u32], otherwise: &'l [u32]) -> &'l [u32] {
    if given.is_empty() { otherwise } else { given }
}

/// Arguments of `hearth benchmark`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name, alias or role of the model; the first one if not given. With --url: a model of the servers, once for all of
    /// them or once for each.
    #[arg(long, short)]
    model: Vec<String>,

    /// Lengths of the prompts, in tokens; 512 if not given, with --placements 512 and 4096.
    #[arg(long, value_name = "N,N..", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "overhead")]
    prompt_tokens: Vec<u32>,

    /// Tokens to generate after each prompt, 128 if not given; 1 measures the prompt alone.
    #[arg(long, value_name = "N,N..", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "overhead")]
    generate: Vec<u32>,

    /// Streams at once; 1 if not given, 4 with --mixed, and 1, 4 and 8 with --placements. Every combination of the three lists is
    /// measured, but with --placements.
    #[arg(long, value_name = "N,N..", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "overhead")]
    concurrency: Vec<u32>,

    /// How often each combination is measured, after one round that is not counted.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000),
        conflicts_with = "overhead")]
    repeat: u32,

    /// Time between the starts of two streams, such as 200ms: prompts arrive while others decode.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = config::parse_duration,
        conflicts_with = "overhead")]
    stagger: Duration,

    /// Write report.md, report.json, report.html and the charts into this folder.
    #[arg(long, short, value_name = "DIR", conflicts_with = "overhead")]
    output: Option<PathBuf>,

    /// Compare a bare llama_decode loop, the engine, and HTTP streaming instead.
    #[arg(long)]
    overhead: bool,

    /// Measure the turns of a chat with tools instead: the first, the second, the same again, with another last message, and
    /// of another chat with the same system prompt of --prompt-tokens.
    #[arg(long, conflicts_with_all = ["overhead", "placements", "concurrency", "stagger"])]
    conversation: bool,

    /// Measure what a prompt of --prompt-tokens costs the streams of --concurrency that decode when it arrives.
    #[arg(long, conflicts_with_all = ["overhead", "placements", "conversation", "stagger"])]
    mixed: bool,

    /// Compare placements of the experts: all on the CPU, as many whole layers of them on the GPU as fit, and the expert cache, alone
    /// and with drafts, all within the same GPU memory (--vram). Of each: each prompt of --prompt-tokens alone, decoding behind the
    /// shortest with --concurrency streams, and the longest arriving while others decode.
    #[arg(long, conflicts_with_all = ["overhead", "output", "stagger"])]
    placements: bool,

    /// Compare drafts as they are configured (--draft) with none.
    #[arg(long, conflicts_with_all = ["overhead", "placements", "conversation", "mixed", "output"])]
    drafts: bool,

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
    servers: servers::Args,

    #[command(flatten)]
    overrides: Overrides,
}

impl Args {
    /// What to measure instead of equal streams.
    fn scenario(&self) -> Option<Scenario> {
        match (self.conversation, self.mixed) {
            (true, _) => Some(Scenario::Conversation),
            (_, true) => Some(Scenario::Mixed),
            _ => None,
        }
    }

    /// The model to measure in this process.
    fn one_model(&self) -> anyhow::Result<Option<&str>> {
        match self.model.as_slice() {
            [] => Ok(None),
            [model] => Ok(Some(model)),
            _ => bail!("one --model can be measured at a time; several are for several --url"),
        }
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    if args.overhead {
        return overhead::run(&args);
    }
    if args.placements {
        return placements::run(&args);
    }
    let scenario = args.scenario();
    let concurrency = [scenario.map_or(1, Scenario::streams)];
    let cases = case::combine(
        given_or(&args.prompt_tokens, &PROMPT_TOKENS),
        given_or(&args.generate, &GENERATE),
        given_or(&args.concurrency, &concurrency),
    );
    if let Some(scenario) = scenario {
        return servers::scenario::run(&args, scenario, &cases);
    }
    if !args.servers.urls.is_empty() {
        return servers::run(&args, &cases);
    }
    let loaded = engines::load_config(&args.overrides)?;
    let mut config = engines::choose(&loaded.config.models, args.one_model()?)?.clone();
    // Finds everything that can go wrong before minutes of loading and measuring.
    let file = models::open(&config)?;
    case::check(&cases, &models::describe(&config, &file)?)?;
    case::fit(&cases, &mut config);
    let config = &config;
    if args.drafts {
        return ways::drafts(&args, config, &loaded.config, &cases);
    }
    let report_folder = args.output.as_deref().map(create_folder).transpose()?;
    // All keys of `experts` in effect.
    let experts = loaded.config.models.iter().position(|model| model.name == config.name);
    let experts = experts.map(|index| loaded.to_json()["model"][index]["experts"].take());

    let date = now()?;
    let started = engines::start_and_wait(config, &loaded.config)?;
    let measured = measure_all(&started, &cases, &args)?;
    let report = Report {
        hearth: env!("CARGO_PKG_VERSION"),
        date,
        command: output::command_line(std::env::args()),
        machine: Machine::this(),
        model: ModelFacts::new(
            started.engine.info(),
            &file,
            started.threads.decode,
            experts.unwrap_or_default(),
        ),
        memory: started.engine.memory(),
        repeat: args.repeat,
        stagger_ms: args.stagger.as_millis(),
        cases: cases
            .iter()
            .zip(&measured)
            .map(|(case, runs)| CaseReport::new(*case, runs))
            .collect(),
    };
    if let Some(folder) = report_folder {
        write_report(&render::page(&report), &report, folder)?;
    }
    print(args.json, &report, render::terminal)
}

/// The counted runs of each case.
fn measure_all(started: &Started, cases: &[Case], args: &Args) -> anyhow::Result<Vec<Vec<Measured>>> {
    let engine: &dyn TokenEngine = &*started.engine;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let prompts = runtime.block_on(Prompts::of(engine))?;
    let bar = output::progress_bar(cases.len() as u64 * (u64::from(args.repeat) + 1), "runs");
    let mut measured: Vec<Vec<Measured>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 0..=args.repeat {
        for (case, runs) in cases.iter().zip(&mut measured) {
            bar.set_message(case.to_string());
            let run = runtime
                .block_on(measure::run(engine, &prompts, *case, round, args.stagger))
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

/// The time, for a report.
fn now() -> anyhow::Result<String> {
    Ok(OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?)
}

/// Makes the folder for a report before anything is measured.
fn create_folder(folder: &Path) -> anyhow::Result<&Path> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create the folder {} for the report", folder.display()))?;
    Ok(folder)
}

fn write_report(page: &Page, report: &impl Serialize, folder: &Path) -> anyhow::Result<()> {
    let mut json = serde_json::to_string_pretty(report)?;
    json.push('\n');
    let files = [
        ("report.md", page.markdown()),
        ("report.json", json),
        ("report.html", page.html()),
    ];
    output::write_files(folder, files, page.figures())
}

/// Prints a report as JSON or for people.
fn print<R: Serialize>(json: bool, report: &R, text: fn(&R) -> String) -> anyhow::Result<()> {
    if json {
        return output::print_json(report);
    }
    std::io::stdout().lock().write_all(text(report).as_bytes())?;
    Ok(())
}
