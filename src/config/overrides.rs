//! Flags and environment variables that stand above the file.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::CommandFactory;

use super::file::{MAX_CONTEXT, MAX_PARALLEL};
use super::section::similar;
use super::{Config, ConfigErrors, MemoryLimit, ModelConfig, ModelSource, units};

/// Settings of the command line; each has its environment variable.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
pub struct Overrides {
    /// The configuration file.
    #[arg(long, env = "HEARTH_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Serve this GGUF file (can be repeated), without a configuration file.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub model_path: Vec<PathBuf>,

    /// Address to listen on.
    #[arg(long, env = "HEARTH_HOST", value_name = "IP")]
    pub host: Option<IpAddr>,

    /// Port that serves all models; 0 lets the system choose.
    #[arg(long, env = "HEARTH_PORT")]
    pub port: Option<u16>,

    /// Tokens per slot, for all models.
    #[arg(long, env = "HEARTH_CONTEXT", value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(32..=i64::from(MAX_CONTEXT)))]
    pub context: Option<u32>,

    /// Slots per model: sequences that are computed at once.
    #[arg(long, env = "HEARTH_PARALLEL", value_name = "SLOTS", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PARALLEL)))]
    pub parallel: Option<u32>,

    /// Threads that compute, per model; one per physical core if not given.
    #[arg(long, env = "HEARTH_THREADS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,

    /// Largest request body, such as 8MiB.
    #[arg(long, env = "HEARTH_BODY_LIMIT", value_name = "BYTES", value_parser = units::bytes)]
    pub body_limit: Option<u64>,

    /// GPU memory that the models may take together, such as 16GiB.
    #[arg(long, env = "HEARTH_VRAM", value_name = "BYTES")]
    pub vram: Option<MemoryLimit>,

    /// Main memory that the models may take together.
    #[arg(long, env = "HEARTH_RAM", value_name = "BYTES")]
    pub ram: Option<MemoryLimit>,

    /// Memory that stays free.
    #[arg(long, env = "HEARTH_HEADROOM", value_name = "BYTES")]
    pub headroom: Option<MemoryLimit>,
}

impl Overrides {
    /// Sets what was given, and adds the models of `--model-path`.
    pub(super) fn apply(&self, config: &mut Config) -> Result<(), ConfigErrors> {
        let server = &mut config.server;
        server.host = self.host.unwrap_or(server.host);
        server.port = self.port.unwrap_or(server.port);
        if let Some(limit) = self.body_limit {
            server.body_limit = usize::try_from(limit).unwrap_or(usize::MAX);
        }
        let memory = &mut config.memory;
        memory.vram = self.vram.unwrap_or(memory.vram);
        memory.ram = self.ram.unwrap_or(memory.ram);
        memory.headroom = self.headroom.unwrap_or(memory.headroom);
        for path in &self.model_path {
            if !path.is_file() {
                return Err(ConfigErrors::general(
                    format!("--model-path: {} is not a file", path.display()),
                    "give the path of a GGUF file",
                ));
            }
            let stem = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().replace(char::is_whitespace, "-"));
            let name = stem.unwrap_or_else(|| "model".into());
            if config.models.iter().any(|model| model.name == name) {
                return Err(ConfigErrors::general(
                    format!("--model-path: two files are named `{name}`"),
                    "a configuration file can give them names of their own",
                ));
            }
            config
                .models
                .push(ModelConfig::new(name, ModelSource::File(path.clone())));
        }
        self.apply_to_models(&mut config.models);
        if let Some(port) = self.port.filter(|port| *port != 0)
            && let Some(model) = config.models.iter().find(|model| model.port == Some(port))
        {
            return Err(ConfigErrors::general(
                format!("--port {port} is already the port of model `{}`", model.name),
                "each listener needs a port of its own",
            ));
        }
        Ok(())
    }

    pub(super) fn apply_to_models(&self, models: &mut [ModelConfig]) {
        for model in models {
            model.context = self.context.or(model.context);
            model.parallel = self.parallel.unwrap_or(model.parallel);
            model.threads = self.threads.or(model.threads);
        }
    }
}

/// A warning for each `HEARTH_*` variable that nothing reads.
pub(super) fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    #[derive(clap::Parser)]
    struct All {
        #[command(flatten)]
        _overrides: Overrides,
    }
    let mut known: BTreeSet<String> = All::command()
        .get_arguments()
        .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()))
        .collect();
    // Read elsewhere: by the command line itself, the demo models, the scripts, and the tests.
    known.extend(
        [
            "HEARTH_LOG",
            "HEARTH_LOG_FORMAT",
            "HEARTH_CACHE",
            "HEARTH_FEATURES",
            "HEARTH_BIN",
            "HEARTH_URL",
        ]
        .map(String::from),
    );
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    names
        .filter(|name| name.starts_with("HEARTH_") && !known.contains(&name.as_str()))
        .map(|name| match similar(&name, &known) {
            Some(similar) => format!("the environment variable {name} is not known; did you mean {similar}?"),
            None => format!("the environment variable {name} is not known"),
        })
        .collect()
}
