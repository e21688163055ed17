//! Logs on standard error, including those of llama.cpp. There is one log in a process, and what it shows can be changed while the
//! process runs.

use std::io::IsTerminal;
use std::sync::OnceLock;

use anyhow::Context;
use parking_lot::Mutex;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// Default levels of dependencies. llama.cpp logs much while it loads, and warns of normal conditions (unused MTP tensors, a
/// context for several slots); `--log llama-cpp-2=info` shows all of it.
const EXCEPT: &str = "llama-cpp-2=error,actix_server=warn,rustls_platform_verifier=off";

/// Bytes that a filter may have.
const MAX_FILTER: usize = 1024;

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// What reads the log decides: text for people at a terminal, JSON for whatever collects it.
    #[must_use]
    pub fn for_readers() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Text
        } else {
            Self::Json
        }
    }
}

/// What the log shows: as text, and where it is changed.
struct Filter {
    text: Mutex<String>,
    handle: reload::Handle<EnvFilter, Registry>,
}

static FILTER: OnceLock<Filter> = OnceLock::new();

/// Why a filter was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BadFilter {
    #[error("`{filter}` is not a log filter: {reason}")]
    Directives { filter: String, reason: String },
    #[error("a log filter has at most {MAX_FILTER} bytes")]
    Long,
    /// Logging was never started, or has ended.
    #[error("this process has no log")]
    NoLog,
}

/// Reads a level such as `debug`, or tracing directives such as `info,hearth::api=debug`.
fn parse(filter: &str) -> Result<EnvFilter, BadFilter> {
    let wrong = |reason: String| BadFilter::Directives {
        filter: filter.to_owned(),
        reason,
    };
    if filter.len() > MAX_FILTER {
        return Err(BadFilter::Long);
    }
    let directives: Vec<&str> = filter.split(',').map(str::trim).collect();
    for directive in &directives {
        if directive.is_empty() {
            return Err(wrong("a directive is empty".to_owned()));
        }
        // A level that is misspelt would be read as the name of a module, of which everything is shown.
        if !directive.contains(['=', '[']) && directive.parse::<LevelFilter>().is_err() {
            return Err(wrong(format!(
                "`{directive}` is none of the levels off, error, warn, info, debug, trace; \
                 `{directive}=info` sets that of a module"
            )));
        }
    }
    EnvFilter::try_new(directives.join(",")).map_err(|error| wrong(error.to_string()))
}

/// Starts logging for the whole process, with `filter` if given, else at `level`.
///
/// # Errors
/// When `filter` is not a level or a list of tracing directives.
pub fn init_logs(filter: Option<&str>, level: Level, format: LogFormat) -> anyhow::Result<()> {
    let text = filter.map_or_else(|| format!("{level},{EXCEPT}").to_lowercase(), str::to_owned);
    let (filter, handle) = reload::Layer::new(parse(&text)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .context("the log cannot be started")?;
    let text = Mutex::new(text);
    // The line above succeeds once.
    let _ = FILTER.set(Filter { text, handle });
    Ok(())
}

/// What the log shows; `None` if it was not started.
#[must_use]
pub fn log_filter() -> Option<String> {
    FILTER.get().map(|filter| filter.text.lock().clone())
}

/// Changes what the log shows, from the next line on.
///
/// # Errors
/// [`BadFilter`]; then nothing has changed.
pub fn set_log_filter(filter: &str) -> Result<(), BadFilter> {
    let parsed = parse(filter)?;
    let log = FILTER.get().ok_or(BadFilter::NoLog)?;
    let mut text = log.text.lock();
    log.handle.reload(parsed).map_err(|_| BadFilter::NoLog)?;
    filter.clone_into(&mut text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_and_directives() {
        for good in [
            "info",
            "WARN",
            "off",
            "hearth=debug",
            "info,hearth::api=trace",
            "warn, llama-cpp-2=info",
            "debug,hearth[request]=trace",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "infoo", "hearth=loud", "info,,debug", "hearth", "a=b=c", "[=debug"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(matches!(parse(&"a".repeat(2000)), Err(BadFilter::Long)));
    }
}
