//! Endpoints of hearth and of llama-server: texts, tokens, templates, memory, experts.

mod embeddings;
mod experts;
mod generate;
mod memory;
mod template;
mod tokens;

use actix_web::web::ServiceConfig;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    embeddings::routes(config);
    experts::routes(config);
    generate::routes(config);
    memory::routes(config);
    template::routes(config);
    tokens::routes(config);
}
