//! `hearth models`: what would be served.

use std::io::Write;

use serde_json::{Value, json};

use super::{engines, output};
use crate::config::Overrides;
use crate::models;

/// Arguments of `hearth models`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    overrides: Overrides,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let loaded = engines::load_config(&args.overrides)?;
    let mut listed = Vec::new();
    for model in &loaded.config.models {
        let prepared = models::prepare(model)?;
        listed.push((prepared.info, prepared.path, model.port));
    }
    if args.json {
        let models: Vec<Value> = listed
            .iter()
            .map(|(info, path, port)| {
                json!({
                    "name": info.name, "role": info.role, "aliases": info.aliases, "path": path, "port": port,
                    "architecture": info.architecture, "parameters": info.parameters, "bytes": info.size_bytes,
                    "context": info.context, "parallel": info.parallel,
                })
            })
            .collect();
        return output::print_json(&models);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["name", "role", "architecture", "size", "slots", "context", "port"]);
    for (info, _, port) in listed {
        table.add_row([
            info.name,
            info.role.unwrap_or_default(),
            info.architecture,
            output::bytes(info.size_bytes),
            info.parallel.to_string(),
            info.context.to_string(),
            port.map(|port| port.to_string()).unwrap_or_default(),
        ]);
    }
    writeln!(std::io::stdout().lock(), "{table}")?;
    Ok(())
}
