//! Experts that are used often stay on a fast device, the others are computed where they lie.
//!
//! `plugin` is a ggml backend of our own, registered beside llama.cpp's: it owns the weights of routed experts in main
//! memory, recognises the nodes that compute an expert block, and computes the experts that have a copy on the cache
//! device there, the others on the CPU. `layer` decides which experts have a copy.

pub mod layer;
mod plugin;

pub use plugin::{ExpertCache, load_with};
