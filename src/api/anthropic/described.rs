//! Bodies of requests as clients see them, for the API's description.

#![expect(dead_code, reason = "described, not built: the readers take JSON values")]

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A body of `/v1/messages`. Also takes the fields of sampling that `/v1/chat/completions` has.
#[derive(Serialize, ToSchema)]
pub(super) struct MessagesRequest {
    #[schema(minimum = 1)]
    max_tokens: u32,
    stream: Option<bool>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i32>,
    /// The answer ends before any of these.
    #[schema(max_items = 16)]
    stop_sequences: Option<Vec<String>>,
    #[serde(flatten)]
    conversation: CountTokensRequest,
}

/// A conversation, and how it is to be answered.
#[derive(Serialize, ToSchema)]
pub(super) struct CountTokensRequest {
    /// Name, alias or role of a model, or the name of a preset; the first model if not given.
    model: Option<String>,
    #[schema(min_items = 1, max_items = 4096)]
    messages: Vec<AnthropicRequestMessage>,
    system: Option<AnthropicContent>,
    #[schema(max_items = 128)]
    tools: Option<Vec<AnthropicTool>>,
    tool_choice: Option<AnthropicToolChoice>,
    thinking: Option<AnthropicThinking>,
    output_config: Option<AnthropicOutputConfig>,
}

#[derive(Serialize, ToSchema)]
struct AnthropicRequestMessage {
    role: AnthropicRole,
    content: AnthropicContent,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AnthropicRole {
    User,
    Assistant,
    System,
}

/// A text, or blocks of the types `text`, `thinking`, `tool_use`, `tool_result`, and `document` with a plain text.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum AnthropicContent {
    Text(String),
    Blocks(Vec<Map<String, Value>>),
}

/// A function that the model may call.
#[derive(Serialize, ToSchema)]
struct AnthropicTool {
    name: String,
    description: Option<String>,
    /// A JSON schema.
    input_schema: Map<String, Value>,
}

/// Whether the model calls tools: `auto`, `any`, `none`, or `tool` with a `name`.
#[derive(Serialize, ToSchema)]
struct AnthropicToolChoice {
    r#type: String,
    name: Option<String>,
    disable_parallel_tool_use: Option<bool>,
}

/// Whether the model thinks: `enabled` with `budget_tokens`, `adaptive` or `disabled`.
#[derive(Serialize, ToSchema)]
struct AnthropicThinking {
    r#type: String,
    /// Tokens of thought at most.
    budget_tokens: Option<u32>,
}

#[derive(Serialize, ToSchema)]
struct AnthropicOutputConfig {
    /// Passed to the chat template.
    effort: Option<String>,
    /// `type` is `json_schema`, and `schema` a JSON schema.
    format: Option<Map<String, Value>>,
}
