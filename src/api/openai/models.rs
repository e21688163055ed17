//! `GET /v1/models` and `GET /v1/models/{model}`.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path, ServiceConfig, get};
use serde_json::{Value, json};

use super::error::ApiError;
use super::health::status;
use super::state::State;
use crate::engine::Engine;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/v1/models", get().to(list))
        .route("/v1/models/{model:.+}", get().to(one));
}

async fn list(state: Data<State>) -> HttpResponse {
    let data: Vec<Value> = state.served().iter().map(|served| model(&*served.engine)).collect();
    HttpResponse::Ok().json(json!({"object": "list", "data": data}))
}

async fn one(state: Data<State>, name: Path<String>) -> Result<HttpResponse, ApiError> {
    let served = state.resolve(Some(&name))?;
    Ok(HttpResponse::Ok().json(model(&*served.engine)))
}

/// A model with the context it is running with.
fn model(engine: &dyn Engine) -> Value {
    let card = engine.card();
    let slots = engine.slots();
    json!({
        "id": card.name, "object": "model", "created": card.created, "owned_by": "hearth",
        "role": card.role, "aliases": card.aliases,
        "context_length": card.context, "max_model_len": card.context,
        "status": status(&engine.health()),
        "meta": {
            "architecture": card.architecture, "n_ctx": card.context, "n_ctx_train": card.context_train,
            "n_vocab": card.vocabulary, "n_params": card.parameters, "size": card.size_bytes,
            "slots": slots.total, "slots_busy": slots.busy, "requests_waiting": slots.waiting,
        },
    })
}
