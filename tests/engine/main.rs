//! What the engine does for single requests, seen through the real server with the built-in pair.
#![cfg(feature = "demo")]

#[path = "../common/mod.rs"]
mod common;

mod choices;
mod embeddings;
mod grammar;
mod logprobs;
mod tokens;
