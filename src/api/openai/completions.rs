//! `POST /v1/completions`: continues texts, without a template.

use std::cell::RefCell;

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::logprobs::TextLogprobs;
use crate::api::body::Body;
use crate::api::described::ServerSentEvent;
use crate::api::error::ApiError;
use crate::api::limits;
use crate::api::parameters::Parameters;
use crate::api::prompts;
use crate::api::requests::CompletionRequest;
use crate::api::respond::respond;
use crate::api::shape::Shape;
use crate::api::state::State;
use crate::api::wire::{Envelope, FinishReason, PromptProgress, Timings, Usage};
use crate::engine::{PrefillProgress, Prompt, RoutedExperts, TokenLogprob};
use crate::generation::{self, Completion, Segment, TextPrompt, TextRequest, Totals};

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
        content((TextCompletion = "application/json"), (ServerSentEvent = "text/event-stream"))
    ))
)]
pub(super) async fn complete(state: Data<State>, mut body: Body) -> Result<HttpResponse, ApiError> {
    let target = state.open(&mut body).await?;
    let parameters = Parameters::of(&body)?;
    let options = parameters.options()?;
    let more: More = body.read()?;
    let mut shape = Text {
        envelope: Envelope::new("cmpl", "text_completion", target.name()),
        include_usage: parameters.include_usage(),
        logprobs: options.logprobs.is_some(),
        offsets: RefCell::default(),
        choices: options.choices as usize,
        echo: Vec::new(),
    };
    let mut prompts = prompts::read(body.field("prompt"))?;
    if more.echo {
        if shape.logprobs {
            return Err(ApiError::unsupported("echo", "probabilities of the prompt"));
        }
        for prompt in &prompts {
            shape.echo.push(prompts::text_of(&*target.model.engine, prompt).await?);
        }
    }
    if let Some(suffix) = more.suffix.filter(|suffix| !suffix.is_empty()) {
        let [TextPrompt(prompt)] = prompts.as_mut_slice() else {
            return Err(ApiError::field("suffix", "`suffix` goes with one prompt"));
        };
        let [Segment::Text(before)] = prompt.as_mut_slice() else {
            return Err(ApiError::field("suffix", "`suffix` goes with a prompt that is a text"));
        };
        if let Prompt::Tokens(tokens) = target.model.engine.infill(std::mem::take(before), suffix).await? {
            *prompt = vec![Segment::Tokens(tokens)];
        }
    }
    if prompts.len() * options.choices as usize > limits::PROMPTS {
        let message = format!("`n` choices of each prompt are more than {} together", limits::PROMPTS);
        return Err(ApiError::field("n", message));
    }
    let request = TextRequest { prompts, options };
    drop(body);
    let outputs = target.chat().continue_text(request).await;
    let outputs = outputs.map_err(|error| ApiError::from(error).about("prompt"))?;
    respond(outputs, parameters.delivery(), shape).await
}

/// What only this endpoint knows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct More {
    /// The answer begins with the prompt.
    #[serde(deserialize_with = "truth")]
    echo: bool,
    /// The text that comes behind the answer.
    suffix: Option<String>,
}

/// True, false or null.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(false))
}

struct Text {
    envelope: Envelope,
    include_usage: bool,
    logprobs: bool,
    /// By choice, where the next token begins.
    offsets: RefCell<Vec<usize>>,
    /// Choices of each prompt.
    choices: usize,
    /// The prompts, if answers begin with them.
    echo: Vec<String>,
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
    logprobs: Option<TextLogprobs>,
    /// By generated token and layer, the experts that computed it; with `return_routed_experts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    routed_experts: Option<RoutedExperts>,
    finish_reason: Option<FinishReason>,
}

impl Text {
    /// What a choice begins with.
    fn echo_of(&self, index: usize) -> &str {
        self.echo.get(index / self.choices.max(1)).map_or("", String::as_str)
    }

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
        logprobs: None,
        routed_experts: None,
        finish_reason,
    }
}

impl Shape for Text {
    type Whole = TextCompletion;
    type Chunk = TextCompletion;

    fn served_by(&mut self, model: &str) {
        self.envelope.served_by(model);
    }

    fn whole(&self, completion: Completion) -> TextCompletion {
        let choices = (0..).zip(completion.choices).map(|(index, whole)| Choice {
            logprobs: self.logprobs.then(|| TextLogprobs::new(&whole.logprobs, &mut 0)),
            routed_experts: whole.routed_experts,
            ..choice(
                index,
                self.echo_of(index).to_owned() + &whole.content,
                Some((&whole.reason).into()),
            )
        });
        TextCompletion {
            usage: Some(Some((&completion.totals).into())),
            timings: Some((&completion.totals).into()),
            ..self.chunk(choices.collect())
        }
    }

    fn opening(&self, index: usize) -> Option<TextCompletion> {
        let echo = self.echo_of(index);
        (!echo.is_empty()).then(|| self.chunk(vec![choice(index, echo.to_owned(), None)]))
    }

    fn content(&self, index: usize, text: &str) -> TextCompletion {
        self.chunk(vec![choice(index, text.to_owned(), None)])
    }

    fn content_with_logprobs(&self, index: usize, text: &str, logprobs: &[TokenLogprob]) -> TextCompletion {
        let mut offsets = self.offsets.borrow_mut();
        if offsets.len() <= index {
            offsets.resize(index + 1, 0);
        }
        self.chunk(vec![Choice {
            logprobs: Some(TextLogprobs::new(logprobs, &mut offsets[index])),
            ..choice(index, text.to_owned(), None)
        }])
    }

    fn routed_experts(&self, index: usize, routed: RoutedExperts) -> Option<TextCompletion> {
        let choice = Choice {
            routed_experts: Some(routed),
            ..choice(index, String::new(), None)
        };
        Some(self.chunk(vec![choice]))
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
