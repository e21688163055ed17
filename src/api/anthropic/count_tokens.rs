//! `POST /v1/messages/count_tokens`: how long the prompt of a conversation is.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::Serialize;
use utoipa::ToSchema;

use super::described::CountTokensRequest;
use super::request;
use crate::api::body::{self, Body};
use crate::api::error::ApiError;
use crate::api::presets;
use crate::api::state::State;
use crate::api::token_count;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/messages/count_tokens", post().to(count));
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokenCount {
    input_tokens: usize,
}

/// Counts the tokens of a prompt.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    request_body(content = CountTokensRequest, example = json!({"messages": [{"role": "user", "content": "Hello!"}]})),
    responses((status = 200, description = "How long the prompt of the conversation is.", body = TokenCount))
)]
pub(super) async fn count(state: Data<State>, mut body: Body) -> Result<HttpResponse, ApiError> {
    let target = state.open(&mut body).await?;
    let request = body::work(body, 0, request::read_to_count).await?;
    let conversation = presets::begin(&target, request.conversation);
    let input_tokens = token_count::of_conversation(&target.model, conversation).await?;
    Ok(HttpResponse::Ok().json(TokenCount { input_tokens }))
}
