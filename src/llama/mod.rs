//! llama.cpp beyond the safe interface of the crate `llama-cpp-2`.

pub(crate) mod attention;
pub mod chat;
pub(crate) mod cpu;
pub mod log;
#[cfg(feature = "dynamic-backends")]
pub(crate) mod modules;
pub mod mtp;
pub mod openmp;
pub(crate) mod outputs;
pub mod quantize;
