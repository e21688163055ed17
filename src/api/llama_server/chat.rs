//! `POST /chat/completions`, and how many tokens a conversation has.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::Serialize;

use super::error::LlamaError;
use crate::api::body::Body;
use crate::api::openai::{chat_completions, conversation};
use crate::api::state::State;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/chat/completions", post().to(complete))
        .route("/chat/completions/input_tokens", post().to(count))
        .route("/v1/chat/completions/input_tokens", post().to(count));
}

/// As `/v1/chat/completions`, but for the form of errors.
async fn complete(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    Ok(chat_completions::complete(state, body?).await?)
}

#[derive(Debug, Serialize)]
struct Counted {
    input_tokens: usize,
    object: &'static str,
}

async fn count(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let body = body?;
    let model = state.resolve(body.model()?)?;
    let prompt = model.chat.render(conversation::read(body).await?).await?;
    let tokens = model.engine.tokenize(prompt, true, true).await?;
    Ok(HttpResponse::Ok().json(Counted {
        input_tokens: tokens.len(),
        object: "response.input_tokens",
    }))
}
