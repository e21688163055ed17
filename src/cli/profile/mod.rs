//! `hearth profile`: how a model uses its experts, and what each policy of the cache would make of it.
//!
//! Routing is recorded while prompts are answered, and then replayed. It is the same on any device, so a machine without a
//! GPU can profile for one with it.

mod record;
mod render;
mod results;
mod samples;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::results::{Geometry, LayerReport, Measured, Report};
use super::machine::Machine;
use super::{engines, output};
use crate::config::Overrides;
use crate::experts::trace::Trace;

/// The trace among the files of a profile.
const TRACE: &str = "routing.trace";
/// Hours of decoding with the largest models.
const MAX_TRACE: u64 = 1 << 31;

/// Arguments of `hearth profile`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name, alias or role of the model; the first one if not given.
    #[arg(long, short)]
    model: Option<String>,

    /// How many of the built-in prompts to run.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=100_000),
        conflicts_with_all = ["prompts", "simulate"])]
    samples: u32,

    /// Run the prompts of this file instead: one per line, or JSONL as for `hearth generate --batch`.
    #[arg(long, value_name = "FILE", conflicts_with = "simulate")]
    prompts: Option<PathBuf>,

    /// Tokens to generate at most after each prompt.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..),
        conflicts_with = "simulate")]
    generate: u32,

    /// Run nothing, but replay a recorded trace; without TRACE the one in the folder of --output.
    #[arg(long, value_name = "TRACE", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "clap's way to say that the value may be missing")]
    simulate: Option<Option<PathBuf>>,

    /// Sizes of the cache to simulate, as shares of the experts.
    #[arg(long, value_name = "P%,P%..", value_delimiter = ',', default_value = "12.5%,25%,37.5%,50%,75%",
        value_parser = parse_share)]
    capacities: Vec<f64>,

    /// Folder for the trace, the heat map, profile.json, the charts and index.html; ./hearth-profile-MODEL if not given.
    /// With --simulate nothing is written unless it is given.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    overrides: Overrides,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let number = text.trim().strip_suffix('%').unwrap_or(text.trim()).parse::<f64>();
    match number {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write a share of the experts such as 25%, between 0% and 100%".into()),
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    match &args.simulate {
        Some(trace) => replay(&args, trace.as_deref()),
        None => record(&args),
    }
}

fn record(args: &Args) -> anyhow::Result<()> {
    let items = match &args.prompts {
        Some(file) => samples::read(file)?,
        None => samples::built_in(usize::try_from(args.samples)?),
    };
    let loaded = engines::load_config(&args.overrides)?;
    let model = record::with_cache(engines::choose(&loaded.config.models, args.model.as_deref())?)?;
    // Before minutes of computing.
    let folder = create(&folder(args, &model.name))?;
    let recorded = record::run(&model, &loaded.config, &items, args.generate)?;
    let path = folder.join(TRACE);
    let written = || -> anyhow::Result<()> {
        let mut file = BufWriter::new(File::create(&path)?);
        recorded.trace.write(&mut file)?;
        Ok(file.flush()?)
    };
    written().with_context(|| format!("cannot write {}", path.display()))?;
    let report = report(args, model.name, &recorded.trace, recorded.measured)?;
    write(&report, &folder)?;
    print(args, &report)?;
    if let Some(file) = recorded.heat_file.filter(|file| file.exists()) {
        // For another machine, which keeps it under the same name.
        let copy = folder.join(file.file_name().unwrap_or_default());
        std::fs::copy(&file, &copy).with_context(|| format!("cannot write {}", copy.display()))?;
        eprintln!(
            "The heat map is kept in {}: the model starts with it from now on.",
            file.display()
        );
    }
    eprintln!("The profile is in {}: see index.html there.", folder.display());
    Ok(())
}

fn replay(args: &Args, trace: Option<&Path>) -> anyhow::Result<()> {
    let path = match (trace, &args.output) {
        (Some(path), _) => path.to_owned(),
        (None, Some(folder)) => folder.join(TRACE),
        (None, None) => {
            let loaded = engines::load_config(&args.overrides)?;
            let model = engines::choose(&loaded.config.models, args.model.as_deref())?;
            folder(args, &model.name).join(TRACE)
        }
    };
    let name = path.display();
    let hint = || format!("cannot replay {name}: record a trace with `hearth profile`");
    let file = File::open(&path).with_context(hint)?;
    let trace = Trace::read(file, MAX_TRACE).with_context(hint)?;
    let report = report(args, name.to_string(), &trace, None)?;
    if let Some(folder) = &args.output {
        write(&report, &create(folder)?)?;
    }
    print(args, &report)
}

fn folder(args: &Args, model: &str) -> PathBuf {
    // A model may be called `a/b`.
    let name: String = model
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    args.output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("hearth-profile-{name}")))
}

fn create(folder: &Path) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create the folder {} for the profile", folder.display()))?;
    Ok(folder.to_owned())
}

fn report(args: &Args, source: String, trace: &Trace, mut measured: Option<Measured>) -> anyhow::Result<Report> {
    let simulation = results::simulation(args.capacities.clone());
    if let Some(measured) = &mut measured {
        measured.compare(trace, &simulation);
    }
    Ok(Report {
        hearth: env!("CARGO_PKG_VERSION"),
        date: OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?,
        command: output::command_line(std::env::args()),
        machine: Machine::this(),
        source,
        geometry: Geometry::of(trace),
        layers: LayerReport::all(trace),
        rows: results::rows(trace, &simulation),
        simulation,
        measured,
    })
}

fn write(report: &Report, folder: &Path) -> anyhow::Result<()> {
    let page = render::page(report);
    let mut json = serde_json::to_string_pretty(report)?;
    json.push('\n');
    let files = [("profile.json", json), ("index.html", page.html())];
    output::write_files(folder, files, page.figures())
}

fn print(args: &Args, report: &Report) -> anyhow::Result<()> {
    if args.json {
        return output::print_json(report);
    }
    write!(std::io::stdout().lock(), "{}", render::terminal(report))?;
    Ok(())
}
