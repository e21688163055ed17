//! The HTTP layer over a scripted engine: what a real one shows too rarely, or at moments that a test cannot choose.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod answers;
mod bodies;
mod errors;
mod leaving;
mod openapi;
mod presets;
mod requests;
mod scripted;
mod server;
mod socket;
mod tokens;
