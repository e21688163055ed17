//! `POST /v1/responses`.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde_json::Value;

use super::answer::Answer;
use super::described::ResponsesRequest;
use super::request::{self, Request};
use super::store::{Store, Stored};
use super::truncation;
use super::wire::Response;
use crate::api::body::{self, Body};
use crate::api::described::ServerSentEvent;
use crate::api::error::ApiError;
use crate::api::events;
use crate::api::presets;
use crate::api::respond::served_by;
use crate::api::state::State;
use crate::generation::{ChatRequest, OutputStream};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/responses", post().to(create));
}

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/responses",
    request_body(content = ResponsesRequest, example = json!({"input": "Hello!", "max_output_tokens": 64})),
    responses((
        status = 200,
        description = "The response; with `stream` events that build it up, from `response.created` to `response.completed`, \
                       `response.incomplete` or `response.failed`.",
        content((Response = "application/json"), (ServerSentEvent = "text/event-stream"))
    ))
)]
pub(super) async fn create(state: Data<State>, store: Data<Store>, body: Body) -> Result<HttpResponse, ApiError> {
    let opened = open(&state, store.into_inner(), None, body).await?;
    let Opened {
        outputs,
        mut answer,
        streams,
    } = opened;
    let substitute = outputs.substitute();
    let response = if streams {
        events::sse(outputs, answer)
    } else {
        events::collect(outputs, &mut answer).await?;
        HttpResponse::Ok().json(&answer.response)
    };
    Ok(served_by(substitute.as_deref(), response))
}

/// An answer that has begun.
pub(super) struct Opened {
    pub(super) outputs: OutputStream,
    pub(super) answer: Answer,
    streams: bool,
}

/// Reads a request together with what it continues and refers to. `last` is the response that the connection remembers, by its id.
pub(super) async fn read(store: &Store, last: Option<&(String, Arc<Stored>)>, body: Body) -> Result<Request, ApiError> {
    let chain = match body.field("previous_response_id") {
        Value::String(id) => store.chain(id, last)?,
        // What is not a string is refused when it is read.
        _ => Vec::new(),
    };
    let referenced = store.referenced(body.field("input"), last);
    let more = chain.iter().chain(&referenced).map(|stored| stored.bytes()).sum();
    body::work(body, more, move |body| request::read(body, &chain, &referenced)).await
}

/// Begins an answer; `last` as in [`read`].
pub(super) async fn open(
    state: &State,
    store: Arc<Store>,
    last: Option<&(String, Arc<Stored>)>,
    mut body: Body,
) -> Result<Opened, ApiError> {
    let target = state.open(&mut body).await?;
    let request = read(&store, last, body).await?;
    let parameters = request.parameters;
    let truncates = request.settings.truncation == "auto";
    let store = request.settings.store.then_some(store);
    let mut options = parameters.options()?;
    // There is no `n` in this API.
    options.choices = 1;
    let asked = ChatRequest {
        options,
        conversation: presets::begin(&target, request.conversation),
    };
    let outputs = truncation::chat(&**target.chat(), asked, truncates).await?;
    let substitute = outputs.substitute();
    let name = substitute.as_deref().unwrap_or(target.name());
    Ok(Opened {
        outputs,
        answer: Answer::new(Response::new(name, request.settings), request.input, store),
        streams: parameters.streams(),
    })
}
