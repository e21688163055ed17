//! The backend that caches experts: the same logits as without it, whatever has a copy.
//!
//! The same tokens are put through the same model, in the same batches, with a cache and without. In one sequence on the
//! CPU not a bit may differ. Elsewhere kernels differ by what is computed together, and by how they round.

#[path = "../common/cached.rs"]
mod cached;
#[path = "../common/mod.rs"]
mod common;

mod compare;
mod logits;
mod passes;
#[cfg(feature = "demo")]
mod prompts;
mod quantizations;
#[cfg(feature = "demo")]
mod texts;
