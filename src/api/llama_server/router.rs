//! `POST /models/load` and `POST /models/unload`, as llama-server's router has them.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::LlamaError;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::state::State;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/models/load", post().to(load))
        .route("/models/unload", post().to(unload));
}

/// Which model.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ModelName {
    /// Name, alias or role.
    model: String,
}

/// It is being done; `GET /models` tells how far it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    success: bool,
}

/// Has a model loaded, in the background. Models that were loaded on demand and answer nobody give way if they must.
#[utoipa::path(
    post,
    path = "/models/load",
    request_body(content = ModelName, example = json!({"model": "reasoner"})),
    responses(
        (status = 200, description = "It is loading.", body = Accepted),
        (status = 400, description = "It is loaded already.")
    )
)]
pub(super) async fn load(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let wanted: ModelName = body?.read()?;
    state.named(&wanted.model)?;
    state.models().load(&wanted.model).map_err(ApiError::from)?;
    Ok(HttpResponse::Ok().json(Accepted { success: true }))
}

/// Has a model unloaded, in the background: it takes no more requests, and ends after the running ones.
#[utoipa::path(
    post,
    path = "/models/unload",
    request_body(content = ModelName, example = json!({"model": "reasoner"})),
    responses(
        (status = 200, description = "It is being unloaded.", body = Accepted),
        (status = 400, description = "It is not loaded.")
    )
)]
pub(super) async fn unload(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let wanted: ModelName = body?.read()?;
    state.named(&wanted.model)?;
    state.models().unload(&wanted.model).map_err(ApiError::from)?;
    Ok(HttpResponse::Ok().json(Accepted { success: true }))
}
