//! `GET /v1/models` and `GET /v1/models/{model}`.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path, ServiceConfig};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::admin::ModelStatus;
use crate::api::error::ApiError;
use crate::api::routing::get;
use crate::api::state::State;
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
pub(super) async fn list(state: Data<State>) -> HttpResponse {
    let models = state.served().iter().map(|model| Target { model, preset: None });
    let presets = state.presets().map(|preset| Target {
        model: &preset.model,
        preset: Some(preset),
    });
    HttpResponse::Ok().json(ModelList {
        object: "list",
        data: models.chain(presets).map(Model::of).collect(),
    })
}

/// Tells of one model or preset.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    params(("model" = String, Path, description = "Name, alias or role")),
    responses((status = 200, description = "The model or preset.", body = Model))
)]
pub(super) async fn one(state: Data<State>, name: Path<String>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(Model::of(state.named(&name)?)))
}

impl Model {
    fn of(target: Target<'_>) -> Self {
        let engine = &target.model.engine;
        let info = engine.info();
        let is_model = target.preset.is_none();
        let slots = engine.slots();
        Self {
            id: target.name().to_owned(),
            object: "model",
            created: info.created,
            owned_by: "hearth",
            parent: target.preset.map(|preset| preset.model.name().to_owned()),
            role: info.role.clone().filter(|_| is_model),
            aliases: info.aliases.iter().filter(|_| is_model).cloned().collect(),
            context_length: info.context,
            max_model_len: info.context,
            status: engine.health().into(),
            meta: Meta {
                architecture: info.architecture.clone(),
                n_ctx: info.context,
                n_ctx_train: info.context_train,
                n_vocab: info.vocabulary,
                n_params: info.parameters,
                size: info.size_bytes,
                slots: slots.total,
                slots_busy: slots.busy,
                requests_waiting: slots.waiting,
            },
        }
    }
}
