//! Who may ask for what: the one place that says which paths are public, and which ones are for administration.
//!
//! | purpose | paths | needs |
//! |---|---|---|
//! | public | [`PUBLIC`], [`PUBLIC_FOLDERS`], preflights | nothing |
//! | metrics | `/metrics` | `metrics_key`, or a key for administration; any key without a `metrics_key` |
//! | administration | what changes the server, see [`purpose`] | a key for administration |
//! | use | everything else | any key, which may be for some models only |
//!
//! Without keys everybody may do everything. With `admin_port`, metrics and administration are only on that listener.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpMessage, HttpResponse};

use super::error::ApiError;
use super::keys::{Caller, Keys, Permit, Purpose, given};
use super::llama_server;
use crate::config::ServerConfig;

/// Read by everybody: whether the server is well, its page and its documentation.
const PUBLIC: [&str; 8] = [
    "/",
    "/favicon.ico",
    "/health",
    "/v1/health",
    "/livez",
    "/readyz",
    "/docs",
    "/openapi.json",
];
/// Static files of the page.
const PUBLIC_FOLDERS: [&str; 1] = ["/page/"];
const METRICS: &str = "/metrics";
/// What asks the models among the paths below `/api/v1/`; all others that change something are for administration.
const NATIVE_USE: [&str; 2] = ["/api/v1/generate", "/api/v1/chat/completions"];
/// What llama-server has for administration.
const ADMIN_FOLDERS: [&str; 4] = ["/api/v1/", "/models/", "/slots/", "/admin/"];
const ADMIN: [&str; 3] = ["/models", "/props", "/lora-adapters"];

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Everything,
    /// Everything but administration and metrics.
    Users,
    /// Administration, metrics, and what is public.
    Admin,
}

/// What a request is for. `path` is decoded as for finding its handler: `/%6detrics` is `/metrics`.
fn purpose(method: &Method, path: &str) -> Purpose {
    let reads = [Method::GET, Method::HEAD].contains(method);
    if reads && (PUBLIC.contains(&path) || PUBLIC_FOLDERS.iter().any(|folder| path.starts_with(folder))) {
        return Purpose::Public;
    }
    if path == METRICS {
        return Purpose::Metrics;
    }
    let changes = !reads && method != Method::OPTIONS;
    let admin = ADMIN.contains(&path) || ADMIN_FOLDERS.iter().any(|folder| path.starts_with(folder));
    if changes && admin && !NATIVE_USE.contains(&path) {
        return Purpose::Admin;
    }
    Purpose::Use
}

/// Answers only those who have the key that the request needs, as often as the key may ask. The caller goes with the request.
pub(super) async fn gate(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    match enter(&request) {
        Ok(entered) => {
            request.extensions_mut().insert(entered.caller);
            let (_permit, _place) = (entered.permit, entered.place);
            let response = next.call(request).await?;
            Ok(response.map_body(|_, body| {
                let body = body.boxed();
                BoxBody::new(Held { body, _permit, _place })
            }))
        }
        Err(error) => {
            let path = request.match_info().unprocessed();
            tracing::debug!(%error, path, "refused");
            let response = if llama_server::is_ours(path) {
                HttpResponse::from_error(llama_server::reworded(error))
            } else {
                HttpResponse::from_error(error)
            };
            Ok(ServiceResponse::new(request.into_parts().0, response))
        }
    }
}

/// A request that may go on.
#[derive(Default)]
struct Entered {
    caller: Caller,
    permit: Option<Permit>,
    place: Option<Place>,
}

/// How many requests are answered at the same time, on all connections: one connection with HTTP/2 can bring thousands.
pub(super) struct Places {
    running: AtomicUsize,
    limit: usize,
}

/// One of them, until it is dropped.
struct Place(Data<Places>);

impl Places {
    /// As many as there may be connections.
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            running: AtomicUsize::new(0),
            limit: config.max_connections.saturating_mul(config.http_threads),
        }
    }

    fn take(places: &Data<Self>) -> Result<Place, ApiError> {
        let place = Place(places.clone());
        if places.running.fetch_add(1, Ordering::Relaxed) < places.limit {
            return Ok(place);
        }
        Err(ApiError::busy_server(
            "the server answers as many requests as it can; try again in a moment",
        ))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

fn enter(request: &ServiceRequest) -> Result<Entered, ApiError> {
    let path = request.match_info().unprocessed();
    let purpose = purpose(request.method(), path);
    match (request.app_data::<Side>(), purpose) {
        (Some(Side::Users), Purpose::Admin | Purpose::Metrics) => return Err(ApiError::elsewhere(path, false)),
        (Some(Side::Admin), Purpose::Use) => return Err(ApiError::elsewhere(path, true)),
        _ => {}
    }
    let caller = match request.app_data::<Data<Keys>>() {
        Some(keys) => keys.check(purpose, &given(request.headers()))?,
        None => Caller::default(),
    };
    if purpose != Purpose::Use {
        // Who looks after the server gets in, however busy it is.
        return Ok(Entered {
            caller,
            ..Entered::default()
        });
    }
    let place = request.app_data::<Data<Places>>().map(Places::take).transpose()?;
    // What only reads costs nothing; a WebSocket counts its messages.
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        caller.count()?;
    }
    let permit = caller.begin()?;
    Ok(Entered { caller, permit, place })
}

/// A body whose request runs until it is sent.
struct Held {
    body: BoxBody,
    _permit: Option<Permit>,
    _place: Option<Place>,
}

impl MessageBody for Held {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_purposes() {
        let get = |path| purpose(&Method::GET, path);
        let post = |path| purpose(&Method::POST, path);
        for path in ["/", "/health", "/livez", "/readyz", "/page/page.js", "/openapi.json"] {
            assert_eq!(get(path), Purpose::Public, "{path}");
            assert_eq!(purpose(&Method::HEAD, path), Purpose::Public, "{path}");
            assert_ne!(post(path), Purpose::Public, "{path}");
        }
        for path in [
            "/v1/models",
            "/props",
            "/slots",
            "/api/v1/memory",
            "/api/v1/expert-stats",
            "/version",
            "/nothing",
        ] {
            assert_eq!(get(path), Purpose::Use, "{path}");
        }
        for path in [
            "/v1/chat/completions",
            "/api/v1/generate",
            "/api/v1/chat/completions",
            "/tokenize",
        ] {
            assert_eq!(post(path), Purpose::Use, "{path}");
        }
        for path in [
            "/api/v1/reload",
            "/api/v1/maintenance",
            "/api/v1/expert-cache",
            "/api/v1/what-comes-next",
            "/models/load",
            "/models/unload",
            "/slots/0",
            "/props",
        ] {
            assert_eq!(post(path), Purpose::Admin, "{path}");
            assert_eq!(purpose(&Method::PUT, path), Purpose::Admin, "{path}");
        }
        assert_eq!(get("/metrics"), Purpose::Metrics);
    }
}
