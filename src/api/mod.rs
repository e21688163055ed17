//! HTTP: wire types and routes, one file per resource.
//!
//! Every resource has a `routes` function; the table in [`routes`] lists them, one line each.

mod answer;
mod body;
mod chat_completions;
mod completions;
mod error;
mod experts;
mod generate;
mod health;
mod limits;
mod live;
mod memory;
mod messages;
mod metrics;
mod models;
mod request;
mod server;
mod state;
mod stream;
mod template;
mod tokens;

use actix_web::web::ServiceConfig;

pub use server::{Bound, bind};
pub use state::State;
pub use stream::chunk as sse_chunk;

/// All resources: one line each.
fn routes(config: &mut ServiceConfig) {
    chat_completions::routes(config);
    completions::routes(config);
    experts::routes(config);
    generate::routes(config);
    health::routes(config);
    memory::routes(config);
    metrics::routes(config);
    models::routes(config);
    template::routes(config);
    tokens::routes(config);
}
