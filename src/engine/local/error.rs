//! Why a model cannot be loaded or computed.

use std::path::PathBuf;

use crate::experts::PluginError;
use crate::llama::mtp::MtpError;

/// Why there is no engine. The messages say what can be changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    #[error("llama.cpp cannot load {path}: {reason}{}", hint(*on_gpu))]
    Model {
        path: PathBuf,
        /// In llama.cpp's words.
        reason: String,
        on_gpu: bool,
    },
    #[error("the device of the plan cannot be used: {0}")]
    Device(String),
    #[error("the expert cache cannot be used: {0}")]
    Experts(#[from] PluginError),
    #[error("a context of {context} tokens in {parallel} slots is more than llama.cpp can address")]
    TooLarge { context: u32, parallel: u32 },
    #[error(
        "llama.cpp cannot create a context of {parallel} x {context} tokens: {reason}. If there is not enough memory: a shorter \
         `context`, fewer slots (`parallel`), or a smaller `kv_type` take less; `hearth plan` shows how much"
    )]
    Context {
        context: u32,
        parallel: u32,
        /// In llama.cpp's words.
        reason: String,
    },
    #[error("the context for embeddings cannot be created: {0}")]
    Embeddings(String),
    #[error("`embeddings` cannot be used together with the cache of experts; `placement = \"cpu\"` or \"gpu\" can")]
    EmbeddingsBesideCache,
    #[error("the head for multi-token prediction cannot be used; `draft = {{ kind = \"none\" }}` goes without")]
    Head,
    #[error("nothing says where the small model is that makes drafts")]
    NoDraftModel,
    #[error("the first token cannot be computed: {0}")]
    WarmUp(#[from] ComputeError),
    #[error("the engine thread panicked; see the log")]
    Panic,
}

fn hint(on_gpu: bool) -> &'static str {
    // What was free when hearth planned may be taken now.
    if on_gpu {
        "; if the GPU's memory is used by others, `[memory] vram` (or --vram) makes hearth take less"
    } else {
        ""
    }
}

/// Why a batch has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    /// In llama.cpp's words.
    #[error("{0}")]
    Decode(String),
    #[error("the batch holds more tokens than were reserved")]
    Batch,
    #[error(
        "the model computed numbers that are none (NaN): its file is damaged, or a kernel of this machine fails on its data types"
    )]
    NotANumber,
    #[error("{0}")]
    Grammar(#[from] crate::grammar::Exhausted),
    #[error("no token of the vocabulary goes on as the grammar wants it")]
    Stuck,
    #[error("a wrong guess cannot be taken back")]
    TakeBack,
    #[error(transparent)]
    Drafts(#[from] DraftError),
}

/// Why no more guesses are made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    #[error(transparent)]
    Head(#[from] MtpError),
    #[error("the small model cannot compute a pass: {0}")]
    Small(String),
    #[error("the small model's memory cannot be cut")]
    Cut,
    #[error("a text has no tokens, or too many")]
    Nothing,
}
