//! For the targets in `fuzz/`: answers are read as a server reads them, but without an engine and without pauses.

use super::conversation::Conversation;
use super::error::GenerationError;
use super::output::Piece;
use super::reader::Reader;
use super::request::OutputFormat;
use super::template::{Prepared, Templates};
use crate::engine::ModelInfo;

/// What reads the answers to a conversation.
pub struct Answers(Prepared);

impl Answers {
    /// Renders the conversation.
    ///
    /// # Errors
    /// When the conversation is refused, or the template cannot be rendered.
    pub async fn new(
        info: &ModelInfo,
        conversation: Conversation,
        format: &OutputFormat,
    ) -> Result<Self, GenerationError> {
        Templates::new(info).prepare(info, conversation, format).await.map(Self)
    }

    /// What becomes of an answer that comes in these parts, and is parsed after each `every`th; with `cut` it is not complete.
    ///
    /// Parses, so it needs a large stack: see [`crate::llama::chat::run`].
    #[must_use]
    pub fn read(&self, parts: &[String], every: usize, cut: bool) -> Vec<Piece> {
        let Self(Prepared { parser, form, .. }) = self;
        let mut reader = Reader::new(form.clone());
        let mut pieces = Vec::new();
        for (index, part) in (1..).zip(parts) {
            reader.push(part, 1, Vec::new());
            if index % every.max(1) == 0
                && let Some(job) = reader.job()
            {
                let result = parser.parse(&job.text, job.partial);
                reader.parsed(&job, result);
            }
            pieces.extend(std::iter::from_fn(|| reader.take()));
        }
        if let Some(job) = reader.last_job(cut) {
            let result = parser.parse(&job.text, job.partial);
            if let Some(again) = reader.parsed_last(job, result) {
                let result = parser.parse(&again.text, again.partial);
                reader.parsed_malformed(&again, result);
            }
        }
        pieces.extend(std::iter::from_fn(|| reader.take()));
        pieces
    }
}
