//! `/health`, `/livez`, `/readyz` and `/version`.

use std::time::Duration;

use actix_web::http::header::RETRY_AFTER;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::routing::get;
use crate::api::state::State;
use crate::engine::{Health, TokenEngine};
use crate::host::cpu::Cpu;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/health", get().to(ready))
        .route("/v1/health", get().to(ready))
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
    Loaded,
    /// Not in memory; a request for it may load it.
    Unloaded,
    Maintenance,
    /// It has work and computes nothing.
    Stuck {
        seconds: u64,
    },
    Failed {
        reason: String,
    },
    /// The server that computes it does not answer, which may pass.
    Unreachable {
        reason: String,
    },
    ShuttingDown,
}

impl ModelStatus {
    /// The state of a model whose engine may be silent for `watchdog` while it has work; zero for any time.
    pub(in crate::api) fn of(engine: &dyn TokenEngine, watchdog: Duration) -> Self {
        let silence = engine.silence();
        if !watchdog.is_zero() && silence >= watchdog {
            return Self::Stuck {
                seconds: silence.as_secs(),
            };
        }
        match engine.health() {
            Health::Loading { progress } => Self::Loading { progress },
            Health::Ready => Self::Loaded,
            Health::Unloaded => Self::Unloaded,
            Health::Maintenance => Self::Maintenance,
            Health::Failed { reason } => Self::Failed { reason },
            Health::Unreachable { reason } => Self::Unreachable { reason },
            Health::ShuttingDown => Self::ShuttingDown,
        }
    }

    /// How bad it is; 0 is well.
    fn rank(&self) -> u32 {
        match self {
            // Who asks for an unloaded one has it loaded; a model in maintenance is so because somebody wants it.
            Self::Loaded | Self::Unloaded | Self::Maintenance => 0,
            Self::Loading { .. } | Self::Unreachable { .. } => 1,
            Self::ShuttingDown => 2,
            Self::Stuck { .. } => 3,
            Self::Failed { .. } => 4,
        }
    }
}

/// Why the server cannot answer, in llama-server's words: its clients compare the message and read `code` as a number.
#[derive(Debug, Serialize, ToSchema)]
struct NotReady<'h> {
    error: NotReadyDetail,
    /// Those that the caller may use.
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
    /// Whether the caller may use the model; who may not hears no name and no reason, which names files and servers.
    #[serde(skip)]
    told: bool,
}

/// 200 when every model of this listener can answer; else 503 with the state of each model.
///
/// It needs no key; where the models do, names and reasons are for those who have one.
#[utoipa::path(
    get,
    path = "/health",
    responses(
        (status = 200, description = "Every model can answer.", body = Well),
        (status = 503, description = "A model cannot answer.", body = NotReady<'static>)
    )
)]
pub(super) async fn ready(state: Data<State>, request: HttpRequest) -> HttpResponse {
    let registry = state.registry();
    let watchdog = state.models().watchdog();
    let caller = state.keys.who(&request);
    let statuses = registry.models().iter().map(|model| NamedStatus {
        model: model.name(),
        status: ModelStatus::of(&*model.engine, watchdog),
        told: caller.as_ref().is_some_and(|caller| caller.sees(&model.into())),
    });
    let statuses: Vec<_> = statuses.collect();
    let loaded = statuses.iter().any(|named| named.status == ModelStatus::Loaded);
    // A server that is away keeps nobody from the models that are here, and where others answer for a model, that is as good.
    let excused = |named: &NamedStatus<'_>| match named.status {
        ModelStatus::Unreachable { .. } => loaded || state.models().has_fallback(named.model),
        ModelStatus::Failed { .. } => state.models().has_fallback(named.model),
        _ => false,
    };
    // What is worst decides: only loading passes by itself.
    let Some(worst) = statuses
        .iter()
        .filter(|named| !excused(named) && named.status.rank() > 0)
        .max_by_key(|named| named.status.rank())
    else {
        return HttpResponse::Ok().json(WELL);
    };
    let message = match &worst.status {
        ModelStatus::Failed { reason } | ModelStatus::Unreachable { reason } if worst.told => {
            format!("A model is not available: {reason}")
        }
        ModelStatus::Failed { .. } | ModelStatus::Unreachable { .. } => "A model is not available".to_owned(),
        ModelStatus::Stuck { seconds } => format!("A model has computed nothing for {seconds} s although it has work"),
        ModelStatus::ShuttingDown => "The server is shutting down".to_owned(),
        _ => "Loading model".to_owned(),
    };
    let mut response = HttpResponse::ServiceUnavailable();
    if !matches!(worst.status, ModelStatus::Failed { .. }) {
        response.insert_header((RETRY_AFTER, "2"));
    }
    response.json(NotReady {
        error: NotReadyDetail {
            message,
            r#type: "unavailable_error",
            param: (),
            code: 503,
        },
        models: statuses.into_iter().filter(|named| named.told).collect(),
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
