//! Cross-origin resource sharing: what browsers must be told before they let a page of somebody else read an answer.
//!
//! Which pages those are is [`Access`](super::access::Access)'s to say; all others are refused before anything here is asked.

use actix_web::HttpResponse;
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, VARY,
};

/// Methods of this API.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, DELETE, OPTIONS");
/// Headers of answers that clients read, beside those that pages may always read.
const EXPOSED: HeaderValue = HeaderValue::from_static("x-request-id, retry-after, x-should-retry");
/// Seconds for which a browser need not ask again.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// Asked by pages of the internet before they reach into a local network.
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Whether a browser asks what it may send, before it sends it.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight of a page that may use the server: everything that clients send is allowed. It carries no
/// credentials, and none are needed.
pub(super) fn preflight(asked: &HeaderMap) -> HttpResponse {
    let mut answer = HttpResponse::NoContent().finish();
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    // SDKs send headers of their own (x-stainless-*, anthropic-*), whose names no list can keep up with.
    for names in asked.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.append(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    if asked.contains_key(REQUEST_PRIVATE_NETWORK) {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    answer
}

/// Lets a page read an answer. `page` is what the answer names as its origin.
pub(super) fn open(answer: &mut HeaderMap, page: HeaderValue) {
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, page);
    answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}

/// Tells caches that answers to other origins differ.
pub(super) fn vary(answer: &mut HeaderMap) {
    let names = "origin, access-control-request-method, access-control-request-headers";
    answer.append(VARY, HeaderValue::from_static(names));
}
