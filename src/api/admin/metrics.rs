//! `GET /metrics` for Prometheus.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig};

use super::series;
use crate::api::routing::get;
use crate::api::state::State;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/metrics", get().to(scrape));
}

/// Metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "Series in Prometheus' text format.", body = String, content_type = "text/plain"))
)]
pub(super) async fn scrape(state: Data<State>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(state.metrics.encode(series::families(state.engines())))
}
