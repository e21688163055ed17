//! `/health`, `/livez`, `/readyz` and `/version`.

use actix_web::HttpResponse;
use actix_web::http::header::RETRY_AFTER;
use actix_web::web::{Data, ServiceConfig};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::routing::get;
use crate::api::state::State;
use crate::engine::Health;
use crate::host::cpu::Cpu;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/health", get().to(ready))
        .route("/readyz", get().to(ready))
        .route("/livez", get().to(alive))
        .route("/version", get().to(version));
}

/// All is well.
#[derive(Debug, Serialize, ToSchema)]
struct Well {
    status: &'static str,
}

const WELL: Well = Well { status: "ok" };

/// A model's state.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "value", rename_all = "snake_case")]
pub(in crate::api) enum ModelStatus {
    Loading {
        /// 0 to 1.
        progress: f32,
    },
    Ready,
    Failed {
        reason: String,
    },
    ShuttingDown,
}

impl From<Health> for ModelStatus {
    fn from(health: Health) -> Self {
        match health {
            Health::Loading { progress } => Self::Loading { progress },
            Health::Ready => Self::Ready,
            Health::Failed { reason } => Self::Failed { reason },
            Health::ShuttingDown => Self::ShuttingDown,
        }
    }
}

/// Why the server cannot answer, in llama-server's words: its clients compare the message and read `code` as a number.
#[derive(Debug, Serialize, ToSchema)]
struct NotReady<'h> {
    error: NotReadyDetail,
    models: Vec<NamedStatus<'h>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct NotReadyDetail {
    message: String,
    r#type: &'static str,
    param: (),
    code: u16,
}

#[derive(Debug, Serialize, ToSchema)]
struct NamedStatus<'h> {
    model: &'h str,
    status: ModelStatus,
}

/// 200 when every model of this listener can answer; else 503 with the state of each model.
#[utoipa::path(
    get,
    path = "/health",
    responses(
        (status = 200, description = "Every model can answer.", body = Well),
        (status = 503, description = "A model cannot answer.", body = NotReady<'static>)
    )
)]
pub(super) async fn ready(state: Data<State>) -> HttpResponse {
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
        return HttpResponse::Ok().json(WELL);
    };
    let message = match worst {
        Health::Ready | Health::Loading { .. } => "Loading model".to_owned(),
        Health::ShuttingDown => "The server is shutting down".to_owned(),
        Health::Failed { reason } => format!("A model is not available: {reason}"),
    };
    let mut response = HttpResponse::ServiceUnavailable();
    if !matches!(worst, Health::Failed { .. }) {
        response.insert_header((RETRY_AFTER, "2"));
    }
    let models = health.iter().map(|(model, health)| NamedStatus {
        model,
        status: health.clone().into(),
    });
    response.json(NotReady {
        error: NotReadyDetail {
            message,
            r#type: "unavailable_error",
            param: (),
            code: 503,
        },
        models: models.collect(),
    })
}

/// The process answers.
#[utoipa::path(get, path = "/livez", responses((status = 200, description = "It does.", body = Well)))]
pub(super) async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(WELL)
}

/// The answer of `/version`.
#[derive(Debug, Serialize, ToSchema)]
struct Version {
    version: &'static str,
    /// Which features of the processor llama.cpp uses.
    cpu: &'static Cpu,
}

/// Tells hearth's version, and which features of the processor llama.cpp uses.
#[utoipa::path(get, path = "/version", responses((status = 200, description = "The version.", body = Version)))]
pub(super) async fn version() -> HttpResponse {
    HttpResponse::Ok().json(Version {
        version: env!("CARGO_PKG_VERSION"),
        cpu: Cpu::this(),
    })
}
