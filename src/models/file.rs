//! A model's file, inspected before llama.cpp sees it.

use std::path::PathBuf;

use super::error::ModelError;
use super::info::describe;
use crate::config::{DraftKind, KvMemory, ModelConfig, ModelSource};
use crate::engine::ModelInfo;
use crate::gguf::{Gguf, GgufError};
use crate::plan::{BATCH, Choices, Context, Embeddings, ModelRequest, ModelShape, Stretch};

/// A model of the configuration with what its file says.
#[derive(Debug)]
pub struct Prepared<'c> {
    pub config: &'c ModelConfig,
    pub path: PathBuf,
    pub gguf: Gguf,
    pub info: ModelInfo,
    /// What it asks of a plan.
    pub request: ModelRequest,
    /// The small model that makes drafts.
    pub draft_model: Option<DraftModel>,
}

/// A small model that makes drafts for another.
#[derive(Debug)]
pub struct DraftModel {
    pub path: PathBuf,
    pub shape: ModelShape,
}

/// The file of a model; a built-in one is unpacked first.
fn path(config: &ModelConfig) -> Result<PathBuf, ModelError> {
    path_of(config, &config.source)
}

fn path_of(config: &ModelConfig, source: &ModelSource) -> Result<PathBuf, ModelError> {
    match source {
        ModelSource::File(path) => Ok(path.clone()),
        ModelSource::Demo(demo) => demo.unpack().map_err(|source| ModelError::Unpack {
            model: config.name.clone(),
            source,
        }),
        ModelSource::Upstream => Err(ModelError::Elsewhere(config.name.clone())),
    }
}

/// Opens a model's file.
///
/// # Errors
/// [`ModelError::File`] with what is damaged, [`ModelError::Unpack`] for a built-in model.
pub fn open(config: &ModelConfig) -> Result<Gguf, ModelError> {
    Gguf::open(&path(config)?).map_err(|error| in_file(config, error))
}

/// Inspects a model's file. This is done before llama.cpp sees it, which aborts the process on some damaged ones.
///
/// # Errors
/// As [`open`].
pub fn prepare(config: &ModelConfig) -> Result<Prepared<'_>, ModelError> {
    let path = path(config)?;
    let broken = |error| in_file(config, error);
    let gguf = Gguf::open(&path).map_err(broken)?;
    let info = describe(config, &gguf).map_err(broken)?;
    let draft_model = draft_model(config, &gguf)?;
    let request = ModelRequest {
        name: config.name.clone(),
        shape: ModelShape::read(&gguf).map_err(broken)?,
        context: Context {
            tokens: info.context,
            parallel: info.parallel,
            kv_type: config.kv_type.unwrap_or_default(),
            pool: config.kv == Some(KvMemory::Pool) && info.parallel > 1,
            batch: config.ubatch.unwrap_or(BATCH),
            guesses: match config.draft.kind {
                DraftKind::None => 0,
                _ => config.draft.max,
            },
        },
        embeddings: embeddings(config),
        draft_model: draft_model.as_ref().map(|model| model.shape.clone()),
        stretch: stretch(config, &gguf, &info)?,
        head: has_head(config, &gguf, &info.architecture).map_err(broken)?,
        choices: Choices {
            tokens: config.context.is_none(),
            parallel: config.parallel.is_none(),
            kv_type: config.kv_type.is_none(),
            pool: config.kv.is_none(),
            batch: config.ubatch.is_none(),
        },
        importance: config.importance,
        experts: config.experts,
        gpu_layers: config.gpu_layers,
    };
    Ok(Prepared {
        config,
        path,
        gguf,
        info,
        request,
        draft_model,
    })
}

/// The small model that makes drafts, if one is to.
fn draft_model(config: &ModelConfig, large: &Gguf) -> Result<Option<DraftModel>, ModelError> {
    let wanted = matches!(config.draft.kind, DraftKind::Auto | DraftKind::Model);
    let Some(source) = config.draft.path.as_ref().filter(|_| wanted) else {
        return Ok(None);
    };
    let refused = |reason| {
        Err(ModelError::DraftModel {
            model: config.name.clone(),
            reason,
        })
    };
    if embeddings(config) == Embeddings::Only {
        return refused("a model for embeddings generates nothing");
    }
    let path = path_of(config, source)?;
    let broken = |source| ModelError::File {
        model: format!("{}, the small model of {}", path.display(), config.name),
        source,
    };
    let small = Gguf::open(&path).map_err(broken)?;
    let shape = ModelShape::read(&small).map_err(broken)?;
    if shape.layers.iter().any(|layer| layer.recurrent) {
        return refused("it has recurrent layers, from whose memory wrong guesses cannot be cut");
    }
    for key in ["tokenizer.ggml.model", "tokenizer.ggml.tokens"] {
        if large.get(key) != small.get(key) {
            return refused("its vocabulary is another one");
        }
    }
    Ok(Some(DraftModel { path, shape }))
}

/// Architectures whose head for multi-token prediction hearth drives: a single block, which llama.cpp computes in a context of its
/// own.
const WITH_HEAD: [&str; 3] = ["qwen3next", "qwen35", "qwen35moe"];

/// Whether the model's head makes drafts.
fn has_head(config: &ModelConfig, gguf: &Gguf, architecture: &str) -> Result<bool, GgufError> {
    let wanted = match config.draft.kind {
        DraftKind::Auto => config.draft.path.is_none(),
        kind => kind == DraftKind::Mtp,
    };
    let usable = WITH_HEAD.contains(&architecture) && gguf.geometry()?.mtp_layers == 1;
    Ok(wanted && usable && embeddings(config) != Embeddings::Only)
}

/// How far the configuration stretches the model's positions.
fn stretch(config: &ModelConfig, gguf: &Gguf, info: &ModelInfo) -> Result<Option<Stretch>, ModelError> {
    let Some(factor) = config.rope.yarn else {
        return Ok(None);
    };
    let (architecture, trained) = (&info.architecture, info.context_train);
    let own = gguf.get(&format!("{architecture}.rope.scaling.type"));
    if let Some(own) = own.and_then(|value| value.as_str()).filter(|own| *own != "none") {
        return Err(ModelError::Stretched {
            model: config.name.clone(),
            own: own.to_owned(),
        });
    }
    Ok(Some(Stretch { factor, trained }))
}

/// The role of models that do nothing but make vectors.
const EMBEDDING_ROLE: &str = "embedding";

/// Whether a model makes vectors.
fn embeddings(config: &ModelConfig) -> Embeddings {
    if config.role.as_deref() == Some(EMBEDDING_ROLE) {
        Embeddings::Only
    } else if config.embeddings {
        Embeddings::Beside
    } else {
        Embeddings::None
    }
}

pub(super) fn in_file(config: &ModelConfig, source: GgufError) -> ModelError {
    ModelError::File {
        model: config.name.clone(),
        source,
    }
}
