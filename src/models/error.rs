//! Why a model cannot be used.

use std::error::Error;
use std::io;

use crate::demo::UnpackError;
use crate::gguf::GgufError;
use crate::memory::KvTypes;
use crate::plan::PlanError;
use crate::upstream::StartError;

/// Why a model of the configuration does not start.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Its file is damaged, is none, or does not hold a model that can be served.
    #[error("model `{model}` cannot be used")]
    File { model: String, source: GgufError },
    /// A built-in model that cannot be made a file.
    #[error("model `{model}` cannot be used")]
    Unpack { model: String, source: UnpackError },
    #[error(
        "model `{0}` has no head for multi-token prediction that hearth can use; `draft = {{ kind = \"auto\" }}` does without"
    )]
    NoHead(String),
    #[error(
        "the drafts of model `{0}` come from a small model, but `path` does not say which\n  hint: \
         `draft = {{ kind = \"model\", path = \"small.gguf\" }}`"
    )]
    NoDraftModel(String),
    #[error("the small model that makes drafts for `{model}` cannot: {reason}")]
    DraftModel { model: String, reason: &'static str },
    #[error(
        "`kv_type` of model `{model}` is \"{kv_type}\", for which {gpu} has no flash attention with heads of {length} \
         elements\n  hint: \"auto\" chooses what it has; \"f16\" always works"
    )]
    Attention {
        model: String,
        kv_type: KvTypes,
        gpu: String,
        length: u64,
    },
    #[error(
        "`rope.yarn` cannot stretch the positions of model `{model}`: by its file they are so already (\"{own}\"), as it was \
         trained\n  hint: leave `rope` out"
    )]
    Stretched { model: String, own: String },
    /// It was tried in a process of its own.
    #[error("model `{model}` cannot be used: {reason}")]
    Trial { model: String, reason: String },
    #[error("the model does not fit this machine")]
    DoesNotFit(#[source] PlanError),
    #[error("the models do not fit this machine")]
    DoNotFit(#[source] PlanError),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A command that computes needs a file.
    #[error(
        "model `{0}` has no file: other servers compute it (`upstream`)\n  hint: `hearth serve` answers for it; this command needs a \
         model with `path`"
    )]
    Elsewhere(String),
    #[error("model `{model}` of other servers cannot be used")]
    Upstream { model: String, source: StartError },
}

impl ModelError {
    /// What is wrong, with its causes, for who has said which model it is.
    #[must_use]
    pub fn reason(&self) -> String {
        let first: &dyn Error = match self {
            Self::File { source, .. } => source,
            Self::Unpack { source, .. } => source,
            Self::Upstream { source, .. } => source,
            Self::Trial { reason, .. } => return reason.clone(),
            other => other,
        };
        let mut text = first.to_string();
        let mut cause = first.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
