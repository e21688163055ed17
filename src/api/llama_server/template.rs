//! `POST /apply-template`: the prompt that a conversation becomes.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use schemars::JsonSchema;
use serde::Serialize;

use super::error::LlamaError;
use crate::api::body::Body;
use crate::api::openai::conversation;
use crate::api::state::State;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/apply-template", post().to(apply));
}

#[derive(Debug, Serialize, JsonSchema)]
struct Applied {
    prompt: String,
}

async fn apply(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let body = body?;
    let served = state.resolve(body.model()?)?;
    let conversation = conversation::read(body).await?;
    let prompt = served.chat.render(conversation).await?;
    Ok(HttpResponse::Ok().json(Applied { prompt }))
}
