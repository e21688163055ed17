//! `hearth models`: what would be served.

use std::io::Write;

use serde_json::{Value, json};

use super::{engines, output};
use crate::config::{ModelSource, Overrides, PresetConfig};
use crate::models;
use crate::plan;

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
    let (elsewhere, here): (Vec<_>, Vec<_>) = loaded
        .config
        .models
        .iter()
        .partition(|model| model.source == ModelSource::Upstream);
    let prepared = here.into_iter().map(models::prepare);
    let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
    let machine = models::machine(&loaded.config.memory);
    let requests = models::requests(&prepared, &machine)?;
    // What does not fit is listed as it is configured.
    let plan = plan::plan(&machine, &loaded.config.memory, &requests).ok();
    let mut listed = Vec::new();
    for (index, mut model) in prepared.into_iter().enumerate() {
        let planned = plan.as_ref().map(|plan| plan.models[index].context);
        let context = planned.unwrap_or(model.request.context);
        (model.info.context, model.info.parallel) = (context.tokens, context.parallel);
        listed.push((model.info, model.path, model.config.port));
    }
    let presets = &loaded.config.presets;
    if args.json {
        let mut models: Vec<Value> = listed
            .iter()
            .map(|(info, path, port)| {
                json!({
                    "name": info.name, "role": info.role, "aliases": info.aliases, "path": path, "port": port,
                    "architecture": info.architecture, "parameters": info.parameters, "bytes": info.size_bytes,
                    "context": info.context, "parallel": info.parallel,
                })
            })
            .collect();
        models.extend(elsewhere.iter().map(|model| {
            let servers = model.upstream.iter().map(|server| server.base_url.as_str());
            json!({
                "name": model.name, "role": model.role, "aliases": model.aliases, "port": model.port,
                "upstream": servers.collect::<Vec<_>>(), "context": model.context,
            })
        }));
        models.extend(presets.iter().map(|preset| {
            json!({
                "name": preset.name, "preset_of": preset.model, "system": preset.system, "sampling": preset.sampling,
                "stop": preset.stop, "response_format": preset.response_format,
                "reasoning_effort": preset.reasoning_effort, "enable_thinking": preset.enable_thinking,
                "chat_template_kwargs": preset.chat_template_kwargs,
            })
        }));
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
    for model in elsewhere {
        table.add_row([
            model.name.clone(),
            model.role.clone().unwrap_or_default(),
            "upstream".to_owned(),
            String::new(),
            String::new(),
            model.context.map(|context| context.to_string()).unwrap_or_default(),
            model.port.map(|port| port.to_string()).unwrap_or_default(),
        ]);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{table}")?;
    if presets.is_empty() {
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["preset", "model", "sets"]);
    for preset in presets {
        table.add_row([preset.name.as_str(), &preset.model, &settings(preset).join(", ")]);
    }
    writeln!(out, "\n{table}")?;
    Ok(())
}

/// What a preset sets, in the words of its keys.
fn settings(preset: &PresetConfig) -> Vec<String> {
    let given = [
        ("system", preset.system.is_some()),
        ("stop", !preset.stop.is_empty()),
        ("response_format", preset.response_format.is_some()),
        ("reasoning_effort", preset.reasoning_effort.is_some()),
        ("enable_thinking", preset.enable_thinking.is_some()),
        ("chat_template_kwargs", preset.chat_template_kwargs.is_some()),
    ];
    let given = given.into_iter().filter(|(_, given)| *given);
    let sampling = serde_json::to_value(&preset.sampling).unwrap_or_default();
    let sampling = sampling.as_object().into_iter().flatten();
    let sampling = sampling
        .filter(|(_, value)| !value.is_null())
        .map(|(name, _)| name.clone());
    given.map(|(name, _)| name.to_owned()).chain(sampling).collect()
}
