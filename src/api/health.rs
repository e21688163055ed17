//! `/health`, `/livez`, `/readyz` and `/version`.

use actix_web::HttpResponse;
use actix_web::http::header::RETRY_AFTER;
use actix_web::web::{Data, ServiceConfig, get};
use serde::Serialize;
use serde_json::{Value, json};

use super::state::State;
use crate::engine::Health;
use crate::host::cpu::Cpu;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/health", get().to(ready))
        .route("/readyz", get().to(ready))
        .route("/livez", get().to(alive))
        .route("/version", get().to(version));
}

/// 200 when every model of this listener can answer; else 503 in llama-server's words (its clients compare the
/// message and read `code` as a number), with the state of each model.
async fn ready(state: Data<State>) -> HttpResponse {
    let health = state.health();
    // What is worst decides: only loading passes by itself.
    let rank = |health: &Health| match health {
        Health::Ready => 0,
        Health::Loading { .. } => 1,
        Health::ShuttingDown => 2,
        Health::Failed { .. } => 3,
    };
    let Some((_, worst)) = health
        .iter()
        .filter(|(_, health)| rank(health) > 0)
        .max_by_key(|(_, health)| rank(health))
    else {
        return HttpResponse::Ok().json(json!({"status": "ok"}));
    };
    let message = match worst {
        Health::Ready | Health::Loading { .. } => "Loading model".to_owned(),
        Health::ShuttingDown => "The server is shutting down".to_owned(),
        Health::Failed { reason } => format!("A model is not available: {reason}"),
    };
    let models: Vec<Value> = health
        .iter()
        .map(|(name, health)| json!({"model": name, "status": status(health)}))
        .collect();
    let mut response = HttpResponse::ServiceUnavailable();
    if !matches!(worst, Health::Failed { .. }) {
        response.insert_header((RETRY_AFTER, "2"));
    }
    response.json(json!({
        "error": {"message": message, "type": "unavailable_error", "param": null, "code": 503},
        "models": models,
    }))
}

/// A model's state as `/v1/models` and `/health` show it.
pub(super) fn status(health: &Health) -> Value {
    match health {
        Health::Loading { progress } => json!({"value": "loading", "progress": progress}),
        Health::Ready => json!({"value": "ready"}),
        Health::Failed { reason } => json!({"value": "failed", "reason": reason}),
        Health::ShuttingDown => json!({"value": "shutting_down"}),
    }
}

/// The process answers.
async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "ok"}))
}

/// The answer of `/version`.
#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    /// Which features of the processor llama.cpp uses.
    cpu: &'static Cpu,
}

async fn version() -> HttpResponse {
    HttpResponse::Ok().json(Version {
        version: env!("CARGO_PKG_VERSION"),
        cpu: Cpu::this(),
    })
}
