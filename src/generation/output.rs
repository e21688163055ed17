//! What a generation produces, piece by piece or as a whole.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, Stream};

use super::conversation::ToolCall;
use super::error::GenerationError;
use crate::engine::{self, PrefillProgress, RoutedExperts, Timings, Token, TokenLogprob, Usage};

/// A piece of one choice of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Index of the choice.
    pub choice: usize,
    pub piece: Piece,
    /// Tokens that the model has generated for the choice since its last piece; some may be told only with the next pieces.
    pub tokens: u32,
}

/// For each choice: any number of `Progress`, then reasoning, content and calls in the order in which the model wrote
/// them, then one `Finished`. Texts are never empty and never end within a character.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Prefill goes on; only sent when the request asked for it.
    Progress(PrefillProgress),
    /// What the model thinks before it answers.
    Reasoning { text: String },
    /// New text for the user.
    Content {
        text: String,
        /// The tokens of the text, where the text is as the model wrote it; else empty.
        tokens: Vec<Token>,
        /// How likely the tokens of the text were; empty unless the request asked for it. A token that is part of two
        /// texts comes with the first.
        logprobs: Vec<TokenLogprob>,
    },
    /// A call begins. Calls are numbered from 0 in the order of their first piece.
    ToolCallStart { index: usize, id: String, name: String },
    /// More of a call's arguments, which are JSON text as a whole.
    ToolCallArguments { index: usize, text: String },
    /// Who computed the choice, where the request asked for it; somewhere near the end.
    RoutedExperts(RoutedExperts),
    /// The choice is complete.
    Finished {
        reason: FinishReason,
        /// With the choice that ends last: what all of them took.
        totals: Option<Totals>,
    },
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model's own end-of-generation token, or one of the request's stop tokens.
    EndOfText,
    /// One of the request's stop strings.
    StopString(String),
    /// `max_tokens` is reached or the context is full.
    Length,
    /// The model ended its answer after it had called tools.
    ToolCalls,
}

impl From<engine::FinishReason> for FinishReason {
    fn from(reason: engine::FinishReason) -> Self {
        match reason {
            engine::FinishReason::EndOfText => Self::EndOfText,
            engine::FinishReason::StopString(stop) => Self::StopString(stop),
            engine::FinishReason::Length => Self::Length,
        }
    }
}

/// What an answer took, all choices together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Sums over the choices.
    pub usage: Usage,
    /// Of the completion tokens, those of reasoning.
    pub reasoning_tokens: u32,
    /// Of the choice that took longest; choices are generated at the same time.
    pub timings: Timings,
}

/// The pieces of one answer. Dropping it ends the generation.
///
/// The stream ends after an error, and after the [`Piece::Finished`] that has [`Totals`].
pub struct OutputStream {
    /// What was looked at.
    first: Option<Output>,
    rest: BoxStream<'static, Result<Output, GenerationError>>,
    served_by: Option<Arc<str>>,
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// By their index.
    pub choices: Vec<Choice>,
    pub totals: Totals,
}

/// One of the answers of a [`Completion`].
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Empty where the model did not think.
    pub reasoning: String,
    pub content: String,
    /// How likely the tokens of the content were; empty unless the request asked for it.
    pub logprobs: Vec<TokenLogprob>,
    pub tool_calls: Vec<ToolCall>,
    /// Who computed it; `None` unless the request asked for it.
    pub routed_experts: Option<RoutedExperts>,
    pub reason: FinishReason,
}

impl OutputStream {
    /// Wraps what a backend produces.
    pub fn new(outputs: impl Stream<Item = Result<Output, GenerationError>> + Send + 'static) -> Self {
        Self {
            first: None,
            rest: outputs.boxed(),
            served_by: None,
        }
    }

    /// Waits for the first piece, which stays the next one.
    ///
    /// # Errors
    /// When the answer breaks off before it.
    ///
    /// # Cancel safety
    /// Dropping the future ends the generation.
    pub(super) async fn begun(mut self) -> Result<Self, GenerationError> {
        if self.first.is_none() {
            self.first = Some(self.rest.next().await.unwrap_or(Err(GenerationError::Unfinished))?);
        }
        Ok(self)
    }

    /// The same, from a model that stands in for another. The one that computes it counts, where several stand in.
    #[must_use]
    pub(super) fn served_by(mut self, model: &str) -> Self {
        self.served_by.get_or_insert_with(|| model.into());
        self
    }

    /// The model that answers in the place of the one that was asked.
    #[must_use]
    pub fn substitute(&self) -> Option<Arc<str>> {
        self.served_by.clone()
    }

    /// The next piece; `None` when the answer has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Output, GenerationError>> {
        match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => self.rest.next().await,
        }
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// When the answer breaks off.
    ///
    /// # Cancel safety
    /// Dropping the future ends the generation.
    pub async fn collect(mut self) -> Result<Completion, GenerationError> {
        let mut drafts: Vec<Draft> = Vec::new();
        while let Some(output) = self.next().await {
            let Output { choice, piece, .. } = output?;
            if drafts.len() <= choice {
                drafts.resize_with(choice + 1, Draft::default);
            }
            if let Some(totals) = drafts[choice].take(piece) {
                let choices = drafts.into_iter().map(Draft::complete);
                return Ok(Completion {
                    choices: choices.collect::<Result<_, GenerationError>>()?,
                    totals,
                });
            }
        }
        Err(GenerationError::Unfinished)
    }
}

/// A choice whose end has not come yet.
#[derive(Default)]
struct Draft {
    reasoning: String,
    content: String,
    logprobs: Vec<TokenLogprob>,
    tool_calls: Vec<ToolCall>,
    routed_experts: Option<RoutedExperts>,
    reason: Option<FinishReason>,
}

impl Draft {
    /// Adds a piece; returns the totals that the last one brings.
    fn take(&mut self, piece: Piece) -> Option<Totals> {
        match piece {
            Piece::Progress(_) => {}
            Piece::Reasoning { text } => append(&mut self.reasoning, text),
            Piece::Content { text, logprobs, .. } => {
                append(&mut self.content, text);
                self.logprobs.extend(logprobs);
            }
            Piece::ToolCallStart { id, name, .. } => self.tool_calls.push(ToolCall {
                id,
                name,
                arguments: String::new(),
            }),
            Piece::ToolCallArguments { index, text } => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    append(&mut call.arguments, text);
                }
            }
            Piece::RoutedExperts(routed) => self.routed_experts = Some(routed),
            Piece::Finished { reason, totals } => {
                self.reason = Some(reason);
                return totals;
            }
        }
        None
    }

    fn complete(self) -> Result<Choice, GenerationError> {
        Ok(Choice {
            reasoning: self.reasoning,
            content: self.content,
            logprobs: self.logprobs,
            tool_calls: self.tool_calls,
            routed_experts: self.routed_experts,
            reason: self.reason.ok_or(GenerationError::Unfinished)?,
        })
    }
}

/// Many answers come in one piece, which need not be copied.
fn append(text: &mut String, more: String) {
    if text.is_empty() {
        *text = more;
    } else {
        text.push_str(&more);
    }
}

impl std::fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputStream").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};

    use super::*;

    #[test]
    fn pieces_become_a_whole() {
        let pieces = [
            Piece::Reasoning { text: "so ".into() },
            Piece::Reasoning { text: "what".into() },
            Piece::Content {
                text: "yes".into(),
                tokens: vec![7],
                logprobs: Vec::new(),
            },
            Piece::ToolCallStart {
                index: 0,
                id: "a".into(),
                name: "f".into(),
            },
            Piece::ToolCallArguments {
                index: 0,
                text: "{\"x\":".into(),
            },
            Piece::ToolCallStart {
                index: 1,
                id: "b".into(),
                name: "g".into(),
            },
            Piece::ToolCallArguments {
                index: 0,
                text: "1}".into(),
            },
            Piece::Finished {
                reason: FinishReason::ToolCalls,
                totals: Some(Totals::default()),
            },
        ];
        let outputs = stream::iter(pieces.map(|piece| {
            Ok(Output {
                choice: 0,
                piece,
                tokens: 0,
            })
        }));
        let completion = OutputStream::new(outputs).collect().now_or_never().unwrap().unwrap();
        let call = |id: &str, name: &str, arguments: &str| ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
        };
        let expect = Choice {
            reasoning: "so what".into(),
            content: "yes".into(),
            logprobs: Vec::new(),
            tool_calls: vec![call("a", "f", "{\"x\":1}"), call("b", "g", "")],
            routed_experts: None,
            reason: FinishReason::ToolCalls,
        };
        assert_eq!(completion.choices, [expect]);
    }
}
