//! Types of single values.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::demo::DemoModel;

/// The environment as a plain map, so that tests can bring their own.
pub type Environment = BTreeMap<String, String>;

/// Stop strings of a request or a preset, and bytes of each.
pub const STOPS: usize = 16;
pub const STOP_BYTES: usize = 256;

/// `"auto"` or an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryLimit {
    #[default]
    Auto,
    Bytes(u64),
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

/// When a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadAt {
    /// When the server starts.
    Startup,
    /// When it is first asked for.
    Demand,
}

/// How slots have their keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvMemory {
    /// Each in a memory of its own.
    Slots,
    /// All in one.
    Pool,
}

/// What guesses the tokens that come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DraftKind {
    /// The model's head for multi-token prediction, else look-up, as far as it pays.
    Auto,
    /// The model's head for multi-token prediction.
    Mtp,
    /// A small model.
    Model,
    /// Look-up in the text.
    Ngram,
    None,
}

/// How much of the experts has a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSize {
    /// What the plan has left on the GPU; a quarter in main memory.
    Auto,
    Bytes(u64),
    Percent(u8),
}

/// A chat template that takes the place of the model's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    /// As the configuration says it: a file, or the text itself.
    pub given: String,
    /// Jinja source; of a file, what it holds.
    pub text: String,
}

/// Where the weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A GGUF file; of a split model, its first part.
    File(PathBuf),
    /// One of the built-in models.
    Demo(DemoModel),
    /// Nowhere here: other servers answer, see `ModelConfig::upstream`.
    Upstream,
}

/// What an upstream server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamKind {
    /// OpenAI's chat completions.
    OpenAi,
}

/// Where an upstream server tells a model's thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamReasoning {
    /// In fields of their own, else between `<think>` tags at the beginning of the content.
    Auto,
    /// As `Auto`; content begins inside a thought, whose opening tag was part of the prompt.
    Open,
    /// Only in fields of their own; content is content.
    Fields,
}

/// When another model answers in the place of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackOn {
    /// The queue is full, or the server says 429.
    Overloaded,
    /// The model could not be loaded.
    LoadFailed,
    /// It failed while it computed, or its server did.
    EngineError,
    /// Its server took too long.
    Timeout,
    /// It is being loaded or taken out of service.
    Maintenance,
}

impl FallbackOn {
    pub const ALL: [Self; 5] = [
        Self::Overloaded,
        Self::LoadFailed,
        Self::EngineError,
        Self::Timeout,
        Self::Maintenance,
    ];

    /// As configurations and metrics write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::LoadFailed => "load_failed",
            Self::EngineError => "engine_error",
            Self::Timeout => "timeout",
            Self::Maintenance => "maintenance",
        }
    }
}
