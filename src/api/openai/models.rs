//! `GET /v1/models` and `GET /v1/models/{model}`.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{Data, Path, ServiceConfig};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::admin::ModelStatus;
use crate::api::error::ApiError;
use crate::api::keys::Caller;
use crate::api::routing::get;
use crate::api::state::State;
use crate::engine::ModelInfo;
use crate::models::Target;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/v1/models", get().to(list))
        .route("/v1/models/{model:.+}", get().to(one));
}

#[derive(Debug, Serialize, ToSchema)]
struct ModelList {
    object: &'static str,
    data: Vec<Model>,
    /// The same models in Ollama's form, as llama-server tells them.
    models: Vec<ListedModel>,
}

/// A model in Ollama's form; what hearth does not know is empty.
#[derive(Debug, Serialize, ToSchema)]
struct ListedModel {
    name: String,
    model: String,
    modified_at: &'static str,
    size: &'static str,
    digest: &'static str,
    r#type: &'static str,
    description: &'static str,
    tags: [&'static str; 1],
    capabilities: [&'static str; 1],
    parameters: &'static str,
    details: ListedDetails,
}

#[derive(Debug, Serialize, ToSchema)]
struct ListedDetails {
    parent_model: &'static str,
    format: &'static str,
    family: String,
    families: [String; 1],
    parameter_size: &'static str,
    quantization_level: String,
}

/// A model, or a preset of one, with the context it is running with.
#[derive(Debug, Serialize, ToSchema)]
struct Model {
    id: String,
    object: &'static str,
    /// When the engine was started, in seconds since the epoch.
    created: u64,
    owned_by: &'static str,
    /// The model that answers, where this is a preset; null where this is a model.
    parent: Option<String>,
    role: Option<String>,
    aliases: Vec<String>,
    /// None are known.
    tags: Vec<String>,
    /// Tokens that one sequence, prompt and answer together, may have.
    context_length: u32,
    /// The same, by vLLM's name.
    max_model_len: u32,
    status: ModelStatus,
    meta: Meta,
}

/// Further facts, by llama-server's names where it has one.
#[derive(Debug, Serialize, ToSchema)]
struct Meta {
    architecture: String,
    n_ctx: u32,
    n_ctx_train: u32,
    n_vocab: u32,
    /// llama.cpp's number for the kind of vocabulary.
    vocab_type: u32,
    /// Numbers in the vector of a token.
    n_embd: u32,
    /// The mix of data types; empty if the file does not say.
    ftype: String,
    n_params: u64,
    /// Bytes of all tensors.
    size: u64,
    slots: u32,
    slots_busy: u32,
    requests_waiting: u32,
}

/// Lists models and presets.
#[utoipa::path(
    get,
    path = "/v1/models",
    responses((status = 200, description = "The models of this port, then their presets.", body = ModelList))
)]
pub(in crate::api) async fn list(state: Data<State>, caller: Caller) -> HttpResponse {
    let (registry, watchdog) = (state.registry(), state.models().watchdog());
    let models = state.models_for(&caller);
    let presets = registry.presets().map(Target::from);
    let presets = presets.filter(|target| caller.sees(target));
    HttpResponse::Ok().json(ModelList {
        object: "list",
        models: models
            .iter()
            .map(|served| ListedModel::of(served.model.info()))
            .collect(),
        data: models
            .iter()
            .cloned()
            .chain(presets)
            .map(|target| Model::of(&target, watchdog))
            .collect(),
    })
}

/// Tells of one model or preset.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    params(("model" = String, Path, description = "Name, alias or role")),
    responses((status = 200, description = "The model or preset.", body = Model))
)]
pub(super) async fn one(state: Data<State>, name: Path<String>, caller: Caller) -> Result<HttpResponse, ApiError> {
    let target = state.named_for(&caller, &name)?;
    Ok(HttpResponse::Ok().json(Model::of(&target, state.models().watchdog())))
}

impl Model {
    fn of(target: &Target, watchdog: Duration) -> Self {
        let engine = &target.model.engine;
        let info = engine.info();
        let is_model = target.preset.is_none();
        let slots = engine.slots();
        Self {
            id: target.name().to_owned(),
            object: "model",
            created: info.created,
            owned_by: "hearth",
            parent: target.preset.as_ref().map(|preset| preset.model.name().to_owned()),
            role: info.role.clone().filter(|_| is_model),
            aliases: info.aliases.iter().filter(|_| is_model).cloned().collect(),
            tags: Vec::new(),
            context_length: info.context,
            max_model_len: info.context,
            status: ModelStatus::of(&**engine, watchdog),
            meta: Meta {
                architecture: info.architecture.clone(),
                n_ctx: info.context,
                n_ctx_train: info.context_train,
                n_vocab: info.vocabulary,
                vocab_type: vocabulary_type(&info.file.tokenizer),
                n_embd: info.file.embedding,
                ftype: info.file.kind.clone(),
                n_params: info.parameters,
                size: info.size_bytes,
                slots: slots.total,
                slots_busy: slots.busy,
                requests_waiting: slots.waiting,
            },
        }
    }
}

impl ListedModel {
    fn of(info: &ModelInfo) -> Self {
        Self {
            name: info.name.clone(),
            model: info.name.clone(),
            modified_at: "",
            size: "",
            digest: "",
            r#type: "model",
            description: "",
            tags: [""],
            capabilities: ["completion"],
            parameters: "",
            details: ListedDetails {
                parent_model: "",
                format: "gguf",
                family: info.architecture.clone(),
                families: [info.architecture.clone()],
                parameter_size: "",
                quantization_level: info.file.kind.clone(),
            },
        }
    }
}

/// llama.cpp's number (`enum llama_vocab_type` in `include/llama.h`) for the name that files have.
fn vocabulary_type(tokenizer: &str) -> u32 {
    match tokenizer {
        "llama" => 1,
        "gpt2" => 2,
        "bert" => 3,
        "t5" => 4,
        "rwkv" => 5,
        "plamo2" => 6,
        _ => 0,
    }
}
