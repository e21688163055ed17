//! From `models.toml`, `HEARTH_*` and flags to a checked [`Config`].

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::SamplingOverrides;

/// The whole configuration, checked: every number in range, every name unique, every file present.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub server: ServerConfig,
    pub memory: MemoryConfig,
    /// At least one.
    pub models: Vec<ModelConfig>,
}

/// How the HTTP server listens and what it accepts.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    pub host: IpAddr,
    /// The port that serves all models; 0 lets the system choose.
    pub port: u16,
    /// Async worker threads of the HTTP server.
    pub http_threads: usize,
    /// Largest request body, in bytes.
    pub body_limit: usize,
    /// How long running answers may go on after a stop signal.
    pub shutdown_grace: Duration,
}

/// What the models together may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryConfig {
    pub vram: MemoryLimit,
    pub ram: MemoryLimit,
    /// Left free on each tier.
    pub headroom: MemoryLimit,
}

/// `"auto"` or an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryLimit {
    #[default]
    Auto,
    Bytes(u64),
}

/// One model to be served.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub name: String,
    pub role: Option<String>,
    pub aliases: Vec<String>,
    pub source: ModelSource,
    /// A second listener that serves only this model.
    pub port: Option<u16>,
    /// Tokens per slot; `None` takes what the model was trained for, up to a bound that the engine documents.
    pub context: Option<u32>,
    /// Slots: sequences that are computed at once.
    pub parallel: u32,
    /// Threads of the compute loop; `None`: one per physical core.
    pub threads: Option<u32>,
    /// Requests that may wait for a slot.
    pub queue: usize,
    pub sampling: SamplingOverrides,
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A GGUF file; of a split model, its first part.
    File(PathBuf),
    /// One of the built-in models.
    Demo(crate::demo::DemoModel),
}

/// All mistakes of a configuration.
#[derive(Debug, thiserror::Error)]
#[error("TODO")]
pub struct ConfigErrors;
