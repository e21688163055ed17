//! `POST /v1/responses/input_tokens`: how long the prompt of a request is.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::request;
use super::store::Store;
use crate::api::body::{self, Body};
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
    let chain = match body.field("previous_response_id") {
        Value::String(id) => store.chain(id, None)?,
        // What is not a string is refused when it is read.
        _ => Vec::new(),
    };
    let more = chain.iter().map(|stored| stored.bytes()).sum();
    let request = body::work(body, more, move |body| request::read(body, &chain)).await?;
    let served = state.resolve(request.parameters.model.as_deref())?;
    Ok(HttpResponse::Ok().json(InputTokens {
        object: "response.input_tokens",
        input_tokens: token_count::of_conversation(served, request.conversation).await?,
    }))
}
