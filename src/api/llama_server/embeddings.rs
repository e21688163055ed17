//! `POST /embedding`, `/embeddings`, `/rerank` and `/reranking`: refused, as by a llama-server without `--embeddings`.

use actix_web::web::{ServiceConfig, post};

use super::error::LlamaError;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/embedding", post().to(refuse_embeddings))
        .route("/embeddings", post().to(refuse_embeddings))
        .route("/rerank", post().to(refuse_ranks))
        .route("/reranking", post().to(refuse_ranks))
        .route("/v1/rerank", post().to(refuse_ranks))
        .route("/v1/reranking", post().to(refuse_ranks));
}

async fn refuse_embeddings() -> Result<&'static str, LlamaError> {
    Err(LlamaError::not_supported("this server does not compute embeddings yet"))
}

async fn refuse_ranks() -> Result<&'static str, LlamaError> {
    Err(LlamaError::not_supported("this server does not rank documents yet"))
}
