//! What happens around every request.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{HttpResponse, ResponseError};
use futures_util::FutureExt;
use tracing::Instrument;

use super::access::Access;
use super::cors;
use super::error::ApiError;
use super::keys::Caller;
use super::observed::Observed;
use super::state::State;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives every response a request id and what browsers want to know, and counts and logs it, to the end of its body. A handler that
/// panics becomes a 500, and the connection stays.
pub(super) async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let id = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| id.len() <= 128)
        .cloned()
        .or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok());
    // In every log line of the request.
    let span = tracing::error_span!("request", id = id.as_ref().and_then(|id| id.to_str().ok()));
    // Patterns only: a raw path would let clients make series without end.
    let route = request.match_pattern().unwrap_or_else(|| "other".into());
    let state = request.app_data::<Data<State>>();
    let mut exchange = state.map(|state| state.metrics.http.begin(route, request.method().as_str()));
    let access = request.app_data::<Data<Access>>().cloned();
    let reader = access.as_ref().and_then(|access| access.reader(request.headers()));
    let shared = access.is_some_and(|access| access.is_shared());
    // Also errors are for the page that asked.
    let finish = |headers: &mut HeaderMap, id: Option<HeaderValue>| {
        if let Some(id) = id {
            headers.insert(REQUEST_ID, id);
        }
        if shared {
            cors::vary(headers);
        }
        if let Some(reader) = reader {
            cors::open(headers, reader);
        }
    };
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.path().to_owned();
    let handler = AssertUnwindSafe(next.call(request)).catch_unwind();
    let Ok(outcome) = handler.instrument(span.clone()).await else {
        span.in_scope(|| tracing::error!(%method, path, "the handler panicked"));
        if let Some(exchange) = &mut exchange {
            exchange.respond(500);
        }
        let error = ApiError::internal("an error inside hearth; its log says more");
        let mut response = error.error_response();
        finish(response.headers_mut(), id);
        return Err(InternalError::from_response(error, response).into());
    };
    let mut response = outcome?;
    let status = response.status().as_u16();
    if let Some(exchange) = &mut exchange {
        exchange.respond(status);
    }
    // To the head of the response; the body of a stream comes later.
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let caller = Caller::of(response.request());
    let key = caller.name();
    span.in_scope(|| tracing::debug!(%method, path, status, ms, key, "response"));
    finish(response.headers_mut(), id);
    Ok(response.map_body(|_, body| Observed::new(body, span, exchange)))
}

/// Answers only those who may ask, see [`Access`], and browsers that ask whether they may.
pub(super) async fn admit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let checked = match request.app_data::<Data<Access>>() {
        Some(access) => access.check(request.headers(), request.uri()),
        None => Ok(()),
    };
    match checked {
        Ok(()) if is_foreign_preflight(&request) => {
            let answer = cors::preflight(request.headers());
            Ok(request.into_response(answer).map_into_right_body())
        }
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_left_body),
        Err(error) => {
            tracing::debug!(%error, path = request.path(), "refused");
            // With the error in it, which others may put into words of their own.
            let response = ServiceResponse::new(request.into_parts().0, HttpResponse::from_error(error));
            Ok(response.map_into_right_body())
        }
    }
}

/// Whether a page that may use the server asks what it may send. Pages of the server itself need not ask.
fn is_foreign_preflight(request: &ServiceRequest) -> bool {
    let access = request.app_data::<Data<Access>>();
    access.is_some_and(|access| access.reader(request.headers()).is_some())
        && cors::is_preflight(request.method(), request.headers())
}
