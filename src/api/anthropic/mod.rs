//! Anthropic's Messages API, as its SDKs use it.

mod content;
mod count_tokens;
mod error;
mod messages;
mod request;
mod translation;
mod wire;

use actix_web::web::ServiceConfig;

pub(super) use error::reword;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    messages::routes(config);
    count_tokens::routes(config);
}
