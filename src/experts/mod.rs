//! Experts that are used often stay on a fast device, the others are computed where they lie.
//!
//! `plugin` is a ggml backend of our own, registered beside llama.cpp's: it owns the weights of routed experts in main
//! memory, recognises the nodes that compute an expert block, and computes the experts that have a copy on the cache
//! device there, the others on the CPU. It is the only part with unsafe code, and nothing here depends on it but the entry
//! point.
//!
//! `cache` is what one model's contexts share, `layer` one layer of it, `uploader` the thread that copies. Who has a copy is
//! decided by plain data: `residency` says which expert is in which entry, `policy` which should be, `selection` which
//! entries a batch is computed with, `heat` remembers over restarts, `trace` and `simulate` record and replay. `handover` is
//! where threads meet, `work` counts what blocks cost.

mod cache;
mod handover;
pub mod heat;
mod layer;
mod plugin;
pub mod policy;
mod recorder;
pub mod residency;
mod routing;
pub mod selection;
mod settings;
pub mod simulate;
mod stats;
mod tensors;
pub mod trace;
mod uploader;
mod work;

pub use cache::ExpertCache;
pub use plugin::{PluginError, load_with};
pub use routing::Routing;
pub use selection::{MAX_BLOCK_TOKENS, MAX_QUEUED_TOKENS};
pub use settings::{CacheConfig, Capacity, Change, ChangeError, Device};
pub use stats::{ExpertStats, LayerStats, entropy};
pub use tensors::in_main_memory;
pub use trace::Phase;
pub use work::{Part, PhaseTimes, WorkCounts};
