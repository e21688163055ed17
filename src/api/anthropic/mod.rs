//! Anthropic's Messages API, as its SDKs use it.

mod content;
mod count_tokens;
mod described;
mod error;
mod messages;
mod request;
mod translation;
mod wire;

use actix_web::web::ServiceConfig;
use utoipa::OpenApi;

pub(super) use error::reword;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    messages::routes(config);
    count_tokens::routes(config);
}

#[derive(OpenApi)]
#[openapi(paths(messages::create, count_tokens::count), components(schemas(error::ErrorBody)))]
struct Docs;

/// The description of these resources.
pub(super) fn docs() -> utoipa::openapi::OpenApi {
    Docs::openapi()
}
