//! `POST /v1/chat/completions`, also at `/api/v1/chat/completions`.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::Serialize;
use utoipa::ToSchema;

use super::conversation;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::api::presets;
use crate::api::requests::ChatCompletionRequest;
use crate::api::respond::respond;
use crate::api::shape::Shape;
use crate::api::state::State;
use crate::api::wire::{Envelope, FinishReason, PromptProgress, Timings, Usage};
use crate::engine::{self, PrefillProgress};
use crate::generation::{ChatRequest, Completion, Totals};

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
        content((ChatCompletion = "application/json"), (String = "text/event-stream"))
    ))
)]
pub(super) async fn complete(state: Data<State>, mut body: Body) -> Result<HttpResponse, ApiError> {
    let target = state.open(&mut body)?;
    let parameters = Parameters::of(&body)?;
    let shape = Chat {
        envelope: Envelope::new("chatcmpl", CHUNK, target.name()),
        include_usage: parameters.include_usage(),
    };
    let streams = parameters.streams();
    let request = ChatRequest {
        options: parameters.options()?,
        conversation: presets::begin(target, conversation::read(body).await?),
    };
    respond(target.model.chat.chat(request).await?, streams, shape).await
}

const CHUNK: &str = "chat.completion.chunk";

struct Chat {
    envelope: Envelope,
    include_usage: bool,
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
    /// Not supported yet.
    logprobs: (),
    finish_reason: FinishReason,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatMessage)]
struct Message {
    role: &'static str,
    content: String,
    /// Local models have no separate refusals.
    refusal: (),
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
    /// Not supported yet.
    logprobs: (),
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
            logprobs: (),
            finish_reason,
        }])
    }
}

impl Shape for Chat {
    type Whole = ChatCompletion;
    type Chunk = ChatChunk;

    fn whole(&self, completion: Completion) -> ChatCompletion {
        let choices = (0..).zip(completion.choices).map(|(index, choice)| Choice {
            index,
            message: Message {
                role: "assistant",
                content: choice.content,
                refusal: (),
            },
            logprobs: (),
            finish_reason: (&choice.reason).into(),
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
        };
        Some(self.choice(choice, delta, None))
    }

    fn content(&self, choice: usize, text: &str) -> ChatChunk {
        let delta = Delta {
            role: None,
            content: Some(Some(text.to_owned())),
        };
        self.choice(choice, delta, None)
    }

    fn progress(&self, progress: &PrefillProgress) -> ChatChunk {
        ChatChunk {
            prompt_progress: Some(progress.into()),
            ..self.chunk(Vec::new())
        }
    }

    fn finished(&self, choice: usize, reason: &engine::FinishReason, totals: Option<Totals>) -> Vec<ChatChunk> {
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
