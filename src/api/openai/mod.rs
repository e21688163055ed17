//! OpenAI's endpoints, as its SDKs use them.

mod chat_completions;
mod completions;
pub(super) mod conversation;
mod embeddings;
mod logprobs;
mod models;
pub(super) mod tools;

use actix_web::web::ServiceConfig;
use utoipa::OpenApi;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    chat_completions::routes(config);
    completions::routes(config);
    embeddings::routes(config);
    models::routes(config);
}

#[derive(OpenApi)]
#[openapi(
    paths(chat_completions::complete, completions::complete, embeddings::embed, models::list, models::one),
    components(schemas(chat_completions::ChatChunk, crate::api::error::ErrorBody<'static>))
)]
struct Docs;

/// The description of these resources.
pub(super) fn docs() -> utoipa::openapi::OpenApi {
    Docs::openapi()
}
