//! `hearth config`: checks and explains the configuration without loading a model.

use std::io::{self, Write};

use serde_json::json;

use super::output;
use crate::config::{self, Loaded, Overrides};

/// Arguments of `hearth config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Report every mistake of the configuration at once; exit 2 if there is any.
    Check(InputArgs),
    /// Print the configuration that is in effect after file, environment and flags.
    Show(InputArgs),
    /// Print the JSON schema of models.toml, for editors.
    Schema,
    /// Print all keys with their defaults, variables and flags, as Markdown.
    Keys,
}

#[derive(Debug, clap::Args)]
struct InputArgs {
    #[command(flatten)]
    overrides: Overrides,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command; all output for programs goes to stdout.
///
/// # Errors
/// [`config::ConfigErrors`] if the configuration has mistakes (the caller exits with 2), or that of writing.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Check(input) => check(&input),
        Command::Show(input) => show(&input),
        Command::Schema => output::print_json(&config::schema()),
        Command::Keys => Ok(write!(io::stdout().lock(), "{}", config::keys_as_markdown())?),
    }
}

fn check(input: &InputArgs) -> anyhow::Result<()> {
    let result = config::load(&input.overrides);
    if input.json {
        let (file, found) = match &result {
            Ok(loaded) => (loaded.file.clone(), &loaded.warnings),
            Err(errors) => (errors.source_file().map(|source| source.path.clone()), errors),
        };
        let report = json!({ "ok": result.is_ok(), "file": file, "diagnostics": found.to_json() });
        output::print_json(&report)?;
    }
    let loaded = result?;
    if !input.json {
        warn(&loaded);
        summary(&loaded, &mut io::stdout().lock())?;
    }
    Ok(())
}

fn show(input: &InputArgs) -> anyhow::Result<()> {
    let loaded = config::load(&input.overrides)?;
    if input.json {
        output::print_json(&loaded.to_json())?;
    } else {
        warn(&loaded);
        write!(io::stdout().lock(), "{}", loaded.to_toml())?;
    }
    Ok(())
}

/// Warnings go where they cannot end up in a redirected configuration.
fn warn(loaded: &Loaded) {
    if !loaded.warnings.is_empty() {
        let _ = writeln!(io::stderr(), "{}", loaded.warnings);
    }
}

fn summary(loaded: &Loaded, out: &mut impl Write) -> io::Result<()> {
    let config = &loaded.config;
    match &loaded.file {
        Some(file) => writeln!(out, "ok: {}", file.display())?,
        None => writeln!(out, "ok: no file was read")?,
    }
    let address = |port| std::net::SocketAddr::new(config.server.host, port);
    writeln!(out, "all models: http://{}", address(config.server.port))?;
    for model in &config.models {
        write!(out, "{}", model.name)?;
        if let Some(role) = &model.role {
            write!(out, " ({role})")?;
        }
        if let Some(port) = model.port {
            write!(out, ": http://{}", address(port))?;
        }
        writeln!(out)?;
    }
    for preset in &config.presets {
        writeln!(out, "{} (preset of {})", preset.name, preset.model)?;
    }
    Ok(())
}
