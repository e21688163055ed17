//! How one endpoint words an answer.

use serde::Serialize;

use crate::engine::{FinishReason, PrefillProgress};
use crate::generation::{Completion, Totals};

/// One value serves one response. Choices are told apart by their index.
pub(super) trait Shape: 'static {
    /// The body of an answer that is not streamed.
    type Whole: Serialize;
    /// The payload of one event of a stream.
    type Chunk: Serialize;

    /// The complete answer.
    fn whole(&self, completion: Completion) -> Self::Whole;

    /// What opens a choice in a stream, if anything does.
    fn opening(&self, choice: usize) -> Option<Self::Chunk> {
        let _ = choice;
        None
    }

    /// New text in a stream. For one choice, chunks must differ in nothing but the text.
    fn content(&self, choice: usize, text: &str) -> Self::Chunk;

    /// Progress of the prefill, in a stream that asked for it.
    fn progress(&self, progress: &PrefillProgress) -> Self::Chunk;

    /// The end of a choice, in one chunk or more; `totals` come with the last one.
    fn finished(&self, choice: usize, reason: &FinishReason, totals: Option<Totals>) -> Vec<Self::Chunk>;
}
