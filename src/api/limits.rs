//! What one request may hold, beside the size of its body (`body_limit`) and the context.

/// Messages of a conversation.
pub(super) const MESSAGES: usize = 4096;
/// Conversations with more messages are read away from the async workers.
pub(super) const INLINE_MESSAGES: usize = 128;
/// Prompts of a request: each takes a place in the queue.
pub(super) const PROMPTS: usize = 64;
/// Choices for a prompt.
pub(super) const CHOICES: u32 = 64;
/// Likeliest tokens that are told with each token: OpenAI's bound, and that of llama-server's `n_probs`.
pub(super) const TOP_LOGPROBS: u32 = 20;
pub(super) const N_PROBS: u32 = 128;
/// Texts that become embeddings, and documents that are ranked.
pub(super) const EMBEDDINGS: usize = 2048;
/// Tools of a request.
pub(super) const TOOLS: usize = 128;
/// Stop strings, and bytes of each; a preset may have as many.
pub(super) use crate::config::{STOP_BYTES, STOPS};
/// Extra stop tokens.
pub(super) const STOP_TOKENS: usize = 64;
/// Entries of `logit_bias`.
pub(super) const BIASES: usize = 1024;
/// Texts of `guided_choice`.
pub(super) const OUTPUT_CHOICES: usize = 1000;
/// Bytes that `/tokenize` takes, and tokens that `/detokenize` takes: about what the longest contexts hold.
pub(super) const TOKENIZE_BYTES: usize = 2 << 20;
pub(super) const DETOKENIZE_TOKENS: usize = 1 << 20;
