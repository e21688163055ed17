//! Bindings to llama.cpp beyond those of the crate `llama-cpp-2`.

pub(crate) mod cpu;
#[cfg(feature = "dynamic-backends")]
pub(crate) mod modules;
