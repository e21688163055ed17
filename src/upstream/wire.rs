//! What servers that speak OpenAI's language send. Fields that are missing or null are nothing; unknown ones are ignored.

use serde::Deserialize;
use serde_json::Value;

/// One event of a streamed answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Chunk {
    pub(super) choices: Option<Vec<Choice>>,
    pub(super) usage: Option<Usage>,
    /// From hearth and llama-server.
    pub(super) prompt_progress: Option<Progress>,
    pub(super) error: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    pub(super) index: usize,
    /// Of conversations.
    pub(super) delta: Option<Delta>,
    /// Of texts.
    pub(super) text: Option<String>,
    pub(super) finish_reason: Option<String>,
    /// vLLM's stop string; a token id where a token ended the answer.
    pub(super) stop_reason: Value,
    pub(super) logprobs: Option<Logprobs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delta {
    pub(super) content: Option<String>,
    pub(super) reasoning_content: Option<String>,
    pub(super) reasoning: Option<String>,
    pub(super) refusal: Option<String>,
    pub(super) tool_calls: Option<Vec<Call>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Call {
    pub(super) index: Option<u64>,
    pub(super) id: Option<String>,
    pub(super) function: Option<Function>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Function {
    pub(super) name: Option<String>,
    /// Text, or from some servers an object.
    pub(super) arguments: Value,
}

/// Those of conversations have `content`, those of texts the lists.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Logprobs {
    pub(super) content: Option<Vec<Token>>,
    pub(super) tokens: Option<Vec<String>>,
    pub(super) token_logprobs: Option<Vec<Option<f32>>>,
    pub(super) top_logprobs: Option<Vec<Option<serde_json::Map<String, Value>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Token {
    pub(super) token: String,
    pub(super) logprob: f32,
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) top_logprobs: Option<Vec<Self>>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Usage {
    pub(super) prompt_tokens: Option<u32>,
    pub(super) completion_tokens: Option<u32>,
    pub(super) prompt_tokens_details: Option<PromptDetails>,
    pub(super) completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct PromptDetails {
    pub(super) cached_tokens: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct CompletionDetails {
    pub(super) reasoning_tokens: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    pub(super) total: u32,
    pub(super) cache: u32,
    pub(super) processed: u32,
    pub(super) time_ms: f64,
}

/// The answer to `POST /embeddings`.
#[derive(Debug, Deserialize)]
pub(super) struct Embeddings {
    pub(super) data: Vec<Embedding>,
    pub(super) usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Embedding {
    pub(super) index: Option<usize>,
    pub(super) embedding: Vec<f32>,
}

/// `GET /models`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Models {
    pub(super) data: Vec<ListedModel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListedModel {
    pub(super) id: String,
    /// vLLM, SGLang and hearth tell it.
    pub(super) max_model_len: Option<u32>,
    /// Other servers call it so.
    pub(super) context_length: Option<u32>,
}
