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
#[cfg(all(target_os = "linux", not(feature = "dynamic-backends")))]
pub(crate) mod prompt_attention;
pub mod quantize;
