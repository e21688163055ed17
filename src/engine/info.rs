//! What a model says about itself.

use serde_json::{Map, Value};

use super::SamplingOverrides;

/// Facts about a model, known from its configuration and its GGUF header before any weight is loaded.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// Name under which clients ask for the model.
    pub name: String,
    /// Free-form role such as `reasoning` or `narrator`; requests may name it instead of the model.
    pub role: Option<String>,
    /// Further names.
    pub aliases: Vec<String>,
    /// llama.cpp's architecture, such as `qwen3next`.
    pub architecture: String,
    /// Tokens that one sequence (prompt and answer together) may hold in this running engine.
    pub context: u32,
    /// Tokens of context that the model was trained for.
    pub context_train: u32,
    /// Sequences that are computed at once.
    pub parallel: u32,
    /// Number of tokens in the vocabulary.
    pub vocabulary: u32,
    /// Number of parameters (weights), MTP included.
    pub parameters: u64,
    /// Bytes of all tensors in the file.
    pub size_bytes: u64,
    /// The Jinja chat template, of the configuration or the model's own, if there is one.
    pub chat_template: Option<String>,
    /// The model's own template for conversations with tools, where it is another one.
    pub tool_template: Option<String>,
    /// Variables of the template where a request says nothing, from the configuration.
    pub template_variables: Map<String, Value>,
    /// Text of the beginning-of-sequence token, for the template; empty if there is none.
    pub bos_token: String,
    /// Text of the end-of-sequence token, for the template; empty if there is none.
    pub eos_token: String,
    /// Texts of the vocabulary's control tokens.
    pub control_tokens: Vec<String>,
    /// Sampling defaults of this model, from its configuration.
    pub sampling: SamplingOverrides,
    /// When the engine was started, in seconds since the Unix epoch.
    pub created: u64,
}

/// Whether an engine can answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Health {
    /// Loading, with llama.cpp's own progress from 0 to 1.
    Loading {
        progress: f32,
    },
    Ready,
    /// The load failed or the engine died; the reason is for people.
    Failed {
        reason: String,
    },
    ShuttingDown,
}

/// Occupation of an engine at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotCounts {
    pub total: u32,
    pub busy: u32,
    /// Requests that are queued and have no slot yet.
    pub waiting: u32,
}
