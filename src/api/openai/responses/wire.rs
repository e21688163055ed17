//! What a response looks like.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::openai::logprobs::ChatToken;
use crate::generation::Totals;

/// A response, complete or not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseObject)]
pub(super) struct Response {
    pub(super) id: String,
    /// `response`.
    object: &'static str,
    /// Seconds since the epoch.
    created_at: u64,
    completed_at: Option<u64>,
    pub(super) status: Status,
    background: bool,
    /// Conversations are kept by the client, or as chains of `previous_response_id`.
    conversation: (),
    pub(super) error: Option<Failure>,
    pub(super) incomplete_details: Option<Incomplete>,
    model: String,
    pub(super) output: Vec<Item>,
    pub(super) usage: Option<Usage>,
    #[serde(flatten)]
    pub(super) settings: Settings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResponseStatus)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

/// What the request said; told back.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = ResponseSettings)]
pub(super) struct Settings {
    pub(super) instructions: Option<String>,
    pub(super) max_output_tokens: Option<u64>,
    /// Of tools that the server runs: there are none.
    pub(super) max_tool_calls: Value,
    pub(super) metadata: Map<String, Value>,
    pub(super) parallel_tool_calls: bool,
    pub(super) previous_response_id: Option<String>,
    pub(super) prompt_cache_key: Value,
    pub(super) reasoning: Reasoning,
    pub(super) safety_identifier: Value,
    pub(super) service_tier: &'static str,
    pub(super) store: bool,
    pub(super) temperature: Value,
    pub(super) text: Text,
    pub(super) tool_choice: Value,
    pub(super) tools: Vec<Value>,
    pub(super) top_logprobs: u64,
    pub(super) top_p: Value,
    pub(super) truncation: &'static str,
    pub(super) user: Value,
}

#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = ResponseReasoning)]
pub(super) struct Reasoning {
    pub(super) effort: Option<String>,
    /// Thoughts are given as they are.
    summary: (),
}

impl Reasoning {
    pub(super) fn new(effort: Option<String>) -> Self {
        Self { effort, summary: () }
    }
}

#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = ResponseText)]
pub(super) struct Text {
    pub(super) format: Value,
    pub(super) verbosity: Value,
}

/// Why a response failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseFailure)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Why a response is incomplete.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseIncomplete)]
pub(super) struct Incomplete {
    pub(super) reason: &'static str,
}

/// One thing that the model put out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseItem)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Item {
    Reasoning {
        id: String,
        status: Status,
        summary: Vec<Part>,
        content: Vec<Part>,
        /// Thoughts are not encrypted.
        encrypted_content: (),
    },
    Message {
        id: String,
        status: Status,
        role: &'static str,
        content: Vec<Part>,
    },
    FunctionCall {
        id: String,
        status: Status,
        call_id: String,
        name: String,
        /// JSON text.
        arguments: String,
    },
}

/// A part of an item.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponsePart)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Part {
    ReasoningText {
        text: String,
    },
    OutputText {
        text: String,
        /// There are no sources to cite.
        annotations: Vec<Value>,
        /// Of all tokens, if the request asked for them.
        logprobs: Vec<ChatToken>,
    },
}

/// Token counts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseUsage)]
pub(super) struct Usage {
    input_tokens: u32,
    input_tokens_details: InputTokensDetails,
    output_tokens: u32,
    output_tokens_details: OutputTokensDetails,
    total_tokens: u32,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseInputTokensDetails)]
struct InputTokensDetails {
    /// Tokens that were held of an earlier prompt and not computed again.
    cached_tokens: u32,
    /// Nothing is counted here: every prompt is held for the next, without being asked.
    cache_write_tokens: u32,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseOutputTokensDetails)]
struct OutputTokensDetails {
    reasoning_tokens: u32,
}

impl From<&Totals> for Usage {
    fn from(totals: &Totals) -> Self {
        let usage = totals.usage;
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokensDetails {
                cached_tokens: usage.cached_tokens,
                cache_write_tokens: 0,
            },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputTokensDetails {
                reasoning_tokens: totals.reasoning_tokens,
            },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
}

impl Response {
    /// A response that has only begun.
    pub(super) fn new(model: &str, settings: Settings) -> Self {
        Self {
            id: new_id("resp"),
            object: "response",
            created_at: now(),
            completed_at: None,
            status: Status::InProgress,
            background: false,
            conversation: (),
            error: None,
            incomplete_details: None,
            model: model.to_owned(),
            output: Vec::new(),
            usage: None,
            settings,
        }
    }

    pub(super) fn complete(&mut self) {
        self.status = Status::Completed;
        self.completed_at = Some(now());
    }
}

/// An id that nobody else has.
pub(super) fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", uuid::Uuid::new_v4().simple())
}

/// The id of an item of a response, which tells the response.
pub(super) fn item_id(prefix: &str, response: &str, index: usize) -> String {
    format!("{prefix}_{}{index:02x}", response.trim_start_matches("resp_"))
}

/// The id of the response that has the item with this id, if the item is of a response.
pub(super) fn response_of(item: &str) -> Option<String> {
    const DIGITS: usize = 32;
    let (_, own) = item.split_once('_')?;
    Some(format!("resp_{}", own.get(..DIGITS)?))
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
