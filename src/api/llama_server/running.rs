//! One answer while it is generated.

use std::time::Instant;

use super::cut::Cut;
use crate::api::meter::Meter;
use crate::engine::{PrefillProgress, Token, TokenLogprob};
use crate::generation::{FinishReason, GenerationError, OutputStream, Piece, Totals};

/// Counts along, and ends the answer early where the request says so.
pub(super) struct Running {
    outputs: OutputStream,
    meter: Meter,
    cut: Cut,
    has_new_line: bool,
    slot: Option<u32>,
    /// The end that follows the text that was given out last.
    end: Option<End>,
}

/// What happens next.
#[derive(Debug)]
pub(super) enum Step {
    Progress(PrefillProgress),
    Text {
        /// Empty only where the answer was cut.
        text: String,
        tokens: Vec<Token>,
        logprobs: Vec<TokenLogprob>,
    },
    End(End),
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: FinishReason,
    pub(super) totals: Totals,
    pub(super) has_new_line: bool,
    /// What computed the answer, if it is known.
    pub(super) slot: Option<u32>,
}

impl Running {
    pub(super) fn new(outputs: OutputStream, cut: Cut) -> Self {
        Self {
            outputs,
            meter: Meter::start(Instant::now()),
            cut,
            has_new_line: false,
            slot: None,
            end: None,
        }
    }

    /// What the answer has taken so far.
    pub(super) fn totals(&self) -> Totals {
        self.meter.totals()
    }

    /// The next step. There is none after [`Step::End`] or an error.
    pub(super) async fn next(&mut self) -> Result<Step, GenerationError> {
        if let Some(end) = self.end.take() {
            return Ok(Step::End(end));
        }
        loop {
            let output = self.outputs.next().await.ok_or(GenerationError::Unfinished)??;
            match output.piece {
                Piece::Progress(progress) => {
                    self.meter.prefilled(&progress);
                    self.slot = Some(progress.slot);
                    return Ok(Step::Progress(progress));
                }
                Piece::Content { text, tokens, logprobs } => return Ok(self.content(text, tokens, logprobs)),
                Piece::Finished { reason, totals } => {
                    let totals = totals.unwrap_or_else(|| self.totals());
                    return Ok(Step::End(self.ended(reason, totals)));
                }
                // A text that is continued has neither thoughts nor calls.
                Piece::Reasoning { .. }
                | Piece::ToolCallStart { .. }
                | Piece::ToolCallArguments { .. }
                | Piece::RoutedExperts(_) => {}
            }
        }
    }

    fn content(&mut self, mut text: String, tokens: Vec<Token>, logprobs: Vec<TokenLogprob>) -> Step {
        self.meter.generated(tokens.len(), Instant::now());
        if self.cut.is_active()
            && let Some(length) = self.cut.check(&text, self.meter.decode())
        {
            text.truncate(length);
            self.has_new_line |= text.contains('\n');
            self.end = Some(self.ended(FinishReason::Length, self.totals()));
            // Frees the slot now, not when the client has read the rest.
            self.outputs = OutputStream::new(futures_util::stream::empty());
        }
        self.has_new_line |= text.contains('\n');
        Step::Text { text, tokens, logprobs }
    }

    fn ended(&self, reason: FinishReason, totals: Totals) -> End {
        End {
            reason,
            totals,
            has_new_line: self.has_new_line,
            slot: self.slot,
        }
    }
}
