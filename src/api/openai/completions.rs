//! `POST /v1/completions`: continues texts, without a template.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::api::prompts;
use crate::api::requests::CompletionRequest;
use crate::api::respond::respond;
use crate::api::shape::Shape;
use crate::api::state::State;
use crate::api::wire::{Envelope, FinishReason, PromptProgress, Timings, Usage};
use crate::engine::PrefillProgress;
use crate::generation::{self, Completion, TextRequest, Totals};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/completions", post().to(complete));
}

/// Continues texts, without a template.
#[utoipa::path(
    post,
    path = "/v1/completions",
    request_body(content = CompletionRequest, example = json!({"prompt": "Once upon a time", "max_tokens": 32})),
    responses((
        status = 200,
        description = "The texts; with `stream` events of type `TextCompletion`, then `[DONE]`.",
        content((TextCompletion = "application/json"), (String = "text/event-stream"))
    ))
)]
pub(super) async fn complete(state: Data<State>, mut body: Body) -> Result<HttpResponse, ApiError> {
    let target = state.open(&mut body)?;
    let parameters = Parameters::of(&body)?;
    let shape = Text {
        envelope: Envelope::new("cmpl", "text_completion", target.name()),
        include_usage: parameters.include_usage(),
    };
    let request = TextRequest {
        prompts: prompts::read(body.field("prompt"))?,
        options: parameters.options()?,
    };
    drop(body);
    let outputs = target.model.chat.continue_text(request).await;
    let outputs = outputs.map_err(|error| ApiError::from(error).about("prompt"))?;
    respond(outputs, parameters.streams(), shape).await
}

struct Text {
    envelope: Envelope,
    include_usage: bool,
}

/// A whole answer, or one event of a streamed one.
#[derive(Debug, Serialize, ToSchema)]
struct TextCompletion {
    #[serde(flatten)]
    envelope: Envelope,
    choices: Vec<Choice>,
    /// In streams left out unless the request has `include_usage`; then null in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_progress: Option<PromptProgress>,
    /// In the last chunk of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TextChoice)]
struct Choice {
    /// The prompt's place in the request.
    index: usize,
    text: String,
    /// Not supported yet.
    logprobs: (),
    finish_reason: Option<FinishReason>,
}

impl Text {
    fn chunk(&self, choices: Vec<Choice>) -> TextCompletion {
        TextCompletion {
            envelope: self.envelope.clone(),
            choices,
            usage: self.include_usage.then_some(None),
            prompt_progress: None,
            timings: None,
        }
    }
}

fn choice(index: usize, text: String, finish_reason: Option<FinishReason>) -> Choice {
    Choice {
        index,
        text,
        logprobs: (),
        finish_reason,
    }
}

impl Shape for Text {
    type Whole = TextCompletion;
    type Chunk = TextCompletion;

    fn whole(&self, completion: Completion) -> TextCompletion {
        let choices = (0..)
            .zip(completion.choices)
            .map(|(index, whole)| choice(index, whole.content, Some((&whole.reason).into())));
        TextCompletion {
            usage: Some(Some((&completion.totals).into())),
            timings: Some((&completion.totals).into()),
            ..self.chunk(choices.collect())
        }
    }

    fn content(&self, index: usize, text: &str) -> TextCompletion {
        self.chunk(vec![choice(index, text.to_owned(), None)])
    }

    fn progress(&self, progress: &PrefillProgress) -> TextCompletion {
        TextCompletion {
            prompt_progress: Some(progress.into()),
            ..self.chunk(Vec::new())
        }
    }

    fn finished(&self, index: usize, reason: &generation::FinishReason, totals: Option<Totals>) -> Vec<TextCompletion> {
        let mut chunks = vec![self.chunk(vec![choice(index, String::new(), Some(reason.into()))])];
        let Some(totals) = &totals else { return chunks };
        if self.include_usage {
            chunks.push(TextCompletion {
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
