//! The HTTP layer over a scripted engine: what a real one shows too rarely, or at moments that a test cannot choose.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod answers;
mod anthropic;
mod bodies;
mod errors;
mod events;
mod keys;
mod leaving;
mod llama_server;
mod openapi;
mod page;
mod presets;
mod requests;
mod responses;
mod responses_socket;
mod scripted;
mod server;
mod socket;
mod tls;
mod tokens;
