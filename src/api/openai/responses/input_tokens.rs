//! `POST /v1/responses/input_tokens`: how long the prompt of a request is.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use schemars::JsonSchema;
use serde::Serialize;

use super::create;
use super::store::Store;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::state::State;
use crate::api::token_count;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/responses/input_tokens", post().to(count));
}

#[derive(Debug, Serialize, JsonSchema)]
struct InputTokens {
    /// `response.input_tokens`.
    object: &'static str,
    input_tokens: usize,
}

async fn count(state: Data<State>, store: Data<Store>, body: Body) -> Result<HttpResponse, ApiError> {
    let request = create::read(&store, None, body).await?;
    let served = state.resolve(request.parameters.model.as_deref())?;
    Ok(HttpResponse::Ok().json(InputTokens {
        object: "response.input_tokens",
        input_tokens: token_count::of_conversation(served, request.conversation).await?,
    }))
}
