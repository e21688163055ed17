//! `POST /api/v1/generate`: the shortest way to a text.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde_json::{Value, json};

use super::answer::{self, Answer, Shape};
use super::body::Body;
use super::completions;
use super::error::ApiError;
use super::request::Common;
use super::state::State;
use crate::engine::{FinishReason, PrefillProgress, Timings, Usage};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/api/v1/generate", post().to(generate));
}

async fn generate(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let common = Common::of(&body)?;
    let served = state.resolve(common.model.as_deref())?;
    let card = served.engine.card();
    let request = common.generate(completions::prompt(body.field("prompt"))?, card)?;
    let submitted = served.engine.submit(request).await;
    let events = submitted.map_err(|error| ApiError::from(error).about("prompt"))?;
    let shape = Text {
        model: card.name.clone(),
    };
    answer::respond(events, common.streams(), shape).await
}

struct Text {
    model: String,
}

impl Text {
    fn end(&self, reason: &FinishReason, usage: Usage, timings: Timings) -> Value {
        json!({
            "model": self.model, "finish_reason": answer::finish_reason(reason),
            "usage": answer::usage_json(usage), "timings": answer::timings_json(usage, timings),
        })
    }
}

impl Shape for Text {
    fn whole(&self, answer: &Answer) -> Value {
        let mut whole = self.end(&answer.reason, answer.usage, answer.timings);
        whole["text"] = answer.text.as_str().into();
        whole
    }

    fn delta(&mut self, text: &str) -> Value {
        json!({ "text": text })
    }

    fn progress(&mut self, progress: &PrefillProgress) -> Option<Value> {
        Some(json!({"prompt_progress": answer::progress_json(progress)}))
    }

    fn closing(&mut self, reason: &FinishReason, usage: Usage, timings: Timings) -> Vec<Value> {
        vec![self.end(reason, usage, timings)]
    }
}
