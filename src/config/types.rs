//! The checked configuration: plain data, every number in range.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::demo::DemoModel;
use crate::engine::SamplingOverrides;
use crate::experts::policy::PolicyKind;

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
    /// Names by which this server is asked, besides this machine's own; with or without a port, `*` for any.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may use this server, besides its own; `*` for any.
    pub allowed_origins: Vec<String>,
    /// Refuse names that no model has even where only one model is served.
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

/// Data type of keys and values: those of which llama.cpp can make both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    F32,
    #[default]
    F16,
    Bf16,
    #[serde(rename = "q8_0")]
    Q8_0,
    #[serde(rename = "q5_1")]
    Q5_1,
    #[serde(rename = "q5_0")]
    Q5_0,
    #[serde(rename = "q4_1")]
    Q4_1,
    #[serde(rename = "q4_0")]
    Q4_0,
    Iq4Nl,
}

impl std::str::FromStr for CacheSize {
    type Err = String;

    /// As in the configuration; the error says what it must be.
    fn from_str(text: &str) -> Result<Self, String> {
        super::value::cache_size(text).map_err(|fault| match fault.hint {
            Some(hint) => format!("{} ({hint})", fault.message),
            None => fault.message,
        })
    }
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

impl KvType {
    /// All of them, the most precise first.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q5_1,
        Self::Q5_0,
        Self::Q4_1,
        Self::Q4_0,
        Self::Iq4Nl,
    ];

    /// llama.cpp's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q5_1 => "q5_1",
            Self::Q5_0 => "q5_0",
            Self::Q4_1 => "q4_1",
            Self::Q4_0 => "q4_0",
            Self::Iq4Nl => "iq4_nl",
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

/// What hearth serves when nothing is configured.
pub(super) fn built_in_pair() -> Vec<ModelConfig> {
    let model = |demo: DemoModel, role: &str, sampling| ModelConfig {
        role: Some(role.to_owned()),
        sampling,
        ..ModelConfig::new(format!("demo-{}", demo.name()), ModelSource::Demo(demo))
    };
    vec![
        model(
            DemoModel::Reasoner,
            "reasoning",
            SamplingOverrides {
                temperature: Some(0.7),
                top_p: Some(0.8),
                top_k: Some(20),
                min_p: Some(0.0),
                max_tokens: Some(1024),
                ..SamplingOverrides::default()
            },
        ),
        model(
            DemoModel::Narrator,
            "narrator",
            SamplingOverrides {
                temperature: Some(1.25),
                min_p: Some(0.2),
                max_tokens: Some(1024),
                ..SamplingOverrides::default()
            },
        ),
    ]
}
