//! `hearth plan`: where everything would go, on this machine or on another.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::{described, engines, output};
use crate::config::{ModelSource, Overrides};
use crate::models;
use crate::plan::{self, Plan, Why};

/// Arguments of `hearth plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file [env: HEARTH_CONFIG; else as `hearth serve`].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Plan for this GGUF file (can be repeated), without a configuration file. Its header is enough.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    gguf: Vec<PathBuf>,

    #[command(flatten)]
    machine: described::Args,

    /// Memory that stays free on each tier.
    #[arg(long, value_name = "BYTES")]
    headroom: Option<String>,

    /// Tokens per sequence, for all models.
    #[arg(long, value_name = "TOKENS")]
    context: Option<u32>,

    /// Sequences that are computed at once, for all models.
    #[arg(long, value_name = "SLOTS")]
    parallel: Option<u32>,

    /// Also tell what single changes of the plan would bring.
    #[arg(long)]
    why: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Planned<'p> {
    #[serde(flatten)]
    plan: &'p Plan,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why>,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let overrides = Overrides {
        config: args.config,
        model_path: args.gguf,
        ..Overrides::default()
    }
    .with("--context", args.context)
    .with("--parallel", args.parallel)
    .with("--headroom", args.headroom);
    let loaded = engines::load_config(&overrides)?;
    let config = &loaded.config;
    // Models of other servers take nothing here.
    let here = config
        .models
        .iter()
        .filter(|model| model.source != ModelSource::Upstream);
    let prepared = here.map(models::prepare);
    let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
    let machine = args.machine.machine(&config.memory)?;
    let requests = models::requests(&prepared, &machine)?;
    let plan = plan::plan(&machine, &config.memory, &requests)?;
    let why = args.why.then(|| Why::of(&plan, &config.memory, &requests));
    if args.json {
        return output::print_json(&Planned { plan: &plan, why });
    }
    let mut out = std::io::stdout().lock();
    write!(out, "{plan}")?;
    if let Some(why) = why {
        write!(out, "\n{why}")?;
    }
    Ok(())
}
