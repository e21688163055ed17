//! Bodies of requests as clients see them, for the API's description.
//!
//! The readers take JSON values, for the sake of messages that name the place of a mistake; tests hold these types and the
//! readers together.

#![expect(dead_code, reason = "described, not built: the readers take JSON values")]

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::parameters::Parameters;

/// A body of `/v1/chat/completions`.
#[derive(Serialize, ToSchema)]
pub(super) struct ChatCompletionRequest {
    #[serde(flatten)]
    conversation: ConversationFields,
    #[serde(flatten)]
    parameters: Parameters,
}

/// A body of `/v1/completions`.
#[derive(Serialize, ToSchema)]
pub(super) struct CompletionRequest {
    prompt: Prompts,
    #[serde(flatten)]
    parameters: Parameters,
}

/// A body of `/api/v1/generate`.
#[derive(Serialize, ToSchema)]
pub(super) struct GenerateRequest {
    /// What the user says; with `raw`, what the model continues.
    prompt: Prompt,
    /// Continue the prompt as it is, without the chat template. Without `raw` the prompt must be a text.
    #[schema(default = false)]
    raw: Option<bool>,
    /// The system message, in the place of the preset's. Has no effect with `raw`.
    system: Option<String>,
    /// Variables of the chat template.
    chat_template_kwargs: Option<Map<String, Value>>,
    #[serde(flatten)]
    parameters: Parameters,
}

/// A body of `/apply-template`.
#[derive(Serialize, ToSchema)]
pub(super) struct ApplyTemplateRequest {
    /// Name, alias or role of a model, or the name of a preset; the first model if not given.
    model: Option<String>,
    #[serde(flatten)]
    conversation: ConversationFields,
}

/// A conversation, and how its template is used.
#[derive(Serialize, ToSchema)]
struct ConversationFields {
    #[schema(min_items = 1, max_items = 4096)]
    messages: Vec<RequestMessage>,
    #[schema(max_items = 128)]
    tools: Option<Vec<ToolDefinition>>,
    tool_choice: Option<ToolChoice>,
    /// Begin the assistant's turn; `false` renders only what is there.
    #[schema(default = true)]
    add_generation_prompt: Option<bool>,
    /// Go on in the middle of the final message.
    #[schema(default = false)]
    continue_final_message: Option<bool>,
    /// Further variables of the chat template, such as `enable_thinking`.
    chat_template_kwargs: Option<Map<String, Value>>,
    /// Passed to the chat template; which words it knows is the model's.
    reasoning_effort: Option<String>,
}

/// A message. One of the assistant may have `tool_calls` or reasoning in the place of `content`.
#[derive(Serialize, ToSchema)]
struct RequestMessage {
    role: RequestRole,
    content: Option<MessageContent>,
    /// Calls that the assistant made.
    tool_calls: Option<Vec<RequestToolCall>>,
    /// What the assistant thought; `reasoning` is the same.
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    name: Option<String>,
    /// With the role `tool`: the call that this is the result of.
    tool_call_id: Option<String>,
}

/// Who speaks. `developer` is `system`, and `function` is `tool`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum RequestRole {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum MessageContent {
    Text(String),
    Parts(Vec<ContentPart>),
}

/// A part of a message; there are only texts.
#[derive(Serialize, ToSchema)]
struct ContentPart {
    r#type: ContentPartType,
    text: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ContentPartType {
    Text,
    InputText,
    OutputText,
}

/// A call in a message of the assistant.
#[derive(Serialize, ToSchema)]
struct RequestToolCall {
    id: Option<String>,
    r#type: Option<FunctionType>,
    function: RequestFunction,
}

#[derive(Serialize, ToSchema)]
struct RequestFunction {
    name: String,
    /// JSON text.
    arguments: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum FunctionType {
    Function,
}

/// A function that the model may call.
#[derive(Serialize, ToSchema)]
struct ToolDefinition {
    r#type: FunctionType,
    function: FunctionDefinition,
}

#[derive(Serialize, ToSchema)]
struct FunctionDefinition {
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-zA-Z0-9_-]+$")]
    name: String,
    description: Option<String>,
    /// A JSON schema of the arguments.
    parameters: Option<Map<String, Value>>,
}

/// Which tools the model may call.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ToolChoice {
    /// Those that it wants to.
    Auto,
    None,
}

/// A text, or a list of token ids in which texts may stand too.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Mixed(Vec<TextOrToken>),
}

/// A prompt, or a list of up to 64, each of which becomes a choice.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Prompts {
    One(Prompt),
    Several(Vec<Prompt>),
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum TextOrToken {
    Text(String),
    Token(i32),
}
