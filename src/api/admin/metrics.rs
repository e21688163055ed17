//! `GET /metrics` for Prometheus.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, block};

use super::series;
use crate::api::error::ApiError;
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
pub(super) async fn scrape(state: Data<State>) -> Result<HttpResponse, ApiError> {
    let text = block(move || state.metrics.encode(series::families(&state.engines())))
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let mut response = HttpResponse::Ok();
    response.content_type("text/plain; version=0.0.4; charset=utf-8");
    Ok(response.body(text))
}
