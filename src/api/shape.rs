//! How one endpoint words an answer.

use serde::Serialize;

use crate::engine::{PrefillProgress, RoutedExperts, TokenLogprob};
use crate::generation::{Completion, FinishReason, Totals};

/// One value serves one response. Choices are told apart by their index.
pub(super) trait Shape: 'static {
    /// The body of an answer that is not streamed.
    type Whole: Serialize;
    /// The payload of one event of a stream.
    type Chunk: Serialize;

    /// Another model answers: its name stands in the answer. Comes first, if it comes.
    fn served_by(&mut self, model: &str);

    /// The complete answer.
    fn whole(&self, completion: Completion) -> Self::Whole;

    /// What opens a choice in a stream, if anything does.
    fn opening(&self, choice: usize) -> Option<Self::Chunk> {
        let _ = choice;
        None
    }

    /// New text in a stream. For one choice, chunks must differ in nothing but the text.
    fn content(&self, choice: usize, text: &str) -> Self::Chunk;

    /// New text in a stream, with how likely its tokens were.
    fn content_with_logprobs(&self, choice: usize, text: &str, logprobs: &[TokenLogprob]) -> Self::Chunk {
        let _ = logprobs;
        self.content(choice, text)
    }

    /// New thoughts in a stream, where the endpoint has a place for them; the rule of `content` holds.
    fn reasoning(&self, choice: usize, text: &str) -> Option<Self::Chunk> {
        let _ = (choice, text);
        None
    }

    /// A call begins.
    fn tool_call_start(&self, choice: usize, index: usize, id: String, name: String) -> Option<Self::Chunk> {
        let _ = (choice, index, id, name);
        None
    }

    /// More of a call's arguments.
    fn tool_call_arguments(&self, choice: usize, index: usize, text: String) -> Option<Self::Chunk> {
        let _ = (choice, index, text);
        None
    }

    /// Who computed the choice, where the endpoint has a place for it.
    fn routed_experts(&self, choice: usize, routed: RoutedExperts) -> Option<Self::Chunk> {
        let _ = (choice, routed);
        None
    }

    /// Progress of the prefill, in a stream that asked for it.
    fn progress(&self, progress: &PrefillProgress) -> Self::Chunk;

    /// The end of a choice, in one chunk or more; `totals` come with the last one.
    fn finished(&self, choice: usize, reason: &FinishReason, totals: Option<Totals>) -> Vec<Self::Chunk>;
}
