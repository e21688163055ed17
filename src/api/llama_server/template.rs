//! `POST /apply-template`: the prompt that a conversation becomes.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::LlamaError;
use crate::api::body::Body;
use crate::api::openai::conversation;
use crate::api::presets;
use crate::api::requests::ApplyTemplateRequest;
use crate::api::state::State;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/apply-template", post().to(apply));
}

#[derive(Debug, Serialize, ToSchema)]
struct Applied {
    prompt: String,
}

/// Renders a conversation with the model's template.
#[utoipa::path(
    post,
    path = "/apply-template",
    request_body(content = ApplyTemplateRequest, example = json!({"messages": [{"role": "user", "content": "Hello"}]})),
    responses((status = 200, description = "The prompt.", body = Applied))
)]
pub(super) async fn apply(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let mut body = body?;
    let target = state.open(&mut body).await?;
    let conversation = presets::begin(&target, conversation::read(body).await?);
    let prompt = target.model.chat.render(conversation).await?;
    Ok(HttpResponse::Ok().json(Applied { prompt }))
}
