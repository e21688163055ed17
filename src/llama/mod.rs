//! llama.cpp beyond the crate's safe interface.

pub mod log;
pub mod openmp;
