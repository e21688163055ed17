//! `POST /v1/chat/completions`, also at `/api/v1/chat/completions`.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::conversation;
use super::logprobs::ChatLogprobs;
use crate::api::body::Body;
use crate::api::described::ServerSentEvent;
use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::api::presets;
use crate::api::requests::ChatCompletionRequest;
use crate::api::respond::respond;
use crate::api::shape::Shape;
use crate::api::state::State;
use crate::api::wire::{Envelope, FinishReason, PromptProgress, Timings, Usage};
use crate::engine::{PrefillProgress, RoutedExperts, TokenLogprob};
use crate::generation::{self, ChatRequest, Completion, Totals};

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/v1/chat/completions", post().to(complete))
        .route("/api/v1/chat/completions", post().to(complete));
}

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    request_body(
        content = ChatCompletionRequest,
        example = json!({"messages": [{"role": "user", "content": "What is 2 + 2?"}], "max_tokens": 128})
    ),
    responses((
        status = 200,
        description = "The answer; with `stream` events of type `ChatChunk`, then `[DONE]`.",
        content((ChatCompletion = "application/json"), (ServerSentEvent = "text/event-stream"))
    ))
)]
pub(in crate::api) async fn complete(state: Data<State>, mut body: Body) -> Result<HttpResponse, ApiError> {
    let target = state.open(&mut body).await?;
    let parameters = Parameters::of(&body)?;
    if *body.field("echo") == Value::Bool(true) {
        return Err(ApiError::unsupported("echo", "messages in the answer"));
    }
    let options = parameters.options()?;
    let shape = Chat {
        envelope: Envelope::new("chatcmpl", CHUNK, target.name()),
        include_usage: parameters.include_usage(),
        logprobs: options.logprobs.is_some(),
    };
    let delivery = parameters.delivery();
    let request = ChatRequest {
        options,
        conversation: presets::begin(&target, conversation::read(body).await?),
    };
    respond(target.chat().chat(request).await?, delivery, shape).await
}

const CHUNK: &str = "chat.completion.chunk";

struct Chat {
    envelope: Envelope,
    include_usage: bool,
    logprobs: bool,
}

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatCompletion {
    #[serde(flatten)]
    envelope: Envelope,
    choices: Vec<Choice>,
    usage: Usage,
    timings: Timings,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatChoice)]
struct Choice {
    index: usize,
    message: Message,
    logprobs: Option<ChatLogprobs>,
    /// By generated token and layer, the experts that computed it; with `return_routed_experts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    routed_experts: Option<RoutedExperts>,
    finish_reason: FinishReason,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatMessage)]
struct Message {
    role: &'static str,
    /// Null where there are only calls.
    content: Option<String>,
    /// What the model thought; left out if it did not.
    #[serde(flatten)]
    reasoning: Reasoning,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    /// Local models have no separate refusals.
    refusal: (),
}

/// The same text twice: clients look for one of the two names.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Reasoning {
    /// As llama-server, SGLang and DeepSeek name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    /// As vLLM and Ollama name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
}

impl Reasoning {
    fn new(text: String) -> Self {
        Self {
            reasoning_content: Some(text.clone()),
            reasoning: Some(text),
        }
    }
}

/// A call, or in a stream a piece of one.
#[derive(Debug, Serialize, ToSchema)]
struct ToolCall {
    /// Only in streams: which call the piece is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    /// In streams only in the first piece of a call, as `type` and `name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: Function,
}

#[derive(Debug, Serialize, ToSchema)]
struct Function {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// JSON text; in streams the next piece of it.
    arguments: String,
}

impl ToolCall {
    fn new(index: Option<usize>, id: String, name: String, arguments: String) -> Self {
        Self {
            index,
            id: Some(id),
            kind: Some("function"),
            function: Function {
                name: Some(name),
                arguments,
            },
        }
    }

    fn more(index: usize, arguments: String) -> Self {
        Self {
            index: Some(index),
            id: None,
            kind: None,
            function: Function { name: None, arguments },
        }
    }
}

/// One event of a streamed answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatChunk {
    #[serde(flatten)]
    envelope: Envelope,
    /// Empty in chunks that tell only usage or progress.
    choices: Vec<ChunkChoice>,
    /// Left out unless the request has `include_usage`; then null in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_progress: Option<PromptProgress>,
    /// In the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    /// By generated token and layer, the experts that computed it; with `return_routed_experts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    routed_experts: Option<RoutedExperts>,
    finish_reason: Option<FinishReason>,
}

/// What a chunk adds to a choice.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Delta {
    /// Only in the first chunk of a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    /// Null in the first chunk of a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<String>>,
    #[serde(flatten)]
    reasoning: Reasoning,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

impl Chat {
    fn chunk(&self, choices: Vec<ChunkChoice>) -> ChatChunk {
        ChatChunk {
            envelope: self.envelope.clone(),
            choices,
            usage: self.include_usage.then_some(None),
            prompt_progress: None,
            timings: None,
        }
    }

    fn choice(&self, index: usize, delta: Delta, finish_reason: Option<FinishReason>) -> ChatChunk {
        self.chunk(vec![ChunkChoice {
            index,
            delta,
            logprobs: None,
            routed_experts: None,
            finish_reason,
        }])
    }

    fn tool_call(&self, index: usize, call: ToolCall) -> ChatChunk {
        let delta = Delta {
            tool_calls: vec![call],
            ..Delta::default()
        };
        self.choice(index, delta, None)
    }
}

impl From<generation::Choice> for Message {
    fn from(choice: generation::Choice) -> Self {
        let calls = choice.tool_calls.into_iter();
        let tool_calls: Vec<ToolCall> = calls
            .map(|call| ToolCall::new(None, call.id, call.name, call.arguments))
            .collect();
        let only_calls = choice.content.is_empty() && !tool_calls.is_empty();
        Self {
            role: "assistant",
            content: (!only_calls).then_some(choice.content),
            reasoning: if choice.reasoning.is_empty() {
                Reasoning::default()
            } else {
                Reasoning::new(choice.reasoning)
            },
            tool_calls,
            refusal: (),
        }
    }
}

impl Shape for Chat {
    type Whole = ChatCompletion;
    type Chunk = ChatChunk;

    fn served_by(&mut self, model: &str) {
        self.envelope.served_by(model);
    }

    fn whole(&self, completion: Completion) -> ChatCompletion {
        let choices = (0..).zip(completion.choices).map(|(index, mut choice)| Choice {
            index,
            finish_reason: (&choice.reason).into(),
            logprobs: self.logprobs.then(|| ChatLogprobs::new(&choice.logprobs)),
            routed_experts: choice.routed_experts.take(),
            message: choice.into(),
        });
        ChatCompletion {
            envelope: self.envelope.as_object("chat.completion"),
            choices: choices.collect(),
            usage: (&completion.totals).into(),
            timings: (&completion.totals).into(),
        }
    }

    fn opening(&self, choice: usize) -> Option<ChatChunk> {
        let delta = Delta {
            role: Some("assistant"),
            content: Some(None),
            ..Delta::default()
        };
        Some(self.choice(choice, delta, None))
    }

    fn content(&self, choice: usize, text: &str) -> ChatChunk {
        let delta = Delta {
            content: Some(Some(text.to_owned())),
            ..Delta::default()
        };
        self.choice(choice, delta, None)
    }

    fn content_with_logprobs(&self, choice: usize, text: &str, logprobs: &[TokenLogprob]) -> ChatChunk {
        let mut chunk = self.content(choice, text);
        for choice in &mut chunk.choices {
            choice.logprobs = Some(ChatLogprobs::new(logprobs));
        }
        chunk
    }

    fn reasoning(&self, choice: usize, text: &str) -> Option<ChatChunk> {
        let delta = Delta {
            reasoning: Reasoning::new(text.to_owned()),
            ..Delta::default()
        };
        Some(self.choice(choice, delta, None))
    }

    fn tool_call_start(&self, choice: usize, index: usize, id: String, name: String) -> Option<ChatChunk> {
        Some(self.tool_call(choice, ToolCall::new(Some(index), id, name, String::new())))
    }

    fn tool_call_arguments(&self, choice: usize, index: usize, text: String) -> Option<ChatChunk> {
        Some(self.tool_call(choice, ToolCall::more(index, text)))
    }

    fn routed_experts(&self, choice: usize, routed: RoutedExperts) -> Option<ChatChunk> {
        Some(self.chunk(vec![ChunkChoice {
            index: choice,
            delta: Delta::default(),
            logprobs: None,
            routed_experts: Some(routed),
            finish_reason: None,
        }]))
    }

    fn progress(&self, progress: &PrefillProgress) -> ChatChunk {
        ChatChunk {
            prompt_progress: Some(progress.into()),
            ..self.chunk(Vec::new())
        }
    }

    fn finished(&self, choice: usize, reason: &generation::FinishReason, totals: Option<Totals>) -> Vec<ChatChunk> {
        let mut chunks = vec![self.choice(choice, Delta::default(), Some(reason.into()))];
        let Some(totals) = &totals else { return chunks };
        if self.include_usage {
            chunks.push(ChatChunk {
                usage: Some(Some(totals.into())),
                ..self.chunk(Vec::new())
            });
        }
        if let Some(last) = chunks.last_mut() {
            last.timings = Some(totals.into());
        }
        chunks
    }
}
