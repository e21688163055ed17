//! The built-in pair: two tiny models that ship inside the binary.

/// A built-in model, written `demo:reasoner` or `demo:narrator` in `models.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DemoModel {
    /// Architecture `qwen3next`: reasons and calls tools.
    Reasoner,
    /// Architecture `llama` in Mistral-Nemo's shape: narrates.
    Narrator,
}
