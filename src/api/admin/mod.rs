//! Endpoints for who operates the server: health, version, metrics.

mod health;
mod metrics;
mod series;

use actix_web::web::ServiceConfig;

pub(super) use health::ModelStatus;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    health::routes(config);
    metrics::routes(config);
}
