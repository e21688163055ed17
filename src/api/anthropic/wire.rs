//! What a message of the assistant looks like, whole or at the ends of a stream.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::generation::{Choice, Completion, FinishReason, ToolCall, Totals};

/// A message of the assistant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicMessage)]
pub(super) struct Message {
    pub(super) id: String,
    /// `message`.
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: String,
    content: Vec<Block>,
    #[serde(flatten)]
    end: End,
    usage: Usage,
}

/// A part of a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicBlock)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block {
    Thinking {
        thinking: String,
        /// Not to be read: clients send it back with the thought.
        signature: String,
    },
    Text {
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
        input: Map<String, Value>,
    },
}

/// Why a message ends; nothing while it goes on.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = AnthropicEnd)]
pub(super) struct End {
    stop_reason: Option<StopReason>,
    stop_sequence: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = AnthropicStopReason)]
#[serde(rename_all = "snake_case")]
enum StopReason {
    EndTurn,
    MaxTokens,
    StopSequence,
    ToolUse,
}

/// Token counts. The tokens of the prompt are `input_tokens` and `cache_read_input_tokens` together.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = AnthropicUsage)]
pub(super) struct Usage {
    /// Tokens of the prompt that were computed.
    input_tokens: u32,
    /// Nothing is counted here: every prompt is held for the next, without being asked.
    cache_creation_input_tokens: u32,
    /// Tokens of the prompt that were held of an earlier one.
    cache_read_input_tokens: u32,
    output_tokens: u32,
    output_tokens_details: OutputTokensDetails,
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = AnthropicOutputTokensDetails)]
struct OutputTokensDetails {
    thinking_tokens: u32,
}

impl Message {
    /// A message that has only begun.
    pub(super) fn new(model: &str) -> Self {
        Self {
            id: format!("msg_{}", uuid::Uuid::new_v4().simple()),
            kind: "message",
            role: "assistant",
            model: model.to_owned(),
            content: Vec::new(),
            end: End::default(),
            usage: Usage::default(),
        }
    }

    /// The same, with what is known of the prompt.
    pub(super) fn with_prompt(self, prompt_tokens: u32, cached_tokens: u32) -> Self {
        Self {
            usage: Usage::of_prompt(prompt_tokens, cached_tokens),
            ..self
        }
    }

    /// The complete message.
    pub(super) fn complete(self, completion: Completion) -> Self {
        let Completion { choices, totals } = completion;
        let Some(choice) = choices.into_iter().next() else {
            return self;
        };
        Self {
            end: (&choice.reason).into(),
            usage: (&totals).into(),
            content: blocks(choice, &self.id),
            ..self
        }
    }
}

fn blocks(choice: Choice, signature: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !choice.reasoning.is_empty() {
        blocks.push(Block::Thinking {
            thinking: choice.reasoning,
            signature: signature.to_owned(),
        });
    }
    if !choice.content.is_empty() {
        blocks.push(Block::Text { text: choice.content });
    }
    blocks.extend(choice.tool_calls.into_iter().map(Block::from));
    blocks
}

impl From<ToolCall> for Block {
    fn from(call: ToolCall) -> Self {
        Self::ToolUse {
            id: call.id,
            name: call.name,
            // What was cut off by `max_tokens` is no object.
            input: serde_json::from_str(&call.arguments).unwrap_or_default(),
        }
    }
}

impl From<&FinishReason> for End {
    fn from(reason: &FinishReason) -> Self {
        let (stop_reason, stop_sequence) = match reason {
            FinishReason::EndOfText => (StopReason::EndTurn, None),
            FinishReason::StopString(stop) => (StopReason::StopSequence, Some(stop.clone())),
            FinishReason::Length => (StopReason::MaxTokens, None),
            FinishReason::ToolCalls => (StopReason::ToolUse, None),
        };
        Self {
            stop_reason: Some(stop_reason),
            stop_sequence,
        }
    }
}

impl Usage {
    fn of_prompt(prompt_tokens: u32, cached_tokens: u32) -> Self {
        Self {
            input_tokens: prompt_tokens.saturating_sub(cached_tokens),
            cache_read_input_tokens: cached_tokens,
            ..Self::default()
        }
    }
}

impl From<&Totals> for Usage {
    fn from(totals: &Totals) -> Self {
        let usage = totals.usage;
        Self {
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails {
                thinking_tokens: totals.reasoning_tokens,
            },
            ..Self::of_prompt(usage.prompt_tokens, usage.cached_tokens)
        }
    }
}
