//! What every front end calls: a conversation or a text in, typed output out.
//!
//! The HTTP API and the command line translate their arguments into [`ChatRequest`] or [`TextRequest`] and the
//! [`Output`] of the answer into their own words. [`ChatBackend`] is what answers; [`LocalBackend`] does it with the
//! model's own chat template and its token engine, `upstream` with other servers. [`Fallback`] lets other models answer where one cannot.

mod answer;
mod choices;
mod conversation;
mod depth;
mod error;
mod fallback;
mod format;
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod literal;
mod local;
mod next_turn;
mod output;
mod prompts;
mod reader;
mod request;
mod required;
mod template;
mod thoughts;

pub use conversation::{Conversation, Ending, Message, ReasoningFormat, Role, Tool, ToolCall, ToolChoice};
pub use error::{GenerationError, TemplateError};
pub use fallback::{Alternatives, Fallback, Substitutes};
pub use local::LocalBackend;
pub use output::{Choice, Completion, FinishReason, Output, OutputStream, Piece, Totals};
pub use request::{BiasTarget, ChatRequest, Options, OutputFormat, Segment, TextPrompt, TextRequest};

use futures_util::future::BoxFuture;

/// A model that continues conversations and texts.
///
/// All methods may be called from an async worker: none blocks it.
pub trait ChatBackend: Send + Sync + 'static {
    /// Answers a conversation; the answer has one choice.
    ///
    /// Whatever can be checked is checked before the future resolves, so that an error can still become a status.
    ///
    /// # Cancel safety
    /// Dropping the future before it resolves starts nothing; dropping the stream ends the generation.
    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>>;

    /// Continues texts as they are, without a template; each prompt becomes a choice, in the same order.
    ///
    /// Checks and cancellation are those of [`ChatBackend::chat`].
    fn continue_text(&self, request: TextRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>>;

    /// The text that a conversation becomes, control tokens included.
    fn render(&self, conversation: Conversation) -> BoxFuture<'_, Result<String, GenerationError>>;
}
