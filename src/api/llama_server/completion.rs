//! `POST /completion` and `POST /completions`: continues texts, and tells all about it.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{Bytes, Data, ServiceConfig, post};
use futures_util::future::{ready, try_join_all};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::Value;

use super::cut::Cut;
use super::error::LlamaError;
use super::events::{About, Last, Partial, Text, select};
use super::fields::Fields;
use super::running::{Running, Step};
use super::settings::Settings;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::parameters::Parameters;
use crate::api::prompts;
use crate::api::requests::CompletionRequest;
use crate::api::respond::served_by;
use crate::api::state::State;
use crate::api::stream::{chunk, event_stream};
use crate::engine::{EngineError, TokenEngine};
use crate::generation::{BiasTarget, Options, Segment, TextPrompt, TextRequest};
use crate::models::{Model, Target};

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/completion", post().to(complete))
        .route("/completions", post().to(complete));
}

/// Continues texts, and tells all about it.
#[utoipa::path(
    post,
    path = "/completion",
    request_body(content = CompletionRequest, example = json!({"prompt": "Once upon a time", "n_predict": 16})),
    responses((
        status = 200,
        description = "The text, a list for several; with `stream` events, the last of which has `stop`.",
        content((Value = "application/json"), (String = "text/event-stream"))
    ))
)]
pub(super) async fn complete(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let mut body = body?;
    let target = state.open(&mut body).await?;
    let prompts = prompts::read(&without_objects(body.field("prompt"))?)?;
    answer(&target, body, prompts).await
}

/// A prompt may stand in an object, beside images and sounds.
fn without_objects(prompt: &Value) -> Result<Value, ApiError> {
    let text = |object: &Value| match (&object["prompt_string"], &object["multimodal_data"]) {
        (Value::Null, _) => Err(ApiError::field(
            "prompt",
            "`prompt` is an object without `prompt_string`",
        )),
        (text, Value::Null) => Ok(text.clone()),
        _ => Err(ApiError::unsupported("multimodal_data", "anything but text")),
    };
    match prompt {
        Value::Object(_) => text(prompt),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            let prompts = list
                .iter()
                .map(|item| if item.is_object() { text(item) } else { Ok(item.clone()) });
            prompts.collect()
        }
        _ => Ok(prompt.clone()),
    }
}

/// Answers prompts by what the rest of the body says.
pub(super) async fn answer(
    target: &Target,
    mut body: Body,
    prompts: Vec<TextPrompt>,
) -> Result<HttpResponse, LlamaError> {
    let model = &target.model;
    let info = model.info();
    let fields = Fields::take(&mut body, info.parallel)?;
    let parameters = Parameters::of(&body)?;
    drop(body);
    let streams = parameters.streams();
    let options = Options {
        // Tells how long the prompt is, before the first text.
        progress: true,
        logprobs: (fields.probabilities > 0).then_some(fields.probabilities),
        ..parameters.options()?
    };
    let settings = settings(&*model.engine, &options, &fields, streams).await?;
    let mut running = Vec::with_capacity(prompts.len() * fields.count);
    let mut substitute = None;
    for prompt in &prompts {
        for _ in 0..fields.count {
            let request = TextRequest {
                prompts: vec![prompt.clone()],
                options: options.clone(),
            };
            let outputs = target.chat().continue_text(request).await?;
            substitute = substitute.or_else(|| outputs.substitute());
            running.push(Running::new(outputs, Cut::new(fields.indent, fields.time)));
        }
    }
    let mut texts = Vec::with_capacity(prompts.len());
    for prompt in &prompts {
        texts.push(prompt_text(&*model.engine, prompt).await?);
    }
    let answers = Answers {
        model: model.clone(),
        name: substitute.as_deref().unwrap_or(model.name()).to_owned(),
        fields,
        settings,
        prompts: texts,
    };
    let by = substitute.as_deref();
    if streams {
        return Ok(served_by(by, event_stream(answers.stream(running))));
    }
    let wholes = running.into_iter().enumerate();
    let mut wholes = try_join_all(wholes.map(|(index, running)| answers.whole(index, running))).await?;
    let response = match wholes.len() {
        1 => HttpResponse::Ok().json(wholes.remove(0)),
        _ => HttpResponse::Ok().json(wholes),
    };
    Ok(served_by(by, response))
}

async fn settings(
    engine: &dyn TokenEngine,
    options: &Options,
    fields: &Fields,
    streams: bool,
) -> Result<Settings, LlamaError> {
    let mut biases = Vec::with_capacity(options.logit_bias.len());
    for (target, bias) in &options.logit_bias {
        match target {
            BiasTarget::Token(token) => biases.push((*token, *bias)),
            BiasTarget::Text(text) => {
                let tokens = engine.tokenize(text.clone(), false, false).await?;
                biases.extend(tokens.into_iter().map(|token| (token, *bias)));
            }
        }
    }
    let sampling = options.sampling.clone().or(&engine.info().sampling);
    let sampling = sampling.resolve(biases).map_err(EngineError::from)?;
    Ok(Settings::of_request(&sampling, options, fields, streams))
}

/// A prompt as the model reads it, control tokens included.
async fn prompt_text(engine: &dyn TokenEngine, prompt: &TextPrompt) -> Result<String, EngineError> {
    let text = prompts::text_of(engine, prompt).await?;
    let Some(Segment::Text(_)) = prompt.0.first() else {
        return Ok(text);
    };
    let begin = match engine.tokenize(String::new(), true, true).await {
        // Only who computes the model knows.
        Err(EngineError::NotSupported { .. } | EngineError::Unavailable { .. }) => return Ok(text),
        begin => begin?,
    };
    let begin = engine.token_pieces(begin).await?.concat();
    Ok(String::from_utf8_lossy(&begin).into_owned() + &text)
}

/// All answers to a request.
struct Answers {
    model: Arc<Model>,
    /// Of the model that answers.
    name: String,
    fields: Fields,
    settings: Settings,
    /// Each has `fields.count` answers.
    prompts: Vec<String>,
}

impl Answers {
    fn about(&self, index: usize) -> About<'_> {
        let prompt = self.prompts.get(index / self.fields.count);
        About {
            model: &self.name,
            context: self.model.info().context,
            settings: &self.settings,
            prompt: prompt.map_or("", String::as_str),
        }
    }

    async fn whole(&self, index: usize, mut running: Running) -> Result<Value, LlamaError> {
        let mut whole = Text::default();
        loop {
            match running.next().await? {
                Step::Progress(_) => {}
                Step::Text { text, tokens, logprobs } => {
                    whole.content.push_str(&text);
                    if self.fields.return_tokens {
                        whole.tokens.extend(tokens);
                    }
                    whole.logprobs.extend(logprobs);
                }
                Step::End(end) => {
                    let last = Last::new(index, &self.about(index), whole, end);
                    return Ok(self.select(&last));
                }
            }
        }
    }

    fn select(&self, last: &Last<'_>) -> Value {
        // These types always become JSON.
        let value = serde_json::to_value(last).unwrap_or_default();
        select(value, &self.fields.response_fields)
    }

    /// The events of all answers, as they come. The first error is the last event.
    fn stream(self, running: Vec<Running>) -> impl Stream<Item = Bytes> {
        let this = Arc::new(self);
        let answers = running.into_iter().enumerate().map(|(index, running)| {
            let this = this.clone();
            let events = stream::unfold(Some(running), move |running| {
                let this = this.clone();
                async move {
                    let mut running = running?;
                    let (event, ended) = this.event(index, &mut running).await;
                    Some((event, (!ended).then_some(running)))
                }
            });
            Box::pin(events)
        });
        stream::select_all(answers).scan(false, |failed, event| {
            let over = std::mem::replace(failed, *failed || event.is_err());
            let event = event.unwrap_or_else(|error| chunk(&error.body()));
            ready((!over).then_some(event))
        })
    }

    /// The next event of an answer, and whether it is the last one.
    async fn event(&self, index: usize, running: &mut Running) -> (Result<Bytes, LlamaError>, bool) {
        loop {
            let step = match running.next().await {
                Ok(step) => step,
                Err(error) => return (Err(error.into()), true),
            };
            let partial = Partial::new(index, &running.totals(), self.fields.timings_per_token);
            match step {
                Step::Progress(progress) if self.fields.return_progress => {
                    return (Ok(chunk(&partial.progress(&progress))), false);
                }
                Step::Progress(_) => {}
                Step::Text { text, tokens, logprobs } => {
                    return (Ok(chunk(&partial.text(&text, &tokens, &logprobs))), false);
                }
                Step::End(end) => {
                    let last = Last::new(index, &self.about(index), Text::default(), end);
                    return (Ok(chunk(&self.select(&last))), true);
                }
            }
        }
    }
}
