//! `POST /v1/responses/input_tokens`: how long the prompt of a request is.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::Serialize;
use utoipa::ToSchema;

use super::create;
use super::described::ResponsesRequest;
use super::store::Store;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::presets;
use crate::api::state::State;
use crate::api::token_count;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/responses/input_tokens", post().to(count));
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InputTokens {
    /// `response.input_tokens`.
    object: &'static str,
    input_tokens: usize,
}

/// Counts the tokens of a prompt.
#[utoipa::path(
    post,
    path = "/v1/responses/input_tokens",
    request_body(content = ResponsesRequest, example = json!({"input": "Hello!"})),
    responses((status = 200, description = "How long the prompt of the request is.", body = InputTokens))
)]
pub(super) async fn count(state: Data<State>, store: Data<Store>, mut body: Body) -> Result<HttpResponse, ApiError> {
    let target = state.open(&mut body).await?;
    let request = create::read(&store, None, body).await?;
    let conversation = presets::begin(&target, request.conversation);
    Ok(HttpResponse::Ok().json(InputTokens {
        object: "response.input_tokens",
        input_tokens: token_count::of_conversation(&target.model, conversation).await?,
    }))
}
