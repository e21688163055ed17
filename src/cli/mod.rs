//! The command line, one file per subcommand.

mod advise;
mod benchmark;
mod completions;
mod config;
mod described;
mod doctor;
mod engines;
mod generate;
mod inspect;
mod machine;
mod man;
mod models;
mod output;
mod plan;
mod profile;
mod ps;
mod pull;
mod quantize;
mod remote;
mod serve;
mod stop;
mod synthetic_gguf;
mod systemd;
mod try_model;

use std::process::{ExitCode, Termination};

use clap::{Parser, Subcommand, ValueEnum};

use crate::telemetry::{LogFormat, init_logs};

/// Declares the subcommands: one line each. A subcommand is a module with `Args` (what clap parses) and
/// `run(Args) -> anyhow::Result<()>`, or `anyhow::Result<ExitCode>` where success has more than one code.
macro_rules! subcommands {
    ($($(#[$about:meta])* $variant:ident($module:ident),)*) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($(#[$about])* $variant($module::Args),)*
        }

        impl Command {
            fn run(self) -> anyhow::Result<ExitCode> {
                match self {
                    $(Self::$variant(args) => $module::run(args).map(Termination::report),)*
                }
            }
        }
    };
}

subcommands! {
    /// Serve the models over HTTP.
    Serve(serve),
    /// Answer a prompt, or a file of prompts, without a server.
    Generate(generate),
    /// List the models that would be served.
    Models(models),
    /// Show what a running server does: models, slots, memory, speed.
    Ps(ps),
    /// Fetch a model from the Hugging Face Hub or another server.
    Pull(pull),
    /// Show what is in a GGUF file.
    Inspect(inspect),
    /// Show where everything would go, on this machine or another, and why.
    Plan(plan),
    /// Show which quantization of a model fits a machine, and how fast it would be.
    Advise(advise),
    /// Check, show or describe the configuration.
    Config(config),
    /// Look at this machine and say what makes models slow on it.
    Doctor(doctor),
    /// Measure how fast a model answers on this machine, or what the engine and HTTP cost.
    Benchmark(benchmark),
    /// Show how a model uses its experts, and what each policy of the cache would make of it.
    Profile(profile),
    /// Make a smaller file of a GGUF file.
    Quantize(quantize),
    /// Write a GGUF file of a real model's shape with random weights, for planning and measuring.
    SyntheticGguf(synthetic_gguf),
    /// Print a script with which a shell completes hearth's commands.
    Completions(completions),
    /// Print the manual page, or write those of all commands.
    Man(man),
    /// Load a model file and compute a token: how the server tries what it has not seen before.
    #[command(hide = true)]
    TryModel(try_model),
}

impl Command {
    /// Whether models are computed.
    fn computes(&self) -> bool {
        matches!(
            self,
            Self::Serve(_) | Self::Generate(_) | Self::Benchmark(_) | Self::Profile(_) | Self::TryModel(_)
        )
    }
}

/// Serves large mixture-of-experts language models from one ordinary machine.
#[derive(Debug, Parser)]
#[command(name = "hearth", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What to log to standard error: a level, or tracing directives such as `hearth=debug,llama-cpp-2=info` [env:
    /// HEARTH_LOG].
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,

    /// How log lines are written. A server that does not log to a terminal writes json, anything else text [env:
    /// HEARTH_LOG_FORMAT].
    #[arg(long, global = true, value_enum)]
    log_format: Option<LogFormat>,
}

impl Cli {
    /// What the flags and the environment say about logs. Empty variables count as unset, which clap's own reading of them
    /// does not do.
    fn logs(&self) -> Result<(Option<String>, LogFormat), clap::Error> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let format = match (self.log_format, variable("HEARTH_LOG_FORMAT")) {
            (Some(format), _) => format,
            (None, None) => match self.command {
                Command::Serve(_) => LogFormat::for_readers(),
                _ => LogFormat::Text,
            },
            (None, Some(text)) => LogFormat::from_str(&text, true).map_err(|_| {
                let message = format!("`HEARTH_LOG_FORMAT` must be text or json, but is {text:?}\n");
                clap::Error::raw(clap::error::ErrorKind::InvalidValue, message)
            })?,
        };
        Ok((self.log.clone().or_else(|| variable("HEARTH_LOG")), format))
    }
}

/// Runs the command line: exit code 0 for success, 1 for failure, 2 for mistakes in the arguments or configuration.
#[must_use]
pub fn main() -> ExitCode {
    // clap prints its own errors and exits with 2.
    let cli = Cli::parse();
    if cli.command.computes() {
        crate::llama::openmp::limit_spinning();
    }
    // A server tells what it does; of a command one wants the result.
    let level = match cli.command {
        Command::Serve(_) => tracing::Level::INFO,
        _ => tracing::Level::WARN,
    };
    let (filter, format) = cli.logs().unwrap_or_else(|error| error.exit());
    if let Err(error) = init_logs(filter.as_deref(), level, format) {
        return output::fail(&error);
    }
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => output::fail(&error),
    }
}
