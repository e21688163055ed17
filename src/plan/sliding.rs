//! Which layers see only a window of the context.

use crate::gguf::{Geometry, Gguf, Value};

/// Architectures with sliding windows: one in so many layers sees everything, which comes last or first of them
/// (`load_swa_pattern` in llama.cpp's `src/models/*.cpp`). Others ignore a window that their file gives.
const PATTERNS: [(&str, u64, bool); 14] = [
    ("afmoe", 4, false),
    ("cohere2", 4, false),
    ("cohere2moe", 4, true),
    ("exaone-moe", 4, false),
    ("exaone4", 4, false),
    ("gemma2", 2, false),
    ("gemma3", 6, false),
    ("gemma3n", 5, false),
    ("gpt-oss", 2, false),
    ("laguna", 4, true),
    ("mellum", 4, false),
    ("olmo2", 4, false),
    ("plamo3", 8, false),
    ("smallthinker", 4, true),
];

/// For each layer whether it has a window; all false for architectures without.
pub(super) fn layers(gguf: &Gguf, geometry: &Geometry) -> Vec<bool> {
    let layers = 0..u64::from(geometry.layers);
    let known = PATTERNS.iter().find(|(name, ..)| *name == geometry.architecture);
    let (Some((_, pattern, dense_first)), Some(_)) = (known, geometry.sliding_window) else {
        return layers.map(|_| false).collect();
    };
    let key = format!("{}.attention.sliding_window_pattern", geometry.architecture);
    let pattern = match gguf.get(&key) {
        Some(Value::Array(each)) => {
            return each
                .iter()
                .map(|value| matches!(value, Value::Bool(true)) || value.as_u64().is_some_and(|number| number > 0))
                .collect();
        }
        Some(value) => value.as_u64().unwrap_or(*pattern),
        None => *pattern,
    };
    let full = if *dense_first { 0 } else { pattern.saturating_sub(1) };
    layers.map(|layer| pattern == 0 || layer % pattern != full).collect()
}
