//! The beginning of the turn after an answer, which the engine computes while the user reads.
//!
//! Templates leave the thoughts of earlier answers out. What a slot holds behind an answer with thoughts is then no
//! beginning of the next prompt: without this the answer, and results of tools before it, would be computed again while the
//! user waits for the first word.

use std::sync::Arc;

use futures_util::StreamExt;

use super::answer::{End, Step, Steps};
use super::conversation::{Conversation, Ending, Message, Role};
use super::error::GenerationError;
use super::output::{FinishReason, Piece};
use super::prompts::Prompts;
use super::request::{Options, OutputFormat};
use crate::engine::{Token, TokenEngine};

/// A conversation that is being answered.
pub(super) struct NextTurn {
    engine: Arc<dyn TokenEngine>,
    prompts: Prompts,
    conversation: Conversation,
    format: OutputFormat,
    /// The content of the answer so far.
    content: String,
    /// There are thoughts that the next prompt may leave out.
    thoughts: bool,
}

impl NextTurn {
    /// `None` where nothing can be known of a next turn, or it is not wanted.
    pub(super) fn after(
        engine: &Arc<dyn TokenEngine>,
        prompts: &Prompts,
        conversation: &Conversation,
        options: &Options,
    ) -> Option<Self> {
        let follows = conversation.ending == Ending::Answer && options.choices == 1 && options.cache_prompt;
        (follows && engine.prepares()).then(|| Self {
            engine: engine.clone(),
            prompts: prompts.clone(),
            conversation: conversation.clone(),
            format: options.format.clone(),
            content: String::new(),
            thoughts: conversation.messages.iter().any(|message| message.reasoning.is_some()),
        })
    }

    /// Has the next turn prepared when the answer has ended. A call of a tool is followed by its result, at once, and in that
    /// prompt the thoughts stay.
    pub(super) fn watch(self, steps: Steps) -> Steps {
        let mut turn = Some(self);
        let watch = move |step: &Result<Step, GenerationError>| match (step, &mut turn) {
            (Ok(Step::Piece(Piece::Reasoning { .. }, _)), Some(turn)) => turn.thoughts = true,
            (Ok(Step::Piece(Piece::Content { text, .. }, _)), Some(turn)) => turn.content.push_str(text),
            (Ok(Step::Piece(Piece::ToolCallStart { .. }, _)), turn) => *turn = None,
            (Ok(Step::End(End { reason, .. })), turn) => {
                let said = |turn: &Self| turn.thoughts && !turn.content.is_empty();
                if let Some(turn) = turn
                    .take()
                    .filter(|turn| said(turn) && *reason != FinishReason::ToolCalls)
                {
                    tokio::spawn(turn.prepare());
                }
            }
            _ => {}
        };
        steps.inspect(watch).boxed()
    }

    async fn prepare(self) {
        match self.beginning().await {
            Ok(Some(tokens)) => self.engine.prepare(tokens),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the next turn cannot be prepared"),
        }
    }

    /// The tokens of the next prompt up to the message of the user; `None` if they are not known.
    async fn beginning(&self) -> Result<Option<Vec<Token>>, GenerationError> {
        let without = self.prompt(None).await?;
        // Some clients give the thoughts back, and some templates print them then.
        let with = self.prompt(Some("Thoughts.".to_owned())).await?;
        Ok(without.filter(|without| with.as_ref() == Some(without)))
    }

    async fn prompt(&self, reasoning: Option<String>) -> Result<Option<Vec<Token>>, GenerationError> {
        let mut conversation = self.conversation.clone();
        conversation.messages.extend([
            Message {
                reasoning,
                ..Message::new(Role::Assistant, self.content.as_str())
            },
            // Any: only what comes before it counts.
            Message::new(Role::User, "Go on."),
        ]);
        self.prompts.before_newest(conversation, &self.format).await
    }
}
