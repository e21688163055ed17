//! What a model says about itself.

use serde_json::{Map, Value};

use super::{SamplingOverrides, Token};
use crate::config::ModelConfig;

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
    /// What the file is.
    pub file: ModelFile,
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

impl ModelInfo {
    /// A model of which only the configuration is known: 0 and empty is not known.
    #[must_use]
    pub fn of_config(config: &ModelConfig) -> Self {
        Self {
            name: config.name.clone(),
            role: config.role.clone(),
            aliases: config.aliases.clone(),
            architecture: String::new(),
            context: config.context.unwrap_or(0),
            context_train: 0,
            parallel: config.parallel.unwrap_or(0),
            vocabulary: 0,
            parameters: 0,
            size_bytes: 0,
            file: ModelFile::default(),
            chat_template: None,
            tool_template: None,
            template_variables: config.chat_template_kwargs.clone().unwrap_or_default(),
            bos_token: String::new(),
            eos_token: String::new(),
            control_tokens: Vec::new(),
            sampling: config.sampling.clone(),
            created: 0,
        }
    }
}

/// Whether an engine can answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Health {
    /// Loading, with llama.cpp's own progress from 0 to 1.
    Loading {
        progress: f32,
    },
    Ready,
    /// Not in memory; it can be loaded.
    Unloaded,
    /// Takes no requests because somebody works on it.
    Maintenance,
    /// The load failed or the engine died; the reason is for people.
    Failed {
        reason: String,
    },
    /// The server that computes the model does not answer, which may pass; the reason is for people.
    Unreachable {
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
    /// Requests that may wait; 0 where nobody knows.
    pub queue: u32,
    /// Tokens that the slots may hold together; 0 where nobody knows.
    pub tokens: u64,
}

/// What a slot does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotState {
    pub busy: bool,
    /// Tokens whose keys and values, or recurrent state, it holds. A slot keeps them after a request, for prompts that extend them.
    pub tokens: u32,
    /// The request that it computes, or computed last.
    pub last: Option<SlotRequest>,
}

/// A request in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRequest {
    /// Its place in the order in which slots were given.
    pub number: u32,
    pub prompt_tokens: u32,
    /// Prompt tokens that the slot held before.
    pub cached_tokens: u32,
    /// Prompt tokens that it holds by now, cached ones included.
    pub processed_tokens: u32,
    pub generated_tokens: u32,
    /// Bound of `generated_tokens`.
    pub max_tokens: u32,
}

/// Facts about a model's file that nothing depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelFile {
    pub path: String,
    /// The mix of data types, such as `Q4_K_M`; empty if the file does not say.
    pub kind: String,
    /// llama.cpp's kind of vocabulary, such as `gpt2` for BPE.
    pub tokenizer: String,
    /// Numbers in the vector of a token.
    pub embedding: u32,
}

/// Tokens that mark the gap in a text that is to be filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InfillTokens {
    /// Before what precedes the gap.
    pub prefix: Token,
    /// Before what follows it.
    pub suffix: Token,
    /// Before what fills it.
    pub middle: Token,
    /// Before the name of a repository.
    pub repository: Option<Token>,
    /// Before the name of a file.
    pub separator: Option<Token>,
    /// What every text begins with, if the model wants it.
    pub bos: Option<Token>,
}
