//! `POST /api/v1/generate`: the shortest way to a text. The prompt is what a user says; with `raw` it is continued as it is.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::body::Body;
use crate::api::described::ServerSentEvent;
use crate::api::error::ApiError;
use crate::api::openai::conversation;
use crate::api::parameters::Parameters;
use crate::api::presets;
use crate::api::prompts;
use crate::api::requests::GenerateRequest;
use crate::api::respond::respond;
use crate::api::shape::Shape;
use crate::api::state::State;
use crate::api::wire::{FinishReason, PromptProgress, Timings, Usage};
use crate::engine::PrefillProgress;
use crate::generation::{
    self, ChatRequest, Completion, Conversation, Message, OutputStream, Role, TextRequest, Totals,
};
use crate::models::Target;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/api/v1/generate", post().to(generate));
}

/// Answers a prompt: the shortest way to a text.
#[utoipa::path(
    post,
    path = "/api/v1/generate",
    request_body(content = GenerateRequest, example = json!({"prompt": "Hello, how are you?"})),
    responses((
        status = 200,
        description = "The text; with `stream` events of type `Event`, then `[DONE]`.",
        content((Generated = "application/json"), (ServerSentEvent = "text/event-stream"))
    ))
)]
pub(super) async fn generate(state: Data<State>, mut body: Body) -> Result<HttpResponse, ApiError> {
    let target = state.open(&mut body).await?;
    let parameters = Parameters::of(&body)?;
    let shape = Text {
        model: target.name().to_owned(),
    };
    let outputs = submit(target, body).await?;
    respond(outputs, parameters.delivery(), shape).await
}

/// Begins what the body asks for.
pub(super) async fn submit(target: Target, body: Body) -> Result<OutputStream, ApiError> {
    let options = Parameters::of(&body)?.options()?;
    if options.choices != 1 {
        let message = "this endpoint gives one choice; /v1/completions gives several";
        return Err(ApiError::field("n", message));
    }
    let outputs = if boolean(&body, "raw")? {
        let prompts = vec![prompts::read_one(body.field("prompt"))?];
        drop(body);
        target.chat().continue_text(TextRequest { prompts, options }).await
    } else {
        let conversation = presets::begin(&target, conversation_of(&body)?);
        drop(body);
        target.chat().chat(ChatRequest { conversation, options }).await
    };
    outputs.map_err(|error| ApiError::from(error).about("prompt"))
}

/// The prompt as a user's message, after the system message if there is one.
fn conversation_of(body: &Body) -> Result<Conversation, ApiError> {
    let Value::String(prompt) = body.field("prompt") else {
        let message = "`prompt` must be a string; with `\"raw\": true` it may be a list of token ids, too";
        return Err(ApiError::field("prompt", message));
    };
    let system = match body.field("system") {
        Value::Null => None,
        Value::String(text) => Some(Message::new(Role::System, text.as_str())),
        _ => return Err(ApiError::field("system", "`system` must be a string")),
    };
    let user = Message::new(Role::User, prompt.as_str());
    let messages = system.into_iter().chain([user]).collect();
    Ok(Conversation {
        // There is no place for calls in the answer.
        tools: Vec::new(),
        ..conversation::of_messages(body, messages)?
    })
}

/// A field that is off unless it is there.
fn boolean(body: &Body, field: &str) -> Result<bool, ApiError> {
    match body.field(field) {
        Value::Null => Ok(false),
        Value::Bool(value) => Ok(*value),
        _ => Err(ApiError::field(field, format!("`{field}` must be true or false"))),
    }
}

struct Text {
    model: String,
}

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
struct Generated {
    #[serde(flatten)]
    end: End,
    text: String,
    /// What the model thought before; left out if it did not.
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning: String,
}

/// What is known when the text is complete; the last event of a stream.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct End {
    model: String,
    finish_reason: FinishReason,
    usage: Usage,
    timings: Timings,
}

/// One event of a stream.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Event {
    Text { text: String },
    Reasoning { reasoning: String },
    Progress { prompt_progress: PromptProgress },
    End(End),
}

impl Text {
    fn end(&self, reason: &generation::FinishReason, totals: &Totals) -> End {
        End {
            model: self.model.clone(),
            finish_reason: reason.into(),
            usage: totals.into(),
            timings: totals.into(),
        }
    }
}

impl Shape for Text {
    type Whole = Generated;
    type Chunk = Event;

    fn served_by(&mut self, model: &str) {
        model.clone_into(&mut self.model);
    }

    fn whole(&self, completion: Completion) -> Generated {
        let Completion { choices, totals } = completion;
        // There is one prompt, and so one choice.
        let Some(choice) = choices.into_iter().next() else {
            return Generated {
                end: self.end(&generation::FinishReason::EndOfText, &totals),
                text: String::new(),
                reasoning: String::new(),
            };
        };
        Generated {
            end: self.end(&choice.reason, &totals),
            text: choice.content,
            reasoning: choice.reasoning,
        }
    }

    fn content(&self, _: usize, text: &str) -> Event {
        Event::Text { text: text.to_owned() }
    }

    fn reasoning(&self, _: usize, text: &str) -> Option<Event> {
        Some(Event::Reasoning {
            reasoning: text.to_owned(),
        })
    }

    fn progress(&self, progress: &PrefillProgress) -> Event {
        Event::Progress {
            prompt_progress: progress.into(),
        }
    }

    fn finished(&self, _: usize, reason: &generation::FinishReason, totals: Option<Totals>) -> Vec<Event> {
        let totals = totals.unwrap_or_default();
        vec![Event::End(self.end(reason, &totals))]
    }
}
