//! `POST /api/v1/reload` and `POST /api/v1/maintenance`, for who operates the server.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, block, post};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ModelStatus;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::state::State;
use crate::models::Reloaded;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/api/v1/reload", post().to(reload))
        .route("/api/v1/maintenance", post().to(maintain));
}

/// Reads the configuration again. Models that it changes are loaded and unloaded in the background; a mistake changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/reload",
    responses(
        (status = 200, description = "What differs.", body = Reloaded),
        (status = 400, description = "The configuration has mistakes.")
    )
)]
pub(super) async fn reload(state: Data<State>) -> Result<HttpResponse, ApiError> {
    let Some(configuration) = state.configuration().cloned() else {
        return Err(ApiError::not_supported(
            "this server was started without a configuration",
        ));
    };
    let next = block(move || configuration.read())
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?
        .map_err(|error| ApiError::bad_body(format!("nothing was changed: {error:#}")))?;
    Ok(HttpResponse::Ok().json(state.reload(next)))
}

/// What to do with which model.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MaintenanceWish {
    /// Name, alias or role.
    model: String,
    /// Whether the model takes no more requests from now on.
    on: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct Maintained {
    model: String,
    status: ModelStatus,
    /// Requests that are still computed or wait.
    running: u32,
}

/// Takes a model out of service, or back into it: running requests go on, new ones are answered with 503.
#[utoipa::path(
    post,
    path = "/api/v1/maintenance",
    request_body(content = MaintenanceWish, example = json!({"model": "reasoner", "on": false})),
    responses((status = 200, description = "The model as it is now.", body = Maintained))
)]
pub(super) async fn maintain(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let wanted: MaintenanceWish = body.read()?;
    let model = state.named(&wanted.model)?.model.name().to_owned();
    let running = state.models().maintain(&model, wanted.on)?;
    let target = state.named(&model)?;
    Ok(HttpResponse::Ok().json(Maintained {
        status: ModelStatus::of(&*target.model.engine, state.models().watchdog()),
        model,
        running,
    }))
}
