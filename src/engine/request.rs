//! What a client asks of an engine.

use super::Sampling;

/// A token id: an index into the model's vocabulary.
pub type Token = i32;

/// What the model continues.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Text to be tokenized by the engine. `add_special` adds BOS as the model is configured to; templates that
    /// were rendered already contain theirs. Control tokens in the text are always parsed.
    Text { text: String, add_special: bool },
    /// Ready tokens; each is checked against the vocabulary.
    Tokens(Vec<Token>),
}

/// One generation, ready to be queued.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    pub prompt: Prompt,
    pub sampling: Sampling,
    /// Upper bound of generated tokens. `None`: as many as the context holds.
    pub max_tokens: Option<u32>,
    /// The answer ends before the first of these texts; they are not part of it.
    pub stop: Vec<String>,
    /// The answer ends with any of these tokens, in addition to the model's own end tokens.
    pub stop_tokens: Vec<Token>,
    /// Go on after the model's end-of-generation tokens.
    pub ignore_eos: bool,
    /// Reuse what the slot still holds of an earlier prompt, and leave this one there for the next.
    pub cache_prompt: bool,
    /// Print control tokens (such as `<|im_end|>`) as text.
    pub special: bool,
    /// Send [`super::Event::Progress`] during prefill.
    pub progress: bool,
}
