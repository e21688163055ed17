//! `GET` and `PUT /api/v1/log-level`: what the log shows, and a change of it while the server runs.

use actix_web::HttpResponse;
use actix_web::web::{ServiceConfig, put};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::body::Body;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::routing::get;
use crate::telemetry::{BadFilter, log_filter, set_log_filter};

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/api/v1/log-level", get().to(show))
        .route("/api/v1/log-level", put().to(change));
}

/// What the log shows.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogLevel {
    /// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or tracing directives such as `info,hearth::api=debug`.
    filter: String,
}

/// What the log shows now.
#[utoipa::path(
    get,
    path = "/api/v1/log-level",
    responses((status = 200, description = "The filter of the log.", body = LogLevel))
)]
pub(super) async fn show() -> Result<HttpResponse, ApiError> {
    let filter = log_filter().ok_or_else(|| ApiError::internal(BadFilter::NoLog.to_string()))?;
    Ok(HttpResponse::Ok().json(LogLevel { filter }))
}

/// Changes what the log shows, until the server ends.
#[utoipa::path(
    put,
    path = "/api/v1/log-level",
    request_body = LogLevel,
    responses(
        (status = 200, description = "The filter from now on.", body = LogLevel),
        (status = 400, description = "It is not a filter; nothing has changed.", body = ErrorBody<'static>)
    )
)]
pub(super) async fn change(body: Body) -> Result<HttpResponse, ApiError> {
    let LogLevel { filter } = body.read()?;
    set_log_filter(&filter).map_err(|error| match error {
        BadFilter::Directives { .. } | BadFilter::Long => ApiError::field("filter", error.to_string()),
        BadFilter::NoLog => ApiError::internal(error.to_string()),
    })?;
    tracing::info!(filter, "the log level was changed");
    show().await
}
