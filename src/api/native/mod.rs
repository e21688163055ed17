//! Endpoints of hearth and of llama-server: texts, tokens, templates, memory, experts.

mod embeddings;
mod experts;
mod generate;
mod memory;
mod socket;
mod template;
mod tokens;

use actix_web::web::ServiceConfig;
use utoipa::OpenApi;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    embeddings::routes(config);
    experts::routes(config);
    generate::routes(config);
    memory::routes(config);
    socket::routes(config);
    template::routes(config);
    tokens::routes(config);
}

#[derive(OpenApi)]
#[openapi(
    paths(
        embeddings::embed,
        embeddings::rerank,
        generate::generate,
        tokens::tokenize,
        tokens::detokenize,
        socket::open,
        template::apply,
        experts::stats,
        experts::change,
        memory::memory
    ),
    components(schemas(generate::Event, socket::Event))
)]
struct Docs;

/// The description of these resources.
pub(super) fn docs() -> utoipa::openapi::OpenApi {
    Docs::openapi()
}
