//! Types that exist only for the API's description: fields that may have several types, and events.

#![expect(dead_code, reason = "described, not built: the readers take JSON values")]

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// An answer ends before this text, or before any of up to 16; each has 1 to 256 bytes.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Stop {
    One(String),
    Several(Vec<String>),
}

/// Names of samplers in the order in which they are applied, or llama-server's letters for them in one string.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Samplers {
    Letters(String),
    Names(Vec<String>),
}

/// How likely each token was: true or false with `top_logprobs`, or a number from -1 (off) to 20 that stands for both.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Logprobs {
    Told(bool),
    Top(i64),
}

/// What is added to the logits of tokens, by token id or text: an object, or a list of pairs of a target and its bias. A text
/// means each of its tokens.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum LogitBias {
    Object(BTreeMap<String, Bias>),
    Pairs(Vec<(BiasedToken, Bias)>),
}

/// A number, or `false` to ban a token.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Bias {
    Added(f32),
    Banned(bool),
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum BiasedToken {
    Id(i32),
    Text(String),
}

/// An event of a stream.
#[derive(Serialize, ToSchema)]
pub(super) struct ServerSentEvent {
    /// JSON, or `[DONE]`.
    data: String,
}
