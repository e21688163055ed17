//! Endpoints for who operates the server: health, version, metrics, the log.

mod health;
mod log_level;
mod metrics;
mod operate;
mod series;

use actix_web::web::ServiceConfig;
use utoipa::OpenApi;

pub(super) use health::ModelStatus;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    health::routes(config);
    log_level::routes(config);
    metrics::routes(config);
    operate::routes(config);
}

#[derive(OpenApi)]
#[openapi(paths(
    health::ready,
    health::alive,
    health::version,
    log_level::show,
    log_level::change,
    metrics::scrape,
    operate::reload,
    operate::maintain
))]
struct Docs;

/// The description of these resources.
pub(super) fn docs() -> utoipa::openapi::OpenApi {
    Docs::openapi()
}
