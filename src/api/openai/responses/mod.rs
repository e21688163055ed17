//! OpenAI's Responses: conversations that the server may remember.
//!
//! A request is read (`request`, `input`), opened (`create`), and its output translated (`answer`) into a `wire` response and
//! the events that build it up, which go to one answer, to server-sent events, or to a WebSocket (`socket`). What shall be
//! found again by its id is in the `store`.

mod answer;
mod create;
mod described;
mod input;
mod input_tokens;
mod request;
mod socket;
mod store;
mod stored;
mod tools;
mod truncation;
mod wire;

use actix_web::web::ServiceConfig;
use utoipa::OpenApi;

pub(in crate::api) use store::Store;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    create::routes(config);
    socket::routes(config);
    // Before what could be an id.
    input_tokens::routes(config);
    stored::routes(config);
}

#[derive(OpenApi)]
#[openapi(
    paths(
        create::create,
        socket::connect,
        input_tokens::count,
        stored::retrieve,
        stored::forget,
        stored::input_items
    ),
    components(schemas(stored::Order))
)]
struct Docs;

/// The description of these resources.
pub(super) fn docs() -> utoipa::openapi::OpenApi {
    Docs::openapi()
}
