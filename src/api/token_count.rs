//! How long the prompt of a conversation is.

use super::error::ApiError;
use super::limits;
use crate::generation::Conversation;
use crate::models::Model;

/// Tokens of the prompt that a conversation becomes.
pub(super) async fn of_conversation(model: &Model, conversation: Conversation) -> Result<usize, ApiError> {
    let prompt = model.chat.render(conversation).await?;
    let bytes = prompt.len();
    if bytes > limits::TOKENIZE_BYTES {
        let message = format!(
            "the prompt has {bytes} bytes, but at most {} are counted",
            limits::TOKENIZE_BYTES
        );
        return Err(ApiError::field("messages", message));
    }
    Ok(model.engine.tokenize(prompt, true, true).await?.len())
}
