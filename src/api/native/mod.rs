//! Endpoints of hearth: texts, memory, experts.

mod experts;
mod generate;
mod memory;
mod socket;

use actix_web::web::ServiceConfig;
use utoipa::OpenApi;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    experts::routes(config);
    generate::routes(config);
    memory::routes(config);
    socket::routes(config);
}

#[derive(OpenApi)]
#[openapi(
    paths(generate::generate, socket::open, experts::stats, experts::change, memory::memory),
    components(schemas(generate::Event, socket::Event))
)]
struct Docs;

/// The description of these resources.
pub(super) fn docs() -> utoipa::openapi::OpenApi {
    Docs::openapi()
}
