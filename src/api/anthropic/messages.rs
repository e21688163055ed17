//! `POST /v1/messages`.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};

use super::request;
use super::translation::Stream;
use super::wire::Message;
use crate::api::body::{self, Body};
use crate::api::error::ApiError;
use crate::api::events;
use crate::api::state::State;
use crate::generation::ChatRequest;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/messages", post().to(create));
}

async fn create(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let request = body::work(body, 0, request::read).await?;
    let parameters = request.parameters;
    let served = state.resolve(parameters.model.as_deref())?;
    let mut options = parameters.options()?;
    // The first event tells how long the prompt is.
    options.progress = parameters.streams();
    let request = ChatRequest {
        options,
        conversation: request.conversation,
    };
    let outputs = served.chat.chat(request).await?;
    if parameters.streams() {
        return Ok(events::sse(outputs, Stream::new(served.name())));
    }
    let completion = outputs.collect().await?;
    Ok(HttpResponse::Ok().json(Message::new(served.name()).complete(completion)))
}
