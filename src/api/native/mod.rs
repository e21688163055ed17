//! Endpoints of hearth: texts, memory, experts.

mod experts;
mod generate;
mod memory;

use actix_web::web::ServiceConfig;

/// The resources of this folder: one line each.
pub(super) fn routes(config: &mut ServiceConfig) {
    experts::routes(config);
    generate::routes(config);
    memory::routes(config);
}
