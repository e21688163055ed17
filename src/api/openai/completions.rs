//! `POST /v1/completions`: continues a text, without a template.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde_json::{Value, json};

use super::answer::{self, Answer, Shape};
use super::body::Body;
use super::error::ApiError;
use super::request::Common;
use super::state::State;
use crate::engine::{FinishReason, PrefillProgress, Prompt, Timings, Token, Usage};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/completions", post().to(complete));
}

async fn complete(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let common = Common::of(&body)?;
    let served = state.resolve(common.model.as_deref())?;
    let card = served.engine.card();
    let request = common.generate(prompt(body.field("prompt"))?, card)?;
    let shape = Completion {
        id: answer::new_id("cmpl"),
        created: answer::now(),
        model: card.name.clone(),
        include_usage: common.include_usage(),
    };
    let submitted = served.engine.submit(request).await;
    let events = submitted.map_err(|error| ApiError::from(error).about("prompt"))?;
    answer::respond(events, common.streams(), shape).await
}

/// A text, a list with one text, or a list of tokens.
pub(super) fn prompt(value: &Value) -> Result<Prompt, ApiError> {
    let text = |text: &str| Prompt::Text {
        text: text.to_owned(),
        add_special: true,
    };
    let wrong = || ApiError::field("prompt", "`prompt` must be a string or a list of token ids");
    match value {
        Value::String(prompt) => Ok(text(prompt)),
        Value::Array(list) => match list.as_slice() {
            [Value::String(prompt)] => Ok(text(prompt)),
            [Value::String(_), ..] => Err(ApiError::unsupported("prompt", "more than one prompt in a request")),
            [] => Err(wrong()),
            tokens => tokens
                .iter()
                .map(|token| {
                    token
                        .as_i64()
                        .and_then(|token| Token::try_from(token).ok())
                        .ok_or_else(wrong)
                })
                .collect::<Result<_, _>>()
                .map(Prompt::Tokens),
        },
        _ => Err(wrong()),
    }
}

struct Completion {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
}

impl Completion {
    fn object(&self, choices: Value) -> Value {
        json!({
            "id": self.id, "object": "text_completion", "created": self.created, "model": self.model,
            "system_fingerprint": answer::FINGERPRINT, "choices": choices,
        })
    }

    fn chunk(&self, choices: Value) -> Value {
        let mut chunk = self.object(choices);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }
}

fn choice(text: &str, reason: Option<&str>) -> Value {
    json!([{"index": 0, "text": text, "logprobs": null, "finish_reason": reason}])
}

impl Shape for Completion {
    fn whole(&self, answer: &Answer) -> Value {
        let mut whole = self.object(choice(&answer.text, Some(answer::finish_reason(&answer.reason))));
        whole["usage"] = answer::usage_json(answer.usage);
        whole["timings"] = answer::timings_json(answer.usage, answer.timings);
        whole
    }

    fn delta(&mut self, text: &str) -> Value {
        self.chunk(choice(text, None))
    }

    fn progress(&mut self, progress: &PrefillProgress) -> Option<Value> {
        let mut chunk = self.chunk(json!([]));
        chunk["prompt_progress"] = answer::progress_json(progress);
        Some(chunk)
    }

    fn closing(&mut self, reason: &FinishReason, usage: Usage, timings: Timings) -> Vec<Value> {
        let mut chunks = vec![self.chunk(choice("", Some(answer::finish_reason(reason))))];
        if self.include_usage {
            let mut counts = self.chunk(json!([]));
            counts["usage"] = answer::usage_json(usage);
            chunks.push(counts);
        }
        if let Some(last) = chunks.last_mut() {
            last["timings"] = answer::timings_json(usage, timings);
        }
        chunks
    }
}
