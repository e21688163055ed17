//! `POST /apply-template`: the prompt that a conversation becomes.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde_json::json;

use super::body::Body;
use super::chat_completions::render;
use super::error::ApiError;
use super::state::State;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/apply-template", post().to(apply));
}

async fn apply(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let served = state.resolve(body.model()?)?.clone();
    Ok(HttpResponse::Ok().json(json!({"prompt": render(served, body).await?})))
}
