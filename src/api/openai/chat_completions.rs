//! `POST /v1/chat/completions`, also at `/api/v1/chat/completions`.

use actix_web::HttpResponse;
use std::sync::Arc;

use actix_web::web::{Data, ServiceConfig, block, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{self, Answer, Shape};
use super::body::Body;
use super::error::ApiError;
use super::limits;
use super::messages;
use super::request::Common;
use super::state::{Served, State};
use crate::chat::RenderInput;
use crate::engine::{FinishReason, PrefillProgress, Prompt, Timings, Usage};

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/v1/chat/completions", post().to(complete))
        .route("/api/v1/chat/completions", post().to(complete));
}

/// What a conversation adds to the common fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conversation {
    chat_template_kwargs: Option<Map<String, Value>>,
    add_generation_prompt: Option<bool>,
    continue_final_message: Option<bool>,
    reasoning_effort: Option<String>,
}

async fn complete(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let common = Common::of(&body)?;
    let served = state.resolve(common.model.as_deref())?.clone();
    let text = render(served.clone(), body).await?;
    let prompt = Prompt::Text {
        text,
        add_special: true,
    };
    let card = served.engine.card();
    let request = common.generate(prompt, card)?;
    let shape = Chat {
        id: answer::new_id("chatcmpl"),
        created: answer::now(),
        model: card.name.clone(),
        include_usage: common.include_usage(),
    };
    let events = served.engine.submit(request).await?;
    answer::respond(events, common.streams(), shape).await
}

/// The prompt of a conversation, through the model's own template. Long conversations are rendered away from the async
/// workers.
pub(super) async fn render(served: Arc<Served>, body: Body) -> Result<String, ApiError> {
    let many = body.field("messages").as_array().map_or(0, Vec::len) > limits::INLINE_MESSAGES;
    if !many && !body.is_large() {
        return render_now(&served, &body);
    }
    block(move || render_now(&served, &body))
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?
}

fn render_now(served: &Served, body: &Body) -> Result<String, ApiError> {
    let conversation: Conversation = body.read()?;
    let mut messages = messages::normalise(body.field("messages"))?;
    let tools = match body.field("tool_choice") {
        Value::String(choice) if choice == "none" => Vec::new(),
        Value::Null => messages::tools(body.field("tools"))?,
        Value::String(choice) if choice == "auto" => messages::tools(body.field("tools"))?,
        _ => {
            return Err(ApiError::unsupported(
                "tool_choice",
                "anything but \"auto\" and \"none\"",
            ));
        }
    };
    let continues = conversation.continue_final_message.unwrap_or(false);
    let generation_prompt = conversation.add_generation_prompt.unwrap_or(!continues);
    if continues && generation_prompt {
        let message = "`continue_final_message` and `add_generation_prompt` contradict each other";
        return Err(ApiError::field("continue_final_message", message));
    }
    let mut variables = conversation.chat_template_kwargs.unwrap_or_default();
    if let Some(effort) = conversation.reasoning_effort {
        variables.entry("reasoning_effort").or_insert(effort.into());
    }
    if continues && let Some(last) = messages.last_mut() {
        let content = last["content"].as_str().unwrap_or_default();
        last["content"] = format!("{content}{MARK}").into();
    }
    let text = served.template()?.render(&RenderInput {
        messages,
        tools,
        add_generation_prompt: generation_prompt,
        variables,
    })?;
    if continues { open_end(text) } else { Ok(text) }
}

/// Cuts the text where the last message ends: what the template puts behind it would close it.
fn open_end(mut text: String) -> Result<String, ApiError> {
    let Some(end) = text.rfind(MARK.trim_end()) else {
        let message = "the model's chat template does not print the content of the final message";
        return Err(ApiError::field("continue_final_message", message));
    };
    // A template that trims the content took the mark's space; then it would have trimmed what is before the mark too.
    let trims = !text[end..].starts_with(MARK);
    text.truncate(end);
    if trims {
        text.truncate(text.trim_end().len());
    }
    Ok(text)
}

/// Stands at the end of the message that is to be continued while the template is rendered. The same means, with the
/// same meaning of the space, as in Hugging Face's `apply_chat_template`.
const MARK: &str = "CONTINUE_FINAL_MESSAGE_HERE ";

struct Chat {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
}

impl Chat {
    fn chunk(&self, choices: Value) -> Value {
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "system_fingerprint": answer::FINGERPRINT, "choices": choices,
        });
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn choice(&self, delta: Value, reason: Option<&str>) -> Value {
        self.chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]))
    }
}

impl Shape for Chat {
    fn whole(&self, answer: &Answer) -> Value {
        json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "system_fingerprint": answer::FINGERPRINT,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": answer.text, "refusal": null},
                "logprobs": null,
                "finish_reason": answer::finish_reason(&answer.reason),
            }],
            "usage": answer::usage_json(answer.usage),
            "timings": answer::timings_json(answer.usage, answer.timings),
        })
    }

    fn opening(&mut self) -> Option<Value> {
        Some(self.choice(json!({"role": "assistant", "content": null}), None))
    }

    fn delta(&mut self, text: &str) -> Value {
        self.choice(json!({ "content": text }), None)
    }

    fn progress(&mut self, progress: &PrefillProgress) -> Option<Value> {
        let mut chunk = self.chunk(json!([]));
        chunk["prompt_progress"] = answer::progress_json(progress);
        Some(chunk)
    }

    fn closing(&mut self, reason: &FinishReason, usage: Usage, timings: Timings) -> Vec<Value> {
        let mut last = self.choice(json!({}), Some(answer::finish_reason(reason)));
        let mut chunks = Vec::new();
        if self.include_usage {
            let mut counts = self.chunk(json!([]));
            counts["usage"] = answer::usage_json(usage);
            counts["timings"] = answer::timings_json(usage, timings);
            chunks.push(counts);
        } else {
            last["timings"] = answer::timings_json(usage, timings);
        }
        chunks.insert(0, last);
        chunks
    }
}
