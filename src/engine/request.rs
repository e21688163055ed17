//! What a client asks of an engine.

use std::sync::Arc;

use super::Sampling;
pub use crate::grammar::Trigger;

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
    /// Where messages begin in the prompt: the next one is likely to share what is before.
    pub borders: Vec<Border>,
    /// Print control tokens (such as `<|im_end|>`) as text.
    pub special: bool,
    /// Control tokens that are printed as text even so: the parser of the answer needs them.
    pub preserved: Vec<Token>,
    /// Send [`super::Event::Progress`] during prefill.
    pub progress: bool,
    /// What the answer must look like.
    pub grammar: Option<Grammar>,
    /// Send with each token how likely it was, and so many of the likeliest tokens beside it.
    pub logprobs: Option<u32>,
    /// Send at the end which experts computed each token. For models with an expert cache; at most
    /// [`super::MAX_ROUTED_TOKENS`] are generated then.
    pub routed_experts: bool,
    /// How long the answer may think.
    pub reasoning_budget: Option<ReasoningBudget>,
}

/// The tokens with which messages of a role begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Border {
    pub tokens: Vec<Token>,
    /// Of the user's role.
    pub of_user: bool,
}

impl Border {
    /// Whether these tokens begin with a message of the role.
    #[must_use]
    pub fn begins(&self, tokens: &[Token]) -> bool {
        !self.tokens.is_empty() && tokens.starts_with(&self.tokens)
    }
}

/// A grammar that an answer keeps to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grammar {
    /// In llama.cpp's GBNF; the rule `root` is the answer.
    pub text: Arc<str>,
    /// `None`: the grammar holds from the first token. Otherwise from where one of these comes (lazy).
    pub triggers: Option<Vec<Trigger>>,
    /// The end of the prompt that the grammar covers before the answer begins; mostly empty.
    pub prefix: Arc<str>,
}

impl Grammar {
    /// A grammar that holds from the first token of the answer.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self {
            text: text.into(),
            triggers: None,
            prefix: "".into(),
        }
    }
}

/// A bound for the tokens of an answer between two sequences, usually `<think>` and `</think>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasoningBudget {
    /// What opens the thought; not empty.
    pub start: Vec<Token>,
    /// What closes it; forced when the budget is used up. Not empty.
    pub end: Vec<Token>,
    /// Tokens of thought.
    pub budget: u32,
    /// The prompt ends inside a thought.
    pub already_open: bool,
}

impl GenerateRequest {
    /// A request with nothing special about it: its answer may be as long as the context, and what the slot holds is
    /// reused.
    #[must_use]
    pub fn new(prompt: Prompt, sampling: Sampling) -> Self {
        Self {
            prompt,
            sampling,
            max_tokens: None,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            cache_prompt: true,
            borders: Vec::new(),
            special: false,
            preserved: Vec::new(),
            progress: false,
            grammar: None,
            logprobs: None,
            routed_experts: false,
            reasoning_budget: None,
        }
    }
}
