//! `POST /tokenize` and `POST /detokenize`, in llama-server's shapes.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::error::ApiError;
use super::state::State;
use crate::engine::Token;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/tokenize", post().to(tokenize))
        .route("/detokenize", post().to(detokenize));
}

#[derive(Debug, Deserialize)]
struct Tokenize {
    content: String,
    #[serde(default)]
    add_special: bool,
    #[serde(default = "yes")]
    parse_special: bool,
    #[serde(default)]
    with_pieces: bool,
}

fn yes() -> bool {
    true
}

async fn tokenize(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let request: Tokenize = body.read()?;
    let engine = &state.resolve(body.model()?)?.engine;
    let tokens = engine
        .tokenize(request.content, request.add_special, request.parse_special)
        .await?;
    if !request.with_pieces {
        return Ok(HttpResponse::Ok().json(json!({ "tokens": tokens })));
    }
    let pieces = engine.token_pieces(tokens.clone()).await?;
    let tokens: Vec<Value> = tokens
        .into_iter()
        .zip(pieces)
        // A piece that is not a text by itself is given as its bytes.
        .map(|(id, piece)| match String::from_utf8(piece) {
            Ok(piece) => json!({"id": id, "piece": piece}),
            Err(error) => json!({"id": id, "piece": error.as_bytes()}),
        })
        .collect();
    Ok(HttpResponse::Ok().json(json!({ "tokens": tokens })))
}

#[derive(Debug, Deserialize)]
struct Detokenize {
    tokens: Vec<Token>,
}

async fn detokenize(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let request: Detokenize = body.read()?;
    let engine = &state.resolve(body.model()?)?.engine;
    let bytes = engine.token_pieces(request.tokens).await?.concat();
    Ok(HttpResponse::Ok().json(json!({"content": String::from_utf8_lossy(&bytes)})))
}
