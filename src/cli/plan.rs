//! `hearth plan`: where everything would go, on this machine or on another.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use serde::Serialize;

use super::{engines, output};
use crate::config::{self, Overrides};
use crate::host::Described;
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

    /// Plan for a GPU with so much memory, such as 16GiB, instead of this machine's; 0 for none.
    #[arg(long, value_name = "BYTES", value_parser = size)]
    vram: Option<u64>,

    /// Plan for so much main memory, instead of this machine's.
    #[arg(long, value_name = "BYTES", value_parser = size)]
    ram: Option<u64>,

    /// Plan for a GPU that shares main memory.
    #[arg(long)]
    unified: bool,

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

fn size(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    config::parse_size(text)
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    if args.unified && args.vram == Some(0) {
        bail!("--vram 0 means no GPU, but --unified one that shares main memory: leave out one of the two");
    }
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
    let prepared = config.models.iter().map(models::prepare);
    let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
    let machine = models::machine().described(Described {
        vram: args.vram,
        ram: args.ram,
        unified: args.unified,
    });
    if machine.ram_total == 0 {
        bail!("this system does not tell how much memory it has; say it with --ram");
    }
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
