//! `hearth config`: checks, shows and describes the configuration.

use std::io::Write;

use clap::Subcommand;
use serde_json::json;

use super::output;
use crate::config::{self, Config, ConfigErrors, Loaded, ModelSource, Overrides};

/// Arguments of `hearth config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Report all mistakes; exit code 2 if there are any.
    Check(Source),
    /// Print the configuration as it is after the file, the environment and the flags.
    Show(Source),
    /// Print the JSON schema of models.toml.
    Schema,
}

#[derive(Debug, clap::Args)]
struct Source {
    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    overrides: Overrides,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    match args.action {
        Action::Check(source) => check(&source),
        Action::Show(source) => {
            let loaded = config::load(&source.overrides)?;
            if source.json {
                return output::print_json(&as_json(&loaded));
            }
            let mut out = std::io::stdout().lock();
            match &loaded.file {
                Some(file) => writeln!(out, "# {}, with the environment and the flags", file.display())?,
                None => writeln!(
                    out,
                    "# no configuration file: the defaults, the environment and the flags"
                )?,
            }
            let mut shown = as_json(&loaded);
            shown.as_object_mut().map(|shown| shown.remove("file"));
            write!(out, "{}", toml::to_string(&shown)?)?;
            Ok(())
        }
        Action::Schema => output::print_json(&config::schema()),
    }
}

fn check(source: &Source) -> anyhow::Result<()> {
    let result = config::load(&source.overrides);
    if source.json {
        let (errors, warnings) = match &result {
            Ok(loaded) => (None, loaded.warnings.clone()),
            Err(errors) => (Some(errors), Vec::new()),
        };
        let mistakes = errors.map_or_else(|| json!([]), |ConfigErrors { mistakes, .. }| json!(mistakes));
        output::print_json(&json!({"ok": result.is_ok(), "mistakes": mistakes, "warnings": warnings}))?;
    }
    let loaded = result?;
    if !source.json {
        let mut out = std::io::stdout().lock();
        for warning in &loaded.warnings {
            writeln!(out, "warning: {warning}")?;
        }
        let names: Vec<&str> = loaded.config.models.iter().map(|model| model.name.as_str()).collect();
        writeln!(out, "ok: {}", names.join(", "))?;
    }
    Ok(())
}

/// The configuration in the words of models.toml.
fn as_json(loaded: &Loaded) -> serde_json::Value {
    let Config { server, memory, models } = &loaded.config;
    let models: Vec<serde_json::Value> = models
        .iter()
        .map(|model| {
            let path = match &model.source {
                ModelSource::File(path) => path.display().to_string(),
                ModelSource::Demo(demo) => format!("demo:{}", demo.name()),
            };
            let mut shown = json!({
                "name": model.name, "role": model.role, "aliases": model.aliases, "path": path, "port": model.port,
                "context": model.context, "parallel": model.parallel, "threads": model.threads, "queue": model.queue,
                "sampling": model.sampling,
            });
            if let Some(shown) = shown.as_object_mut() {
                shown.retain(|_, value| !value.is_null());
            }
            shown
        })
        .collect();
    json!({
        "file": loaded.file,
        "server": {
            "host": server.host, "port": server.port, "threads": server.http_threads,
            "body_limit": format!("{}KiB", server.body_limit / 1024),
            "shutdown_grace": format!("{}ms", server.shutdown_grace.as_millis()),
        },
        "memory": {
            "vram": memory.vram.to_string(), "ram": memory.ram.to_string(), "headroom": memory.headroom.to_string(),
        },
        "model": models,
    })
}
