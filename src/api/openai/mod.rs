//! OpenAI's endpoints, as its SDKs use them.

mod chat_completions;
mod completions;
pub(super) mod conversation;
mod models;
pub(super) mod responses;
pub(super) mod tools;

use actix_web::web::ServiceConfig;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    chat_completions::routes(config);
    completions::routes(config);
    models::routes(config);
    responses::routes(config);
}
