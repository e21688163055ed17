//! HTTP: listeners, routes, wire types. One folder per family of endpoints, one file per resource.
//!
//! A handler translates wire types into the requests of [`crate::generation`] and its output into the endpoint's
//! [`shape::Shape`]; it decides nothing. Every resource has a `routes` function, and every folder one that lists them.

mod access;
mod admin;
mod anthropic;
mod body;
mod cors;
mod described;
mod docs;
mod error;
mod events;
mod format;
mod gate;
mod keys;
mod limits;
mod llama_server;
mod meter;
mod middleware;
mod native;
mod observed;
mod openai;
mod other_fields;
mod page;
mod parameters;
mod presets;
mod prompts;
mod requests;
mod respond;
mod routing;
mod server;
mod shape;
mod socket;
mod state;
mod stream;
mod tls;
mod token_count;
mod vectors;
mod wire;

use actix_web::web::ServiceConfig;

pub use keys::Keys;
pub use server::{Bound, bind};
pub use state::{Configuration, State};
pub use stream::chunk as sse_chunk;
pub use tls::Tls;

/// All resources.
fn routes(config: &mut ServiceConfig) {
    openai::routes(config);
    anthropic::routes(config);
    native::routes(config);
    llama_server::routes(config);
    admin::routes(config);
    docs::routes(config);
    page::routes(config);
}
