//! Bodies of requests as clients see them, for the API's description.

#![expect(dead_code, reason = "described, not built: the readers take JSON values")]

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A body of `/v1/responses`. Also takes the fields of sampling that `/v1/chat/completions` has.
#[derive(Serialize, ToSchema)]
pub(super) struct ResponsesRequest {
    /// Name, alias or role of a model, or the name of a preset; the first model if not given.
    model: Option<String>,
    input: ResponseInput,
    /// Comes before all messages; not kept for the next request.
    instructions: Option<String>,
    /// A response that is continued.
    previous_response_id: Option<String>,
    /// Keep the response, so that it can be continued and asked for.
    #[schema(default = true)]
    store: Option<bool>,
    stream: Option<bool>,
    #[schema(minimum = 1)]
    max_output_tokens: Option<u64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    /// Functions: `type`, `name`, `description` and `parameters`, a JSON schema.
    #[schema(max_items = 128)]
    tools: Option<Vec<Map<String, Value>>>,
    tool_choice: Option<ResponseToolChoice>,
    #[schema(default = true)]
    parallel_tool_calls: Option<bool>,
    text: Option<ResponseTextRequest>,
    reasoning: Option<ResponseReasoningRequest>,
    /// `message.output_text.logprobs` asks for probabilities.
    include: Option<Vec<String>>,
    #[schema(maximum = 20)]
    top_logprobs: Option<u64>,
    /// `auto` leaves out the oldest turns of a conversation that is too long.
    truncation: Option<ResponseTruncation>,
    /// At most 16 texts.
    metadata: Option<BTreeMap<String, String>>,
}

/// A text, or items of the types `message`, `function_call`, `function_call_output` and `reasoning`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum ResponseInput {
    Text(String),
    Items(Vec<Map<String, Value>>),
}

/// `auto`, `none`, `required`, or an object: a function by `name`, or `allowed_tools`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum ResponseToolChoice {
    Word(String),
    Tool(Map<String, Value>),
}

#[derive(Serialize, ToSchema)]
struct ResponseTextRequest {
    /// `type` is `text`, `json_object`, or `json_schema` with `name` and `schema`.
    format: Option<Map<String, Value>>,
}

#[derive(Serialize, ToSchema)]
struct ResponseReasoningRequest {
    /// Passed to the chat template; `none` asks for no thoughts.
    effort: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ResponseTruncation {
    Auto,
    Disabled,
}
