//! `POST /v1/messages`.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};

use super::described::MessagesRequest;
use super::request;
use super::translation::Stream;
use super::wire::Message;
use crate::api::body::{self, Body};
use crate::api::described::ServerSentEvent;
use crate::api::error::ApiError;
use crate::api::events;
use crate::api::presets;
use crate::api::respond::served_by;
use crate::api::state::State;
use crate::generation::ChatRequest;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/messages", post().to(create));
}

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages",
    request_body(content = MessagesRequest, example = json!({
        "max_tokens": 64, "messages": [{"role": "user", "content": "Hello!"}]
    })),
    responses((
        status = 200,
        description = "The message; with `stream` events that build it up, from `message_start` to `message_stop`.",
        content((Message = "application/json"), (ServerSentEvent = "text/event-stream"))
    ))
)]
pub(super) async fn create(state: Data<State>, mut body: Body) -> Result<HttpResponse, ApiError> {
    let target = state.open(&mut body).await?;
    let request = body::work(body, 0, request::read).await?;
    let parameters = request.parameters;
    let mut options = parameters.options()?;
    // There is no `n` in this API.
    options.choices = 1;
    // The first event tells how long the prompt is.
    options.progress = parameters.streams();
    let request = ChatRequest {
        options,
        conversation: presets::begin(&target, request.conversation),
    };
    let outputs = target.chat().chat(request).await?;
    let substitute = outputs.substitute();
    let name = substitute.as_deref().unwrap_or(target.name());
    let response = if parameters.streams() {
        events::sse(outputs, Stream::new(name))
    } else {
        let completion = outputs.collect().await?;
        HttpResponse::Ok().json(Message::new(name).complete(completion))
    };
    Ok(served_by(substitute.as_deref(), response))
}
