//! `/health`, `/livez`, `/readyz` and `/version`.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, get};
use serde_json::json;

use super::error::ApiError;
use super::state::State;
use crate::engine::{EngineError, Health};

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/health", get().to(ready))
        .route("/readyz", get().to(ready))
        .route("/livez", get().to(alive))
        .route("/version", get().to(version));
}

/// 200 when every model of this listener can answer, else 503 with the first that cannot.
async fn ready(state: Data<State>) -> Result<HttpResponse, ApiError> {
    let Some((model, health)) = state.not_ready() else {
        return Ok(HttpResponse::Ok().json(json!({"status": "ok"})));
    };
    let model = model.to_owned();
    Err(match health {
        Health::Loading { progress } => EngineError::Loading { model, progress },
        Health::Failed { reason } => EngineError::Unavailable { model, reason },
        Health::ShuttingDown | Health::Ready => EngineError::ShuttingDown,
    }
    .into())
}

/// The process answers.
async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

async fn version() -> HttpResponse {
    HttpResponse::Ok().json(json!({"version": env!("CARGO_PKG_VERSION")}))
}
