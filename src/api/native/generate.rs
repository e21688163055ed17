//! `POST /api/v1/generate`: the shortest way to a text.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::api::prompts;
use crate::api::respond::respond;
use crate::api::shape::Shape;
use crate::api::state::State;
use crate::api::wire::{FinishReason, PromptProgress, Timings, Usage};
use crate::engine::PrefillProgress;
use crate::generation::{self, Completion, TextRequest, Totals};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/api/v1/generate", post().to(generate));
}

async fn generate(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let parameters = Parameters::of(&body)?;
    let served = state.resolve(parameters.model.as_deref())?;
    let options = parameters.options()?;
    if options.choices != 1 {
        let message = "this endpoint gives one choice; /v1/completions gives several";
        return Err(ApiError::field("n", message));
    }
    let request = TextRequest {
        prompts: vec![prompts::read_one(body.field("prompt"))?],
        options,
    };
    drop(body);
    let outputs = served.chat.continue_text(request).await;
    let outputs = outputs.map_err(|error| ApiError::from(error).about("prompt"))?;
    let shape = Text {
        model: served.name().to_owned(),
    };
    respond(outputs, parameters.streams(), shape).await
}

struct Text {
    model: String,
}

/// A whole answer.
#[derive(Debug, Serialize, JsonSchema)]
struct Generated {
    #[serde(flatten)]
    end: End,
    text: String,
}

/// What is known when the text is complete; the last event of a stream.
#[derive(Debug, Serialize, JsonSchema)]
struct End {
    model: String,
    finish_reason: FinishReason,
    usage: Usage,
    timings: Timings,
}

/// One event of a stream.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Event {
    Text { text: String },
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

    fn whole(&self, completion: Completion) -> Generated {
        let Completion { choices, totals } = completion;
        // There is one prompt, and so one choice.
        let choice = choices.into_iter().next();
        let (text, reason) = choice.map_or((String::new(), generation::FinishReason::EndOfText), |choice| {
            (choice.content, choice.reason)
        });
        Generated {
            end: self.end(&reason, &totals),
            text,
        }
    }

    fn content(&self, _: usize, text: &str) -> Event {
        Event::Text { text: text.to_owned() }
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
