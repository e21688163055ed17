//! ggml's plug-in interface, as bindgen reads it from the pinned crate's header; see `build.rs`.
//!
//! Generated code: what it looks like depends on the version of libclang, and no lint applies.
#![allow(
    unsafe_code,
    warnings,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::cast_possible_truncation
)]

include!(concat!(env!("OUT_DIR"), "/ggml.rs"));
