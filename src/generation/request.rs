//! What is asked of a model, beside the conversation or text itself.

use serde_json::Value;

use super::conversation::Conversation;
use crate::engine::{SamplingOverrides, Token};

/// A conversation to be answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatRequest {
    pub conversation: Conversation,
    pub options: Options,
}

/// Texts to be continued.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextRequest {
    /// At least one; each becomes a choice of the answer.
    pub prompts: Vec<TextPrompt>,
    pub options: Options,
}

/// A prompt in pieces; the model reads them as one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextPrompt(pub Vec<Segment>);

/// A piece of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Segment {
    Text(String),
    Tokens(Vec<Token>),
}

impl From<String> for TextPrompt {
    fn from(text: String) -> Self {
        Self(vec![Segment::Text(text)])
    }
}

/// How an answer is generated. What is not set is the model's business.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Put on top of the model's own defaults.
    pub sampling: SamplingOverrides,
    /// Added to the logits before all else; negative infinity bans a token.
    pub logit_bias: Vec<(BiasTarget, f32)>,
    /// An answer ends before the first of these texts; they are not part of it.
    pub stop: Vec<String>,
    /// An answer ends with any of these tokens, in addition to the model's own end tokens.
    pub stop_tokens: Vec<Token>,
    /// Go on after the model's end-of-generation tokens.
    pub ignore_eos: bool,
    /// Reuse what is held of earlier prompts, and keep this one for the next.
    pub cache_prompt: bool,
    /// Print control tokens as text.
    pub special: bool,
    /// Send [`super::Piece::Progress`] during prefill.
    pub progress: bool,
    /// What the answer (behind the reasoning) must look like.
    pub format: OutputFormat,
    /// Choices for each prompt; at least 1.
    pub choices: u32,
    /// Say of each token how likely it was, and so many of the likeliest tokens beside it.
    pub logprobs: Option<u32>,
    /// Tell which experts computed each token.
    pub routed_experts: bool,
}

/// The form of an answer, held by a grammar.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum OutputFormat {
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits a schema. With `strict`, a schema that the grammar would not enforce in full is refused.
    JsonSchema { schema: Value, strict: bool },
    /// A text of this grammar, in llama.cpp's GBNF.
    Grammar(String),
}

/// What a logit bias applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BiasTarget {
    Token(Token),
    /// Every token that the text consists of.
    Text(String),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sampling: SamplingOverrides::default(),
            logit_bias: Vec::new(),
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            cache_prompt: true,
            special: false,
            progress: false,
            format: OutputFormat::Text,
            choices: 1,
            logprobs: None,
            routed_experts: false,
        }
    }
}
