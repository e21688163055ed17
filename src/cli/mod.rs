//! The command line, one file per subcommand.

mod benchmark;
mod config;
mod engines;
mod generate;
mod inspect;
mod machine;
mod models;
mod output;
mod plan;
mod profile;
mod serve;
mod synthetic_gguf;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Declares the subcommands: one line each. A subcommand is a module with `Args` (what clap parses) and
/// `run(Args) -> anyhow::Result<()>`.
macro_rules! subcommands {
    ($($(#[$about:meta])* $variant:ident($module:ident),)*) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($(#[$about])* $variant($module::Args),)*
        }

        impl Command {
            fn run(self) -> anyhow::Result<()> {
                match self {
                    $(Self::$variant(args) => $module::run(args),)*
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
    /// Show what is in a GGUF file.
    Inspect(inspect),
    /// Show where everything would go, on this machine or another, and why.
    Plan(plan),
    /// Check, show or describe the configuration.
    Config(config),
    /// Measure how fast a model answers on this machine, or what the engine and HTTP cost.
    Benchmark(benchmark),
    /// Show how a model uses its experts, and what each policy of the cache would make of it.
    Profile(profile),
    /// Write a GGUF file of a real model's shape with random weights, for planning and measuring.
    SyntheticGguf(synthetic_gguf),
}

impl Command {
    /// Whether models are computed.
    fn computes(&self) -> bool {
        matches!(
            self,
            Self::Serve(_) | Self::Generate(_) | Self::Benchmark(_) | Self::Profile(_)
        )
    }
}

/// Serves large mixture-of-experts language models from one ordinary machine.
#[derive(Debug, Parser)]
#[command(name = "hearth", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What to log to standard error: a level, or tracing directives such as `hearth=debug,llama-cpp-2=info`.
    #[arg(long, global = true, env = "HEARTH_LOG", value_name = "FILTER")]
    log: Option<String>,

    /// How log lines are written.
    #[arg(long, global = true, env = "HEARTH_LOG_FORMAT", value_enum, default_value_t = crate::telemetry::LogFormat::Text)]
    log_format: crate::telemetry::LogFormat,
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
    if let Err(error) = crate::telemetry::init_logs(cli.log.as_deref(), level, cli.log_format) {
        return output::fail(&error);
    }
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::fail(&error),
    }
}
