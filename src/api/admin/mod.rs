//! Endpoints for who operates the server: health, version, metrics.

mod health;
mod metrics;
mod series;

use actix_web::web::ServiceConfig;
use utoipa::OpenApi;

pub(super) use health::ModelStatus;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    health::routes(config);
    metrics::routes(config);
}

#[derive(OpenApi)]
#[openapi(paths(health::ready, health::alive, health::version, metrics::scrape))]
struct Docs;

/// The description of these resources.
pub(super) fn docs() -> utoipa::openapi::OpenApi {
    Docs::openapi()
}
