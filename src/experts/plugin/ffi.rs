//! ggml's plug-in interface, as bindgen reads it from the pinned crate's header; see `build.rs`.
#![allow(unsafe_code, clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks)]
#![allow(
    dead_code,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    missing_docs,
    clashing_extern_declarations
)]

include!(concat!(env!("OUT_DIR"), "/ggml.rs"));
