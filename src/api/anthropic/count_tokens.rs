//! `POST /v1/messages/count_tokens`: how long the prompt of a conversation is.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use schemars::JsonSchema;
use serde::Serialize;

use super::request;
use crate::api::body::{self, Body};
use crate::api::error::ApiError;
use crate::api::state::State;
use crate::api::token_count;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/messages/count_tokens", post().to(count));
}

#[derive(Debug, Serialize, JsonSchema)]
struct TokenCount {
    input_tokens: usize,
}

async fn count(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let request = body::work(body, 0, request::read_to_count).await?;
    let served = state.resolve(request.parameters.model.as_deref())?;
    let input_tokens = token_count::of_conversation(served, request.conversation).await?;
    Ok(HttpResponse::Ok().json(TokenCount { input_tokens }))
}
