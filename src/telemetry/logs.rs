//! Logs to standard error; llama.cpp's own lines among them.

use std::io::IsTerminal;

use anyhow::Context;
use tracing::Level;
use tracing_subscriber::EnvFilter;

/// llama.cpp prints pages while it loads, and warns of what is as it should be (unused MTP tensors, a context for several
/// slots): `--log llama-cpp-2=info` shows it.
const EXCEPT: &str = "llama-cpp-2=error,actix_server=warn";

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging for the whole process: as `filter` says, else at `level`.
///
/// # Errors
/// When `filter` is not a level or a list of tracing directives.
pub fn init_logs(filter: Option<&str>, level: Level, format: LogFormat) -> anyhow::Result<()> {
    let filter = filter.map_or_else(|| format!("{level},{EXCEPT}"), str::to_owned);
    let filter = EnvFilter::try_new(&filter).with_context(|| format!("`{filter}` is not a log filter"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
