//! The checked configuration: plain data, every number in range.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::demo::DemoModel;
use crate::experts::policy::PolicyKind;
use crate::memory::KvType;
use crate::sampling::SamplingOverrides;

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
    /// Longest pause that the prefill of other requests may cause in a running stream.
    pub max_pause: Duration,
    /// Names, in lower case and without a port, by which clients may address a server that is bound to loopback, beside
    /// `localhost` and loopback addresses.
    pub allowed_hosts: Vec<String>,
    /// Origins such as `https://chat.example.org`, in lower case, whose web pages may send requests; `*` is any.
    pub allowed_origins: Vec<String>,
    /// With a single model too, a request for a name that is not its own is refused.
    pub strict_models: bool,
}

/// What the models together may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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
    /// Threads of the compute loop; `None`: one per physical core, fewer for small models.
    pub threads: Option<u32>,
    /// Requests that may wait for a slot.
    pub queue: usize,
    /// Data type of keys and values in the context's memory.
    pub kv_type: KvType,
    /// Layers on the GPU, as llama.cpp counts them: the output is the first, then the last layers. `None`: the plan decides.
    pub gpu_layers: Option<u32>,
    pub experts: ExpertsConfig,
    pub sampling: SamplingOverrides,
}

/// Where the routed experts of a model are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertsConfig {
    pub placement: ExpertPlacement,
    /// Memory on the cache device.
    pub cache: CacheSize,
    pub device: CacheDevice,
    /// Which experts have a copy.
    /// `None`: what is best for the model.
    pub policy: Option<PolicyKind>,
}

/// What becomes of the routed experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertPlacement {
    /// As the plan finds best.
    Auto,
    /// All on the GPU.
    Gpu,
    /// All in main memory, without copies.
    Cpu,
    /// In main memory; the hot ones have a copy on the cache device.
    Cache,
}

/// What holds the copies of hot experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheDevice {
    /// The first GPU.
    Auto,
    /// Main memory: no faster than no cache, but every step is taken.
    Cpu,
}

/// How much of the experts has a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSize {
    /// What the plan has left on the GPU; a quarter in main memory.
    Auto,
    Bytes(u64),
    Percent(u8),
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A GGUF file; of a split model, its first part.
    File(PathBuf),
    /// One of the built-in models.
    Demo(DemoModel),
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8080,
            http_threads: 2,
            body_limit: 8 * 1024 * 1024,
            shutdown_grace: Duration::from_secs(30),
            max_pause: Duration::from_millis(500),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            strict_models: false,
        }
    }
}

impl ModelConfig {
    /// Slots of a model that says nothing else.
    pub const PARALLEL: u32 = 4;
    /// Length of its queue.
    pub const QUEUE: usize = 64;

    /// A model with the defaults of everything but its name and source.
    #[must_use]
    pub fn new(name: impl Into<String>, source: ModelSource) -> Self {
        Self {
            name: name.into(),
            role: None,
            aliases: Vec::new(),
            source,
            port: None,
            context: None,
            parallel: Self::PARALLEL,
            threads: None,
            queue: Self::QUEUE,
            kv_type: KvType::default(),
            gpu_layers: None,
            experts: ExpertsConfig::default(),
            sampling: SamplingOverrides::default(),
        }
    }
}

impl Default for ExpertsConfig {
    fn default() -> Self {
        Self {
            placement: ExpertPlacement::Auto,
            cache: CacheSize::Auto,
            device: CacheDevice::Auto,
            policy: None,
        }
    }
}
