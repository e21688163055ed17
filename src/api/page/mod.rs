//! The page at `/`: chat, and a view of the machine. The files of `assets/page` are embedded as they are; nothing is built.
//!
//! Files are public, also where requests need a key: the page asks for the key.

mod files;

use actix_web::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, EntityTag, HeaderMap, IF_NONE_MATCH, IfNoneMatch,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::web::{Path, ServiceConfig};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use serde_json::json;

use super::error::ApiError;
use super::routing::get;
use files::File;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/", get().to(front))
        .route("/page/{file:.+}", get().to(asset));
}

/// The page loads nothing from elsewhere, talks to this server only, and runs no script but its files. Markup that is
/// made of a model's text passes DOMPurify, and browsers that know trusted types refuse any that did not.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types dompurify";

/// The page for browsers; for programs, which do not ask for HTML, where to go on.
async fn front(request: HttpRequest) -> HttpResponse {
    let mut response = match files::file("index.html") {
        Some(file) if wants_html(request.headers()) => answer(&request, file),
        _ => HttpResponse::Ok().json(json!({
            "name": "hearth",
            "version": env!("CARGO_PKG_VERSION"),
            "models": "/v1/models",
            "docs": "/docs",
            "openapi": "/openapi.json",
        })),
    };
    let headers = response.headers_mut();
    headers.append(VARY, ACCEPT.into());
    response
}

async fn asset(request: HttpRequest, path: Path<String>) -> Result<HttpResponse, ApiError> {
    match files::file(&path) {
        Some(file) => Ok(answer(&request, file)),
        None => Err(ApiError::no_route(request.method().as_str(), request.path())),
    }
}

fn wants_html(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/html"))
}

/// The file, or that the browser's copy is the same. Browsers ask each time, so that no page outlives its server's version.
fn answer(request: &HttpRequest, file: &'static File) -> HttpResponse {
    let tag = EntityTag::new_strong(file.tag.clone());
    let same = request.headers().contains_key(IF_NONE_MATCH)
        && match request.get_header::<IfNoneMatch>() {
            Some(IfNoneMatch::Any) => true,
            Some(IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(&tag)),
            None => false,
        };
    let mut response = if same {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header((ETAG, tag.to_string()))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"));
    if same {
        return response.finish();
    }
    response.content_type(file.content_type).body(file.bytes)
}
