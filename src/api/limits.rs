//! What one request may hold, beside the size of its body (`body_limit`) and the context.

/// Messages of a conversation.
pub(super) const MESSAGES: usize = 4096;
/// Conversations with more messages are rendered away from the async workers.
pub(super) const INLINE_MESSAGES: usize = 128;
/// Tools of a request.
pub(super) const TOOLS: usize = 128;
/// Stop strings, and bytes of each.
pub(super) const STOPS: usize = 16;
pub(super) const STOP_BYTES: usize = 256;
/// Extra stop tokens.
pub(super) const STOP_TOKENS: usize = 64;
