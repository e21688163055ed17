//! Logs on standard error, including those of llama.cpp.

use std::io::IsTerminal;

use anyhow::Context;
use tracing::Level;
use tracing_subscriber::EnvFilter;

/// Default levels of dependencies. llama.cpp logs much while it loads, and warns of normal conditions (unused MTP tensors, a
/// context for several slots); `--log llama-cpp-2=info` shows all of it.
const EXCEPT: &str = "llama-cpp-2=error,actix_server=warn";

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging for the whole process, with `filter` if given, else at `level`.
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
