//! `POST /chat/completions`, and how many tokens a conversation has.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::LlamaError;
use crate::api::body::Body;
use crate::api::openai::{chat_completions, conversation};
use crate::api::presets;
use crate::api::requests::{ApplyTemplateRequest, ChatCompletionRequest};
use crate::api::state::State;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/chat/completions", post().to(complete))
        .route("/chat/completions/input_tokens", post().to(count))
        .route("/v1/chat/completions/input_tokens", post().to(count));
}

/// Answers a conversation, as `/v1/chat/completions` does; errors are in llama-server's form.
#[utoipa::path(
    post,
    path = "/chat/completions",
    request_body(
        content = ChatCompletionRequest,
        example = json!({"messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_tokens": 128})
    ),
    responses((
        status = 200,
        description = "The answer of `/v1/chat/completions`.",
        content((Value = "application/json"), (String = "text/event-stream"))
    ))
)]
pub(super) async fn complete(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    Ok(chat_completions::complete(state, body?).await?)
}

/// How many tokens a conversation has.
#[derive(Debug, Serialize, ToSchema)]
struct CountedTokens {
    input_tokens: usize,
    object: &'static str,
}

/// Counts the tokens of a conversation.
#[utoipa::path(
    post,
    path = "/chat/completions/input_tokens",
    request_body(content = ApplyTemplateRequest, example = json!({"messages": [{"role": "user", "content": "Hello"}]})),
    responses((status = 200, description = "The number.", body = CountedTokens))
)]
pub(super) async fn count(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let mut body = body?;
    let target = state.open(&mut body).await?;
    let conversation = presets::begin(&target, conversation::read(body).await?);
    let prompt = target.model.chat.render(conversation).await?;
    let tokens = target.model.engine.tokenize(prompt, true, true).await?;
    Ok(HttpResponse::Ok().json(CountedTokens {
        input_tokens: tokens.len(),
        object: "response.input_tokens",
    }))
}
