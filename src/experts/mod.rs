//! Experts that are used often stay on a fast device, the others are computed where they lie.
//!
//! `plugin` is a ggml backend of our own, registered beside llama.cpp's: it owns the weights of routed experts in main
//! memory, recognises the nodes that compute an expert block, and computes the experts that have a copy on the cache
//! device there, the others on the CPU. `cache` is what one model's contexts share. Who has a copy is decided by plain
//! data: `residency` says who is in which slot, `policy` who should be, `heat` remembers over restarts, `trace` and
//! `simulate` record and replay. `handover` is where threads meet.

mod cache;
mod handover;
pub mod heat;
mod plugin;
pub mod policy;
mod recorder;
pub mod residency;
mod settings;
pub mod simulate;
mod stats;
pub mod trace;

pub use cache::ExpertCache;
pub use plugin::load_with;
pub use settings::{CacheConfig, Change, Device, Slots, Step};
pub use stats::{ExpertStats, LayerStats, entropy};
