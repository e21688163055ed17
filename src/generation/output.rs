//! What a generation produces, piece by piece or as a whole.

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, Stream};

use super::error::GenerationError;
use crate::engine::{FinishReason, PrefillProgress, Timings, Usage};

/// A piece of an answer. For each choice: any number of `Progress`, any number of `Content`, then one `Finished`.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Prefill goes on; only sent when the request asked for it.
    Progress { choice: usize, progress: PrefillProgress },
    /// New text for the user, never empty and never half a character.
    Content { choice: usize, text: String },
    /// A choice is complete.
    Finished {
        choice: usize,
        reason: FinishReason,
        /// With the choice that ends last: what all of them took.
        totals: Option<Totals>,
    },
}

/// What an answer took, all choices together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Sums over the choices.
    pub usage: Usage,
    /// Of the choice that took longest; choices are generated at the same time.
    pub timings: Timings,
}

/// The pieces of one answer. Dropping it ends the generation.
///
/// The stream ends after an error, and after the [`Output::Finished`] that has [`Totals`].
pub struct OutputStream(BoxStream<'static, Result<Output, GenerationError>>);

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// By their index.
    pub choices: Vec<Choice>,
    pub totals: Totals,
}

/// One of the texts of a [`Completion`].
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    pub content: String,
    pub reason: FinishReason,
}

impl OutputStream {
    /// Wraps what a backend produces.
    pub fn new(outputs: impl Stream<Item = Result<Output, GenerationError>> + Send + 'static) -> Self {
        Self(outputs.boxed())
    }

    /// The next piece; `None` when the answer has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Output, GenerationError>> {
        self.0.next().await
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// When the answer breaks off.
    ///
    /// # Cancel safety
    /// Dropping the future ends the generation.
    pub async fn collect(mut self) -> Result<Completion, GenerationError> {
        let mut texts: Vec<(String, Option<FinishReason>)> = Vec::new();
        while let Some(output) = self.next().await {
            let (choice, new, end) = match output? {
                Output::Progress { .. } => continue,
                Output::Content { choice, text } => (choice, text, None),
                Output::Finished { choice, reason, totals } => (choice, String::new(), Some((reason, totals))),
            };
            if texts.len() <= choice {
                texts.resize(choice + 1, (String::new(), None));
            }
            let (text, finished) = &mut texts[choice];
            if text.is_empty() {
                *text = new;
            } else {
                text.push_str(&new);
            }
            let Some((reason, totals)) = end else { continue };
            *finished = Some(reason);
            if let Some(totals) = totals {
                let choices = texts.into_iter().map(|(content, reason)| {
                    let reason = reason.ok_or(GenerationError::Unfinished)?;
                    Ok(Choice { content, reason })
                });
                return Ok(Completion {
                    choices: choices.collect::<Result<_, GenerationError>>()?,
                    totals,
                });
            }
        }
        Err(GenerationError::Unfinished)
    }
}

impl std::fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputStream").finish_non_exhaustive()
    }
}
