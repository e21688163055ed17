//! llama-server's endpoints, in its shapes: programs that were made for it work unchanged.
//!
//! What answers is the same as behind `/v1`: sampling defaults are the model's, and fields are checked as strictly. Where the
//! two differ on purpose, the table of `tests/peers/differences.py` says why.

mod chat;
mod completion;
mod cut;
mod embeddings;
mod error;
mod events;
mod fields;
mod infill;
mod props;
mod router;
mod running;
mod settings;
mod slots;
mod template;
mod tokens;

use actix_web::web::ServiceConfig;
use utoipa::OpenApi;

use self::error::LlamaError;
use super::error::ApiError;

/// Paths that are only llama-server's; others it shares with OpenAI.
const PATHS: [&str; 17] = [
    "/apply-template",
    "/chat/completions",
    "/completion",
    "/completions",
    "/detokenize",
    "/embedding",
    "/embeddings",
    "/infill",
    "/lora-adapters",
    "/props",
    "/rerank",
    "/reranking",
    "/slots",
    "/tokenize",
    "/v1/chat/completions/input_tokens",
    "/v1/rerank",
    "/v1/reranking",
];

/// Whether errors of a path are in llama-server's form.
pub(super) fn is_ours(path: &str) -> bool {
    let under = |known: &&str| {
        path.strip_prefix(*known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    PATHS.iter().any(under)
}

/// The error in llama-server's form.
pub(super) fn reworded(error: ApiError) -> LlamaError {
    error.into()
}

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    chat::routes(config);
    completion::routes(config);
    embeddings::routes(config);
    infill::routes(config);
    props::routes(config);
    router::routes(config);
    slots::routes(config);
    template::routes(config);
    tokens::routes(config);
}

#[derive(OpenApi)]
#[openapi(
    paths(
        chat::complete,
        chat::count,
        completion::complete,
        embeddings::embed,
        embeddings::rerank,
        infill::infill,
        props::props,
        props::refuse,
        router::load,
        router::unload,
        slots::adapters,
        slots::act,
        slots::refuse_adapters,
        slots::slots,
        template::apply,
        tokens::detokenize,
        tokens::tokenize
    ),
    components(schemas(error::LlamaErrorBody<'static>))
)]
struct Docs;

/// The description of these resources.
pub(super) fn docs() -> utoipa::openapi::OpenApi {
    Docs::openapi()
}
