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
    format: FormatFields,
    #[serde(flatten)]
    parameters: Parameters,
}

/// A body of `/v1/completions`.
#[derive(Serialize, ToSchema)]
pub(super) struct CompletionRequest {
    prompt: Prompts,
    /// Begin the answer with the prompt.
    echo: Option<bool>,
    /// What comes behind the answer, for models that fill in.
    suffix: Option<String>,
    #[serde(flatten)]
    format: FormatFields,
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
    /// Variables of the chat template. Has no effect with `raw`, as the next three.
    chat_template_kwargs: Option<Map<String, Value>>,
    reasoning_effort: Option<String>,
    reasoning_format: Option<ReasoningFormat>,
    #[schema(default = true)]
    add_generation_prompt: Option<bool>,
    #[serde(flatten)]
    format: FormatFields,
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

/// A body of `/v1/embeddings`.
#[derive(Serialize, ToSchema)]
pub(super) struct EmbeddingRequest {
    /// Name, alias or role of a model; the first one if not given.
    model: Option<String>,
    input: Inputs,
    /// `base64` gives little-endian 32-bit floats.
    encoding_format: Option<Encoding>,
    /// Numbers that are kept of each vector, from its start; all by default.
    #[schema(minimum = 1)]
    dimensions: Option<u32>,
}

/// A body of `/embedding`.
#[derive(Serialize, ToSchema)]
pub(super) struct PooledEmbeddingRequest {
    /// Name, alias or role of a model; the first one if not given.
    model: Option<String>,
    /// Or `input`.
    content: Option<Inputs>,
    input: Option<Inputs>,
    /// -1 for none, 0 for the largest number, 1 for the sum, 2 for the length, further ones for other norms.
    #[schema(minimum = -1, maximum = 64, default = 2)]
    embd_normalize: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Float,
    Base64,
}

/// A text, a list of token ids, or a list of such.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Inputs {
    Text(String),
    List(Vec<TokenOrInput>),
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum TokenOrInput {
    Token(i32),
    Text(String),
    Tokens(Vec<i32>),
}

/// What an answer must look like; at most one of the fields may be given.
#[derive(Serialize, ToSchema)]
struct FormatFields {
    response_format: Option<ResponseFormat>,
    /// A JSON schema, or its JSON text.
    json_schema: Option<SchemaOrText>,
    /// A grammar in llama.cpp's GBNF.
    grammar: Option<String>,
    /// A regular expression for the whole answer.
    regex: Option<String>,
    /// As `json_schema`, in vLLM's words.
    guided_json: Option<SchemaOrText>,
    /// As `regex`, in vLLM's words.
    guided_regex: Option<String>,
    /// The answer is one of these texts.
    guided_choice: Option<Vec<String>>,
    /// As `grammar`, in vLLM's words.
    guided_grammar: Option<String>,
    /// vLLM's newer words: an object with `json`, `regex`, `choice` or `grammar`.
    structured_outputs: Option<Map<String, Value>>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum SchemaOrText {
    Schema(Map<String, Value>),
    Text(String),
}

/// OpenAI's form.
#[derive(Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    /// Any JSON object, or with llama-server's `schema` one that fits it.
    JsonObject {
        schema: Option<Map<String, Value>>,
    },
    JsonSchema {
        json_schema: NamedSchema,
    },
}

#[derive(Serialize, ToSchema)]
struct NamedSchema {
    name: Option<String>,
    /// Refuse a schema that an answer might break. Keywords that no grammar holds are passed over else.
    strict: Option<bool>,
    schema: Map<String, Value>,
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
    /// Go on in the middle of the final message. By default a final text of the assistant is continued.
    continue_final_message: Option<bool>,
    /// Whether an answer may have more than one call.
    parallel_tool_calls: Option<bool>,
    /// What becomes of the model's thoughts.
    reasoning_format: Option<ReasoningFormat>,
    /// Tokens of thought at most; -1 for any number.
    #[schema(minimum = -1)]
    reasoning_budget_tokens: Option<i64>,
    /// Another name of it.
    #[schema(minimum = -1)]
    thinking_budget_tokens: Option<i64>,
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

/// Which tools the model calls: as it likes, none, at least one, or the one that is named.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum ToolChoice {
    Word(ToolChoiceWord),
    Named(NamedTool),
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ToolChoiceWord {
    Auto,
    None,
    Required,
}

#[derive(Serialize, ToSchema)]
struct NamedTool {
    r#type: FunctionType,
    function: NamedFunction,
}

#[derive(Serialize, ToSchema)]
struct NamedFunction {
    name: String,
}

/// `auto` and `deepseek` tell thoughts apart from the content, `none` leaves them in it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ReasoningFormat {
    Auto,
    Deepseek,
    None,
}

/// A text, or a list of token ids in which texts may stand too.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Mixed(Vec<TextOrToken>),
}

/// A text; or a list with at least one token id, which is one prompt, in which texts may stand too; or a list of up to 64
/// prompts, each of which becomes a choice.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Prompts {
    Text(String),
    List(Vec<PartOrPrompt>),
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum PartOrPrompt {
    Text(String),
    Token(i32),
    Prompt(Vec<TextOrToken>),
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum TextOrToken {
    Text(String),
    Token(i32),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::PartialSchema;

    use super::super::parameters::KNOWN;
    use super::*;

    /// The fields of a schema that it does not take from another one.
    fn fields<T: PartialSchema>() -> BTreeSet<String> {
        let schema = serde_json::to_value(T::schema()).unwrap();
        let parts = schema["allOf"].as_array().cloned().unwrap_or_else(|| vec![schema]);
        let parts = parts.iter().filter_map(|part| part["properties"].as_object());
        parts.flat_map(|part| part.keys().cloned()).collect()
    }

    /// What is read is described, and nothing else.
    #[test]
    fn all_fields_are_described() {
        let described: BTreeSet<String> = [
            fields::<ChatCompletionRequest>(),
            fields::<CompletionRequest>(),
            fields::<GenerateRequest>(),
            fields::<ConversationFields>(),
            fields::<FormatFields>(),
            fields::<Parameters>(),
        ]
        .into_iter()
        .flatten()
        .collect();
        assert_eq!(described, *KNOWN);
    }
}
