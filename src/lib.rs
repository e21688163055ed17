//! Hearth serves large mixture-of-experts language models from one ordinary machine.
//!
//! The library holds everything; `src/main.rs` only maps the outcome to an exit code. The modules and the
//! direction of dependencies between them are described in `ARCHITECTURE.md`.

mod acceptance;
pub mod api;
pub mod build_info;
pub mod cli;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod engine;
pub mod experts;
mod files;
pub mod fingerprint;
pub mod folders;
pub mod generation;
pub mod gguf;
pub mod grammar;
pub mod host;
pub mod hub;
pub mod llama;
pub mod memory;
pub mod models;
pub mod plan;
pub mod pooling;
mod renamed;
pub mod report;
pub mod sampling;
pub mod synthetic;
pub mod telemetry;
pub mod upstream;
