//! Other models that answer where one cannot.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};

use super::ChatBackend;
use super::conversation::Conversation;
use super::error::GenerationError;
use super::output::OutputStream;
use super::request::{BiasTarget, ChatRequest, Options, Segment, TextRequest};
use crate::config::FallbackOn;
use crate::engine::EngineError;
use crate::telemetry::Metrics;

/// Finds models by their names, as they are now: they come and go.
pub trait Alternatives: Send + Sync + 'static {
    /// What answers for the model of this name, which may have to be loaded first; `None` if there is none.
    fn named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Arc<dyn ChatBackend>>>;
}

/// Who stands in for a model, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Substitutes {
    /// In the order in which they are tried.
    pub models: Vec<String>,
    pub on: Vec<FallbackOn>,
}

/// A model for which others answer where it cannot: as long as it has not begun to answer, and never after.
pub struct Fallback {
    model: String,
    primary: Arc<dyn ChatBackend>,
    substitutes: Substitutes,
    alternatives: Arc<dyn Alternatives>,
    metrics: Metrics,
}

impl Fallback {
    /// `model` is the name of the model or preset that is asked.
    #[must_use]
    pub fn new(
        model: &str,
        primary: Arc<dyn ChatBackend>,
        substitutes: Substitutes,
        alternatives: Arc<dyn Alternatives>,
        metrics: Metrics,
    ) -> Self {
        Self {
            model: model.to_owned(),
            primary,
            substitutes,
            alternatives,
            metrics,
        }
    }

    /// Asks the model, then the others; `ask` sends the request to one of them.
    ///
    /// A stream counts as begun with its first piece: so long the response has no head.
    async fn answer<'a, F>(&'a self, portable: bool, ask: F) -> Result<OutputStream, GenerationError>
    where
        F: Fn(Arc<dyn ChatBackend>) -> BoxFuture<'a, Result<OutputStream, GenerationError>>,
    {
        let error = match begun(ask(self.primary.clone())).await {
            Ok(outputs) => return Ok(outputs),
            Err(error) => error,
        };
        let Some(reason) = self.reason(&error).filter(|_| portable) else {
            return Err(error);
        };
        for name in &self.substitutes.models {
            let Some(other) = self.alternatives.named(name).await else {
                continue;
            };
            match begun(ask(other)).await {
                Ok(outputs) => {
                    tracing::info!(
                        model = self.model,
                        to = name,
                        reason = reason.name(),
                        "another model answers: {error}"
                    );
                    self.metrics.count_fallback(&self.model, name, reason.name());
                    return Ok(outputs.served_by(name));
                }
                Err(error) => tracing::warn!(model = self.model, to = name, "it cannot answer either: {error}"),
            }
        }
        // What is wrong with the model that was asked says most.
        Err(error)
    }

    /// Why others may answer after this error, if they may.
    fn reason(&self, error: &GenerationError) -> Option<FallbackOn> {
        let reasons = reasons(error);
        reasons
            .iter()
            .find(|reason| self.substitutes.on.contains(reason))
            .copied()
    }
}

async fn begun(asked: BoxFuture<'_, Result<OutputStream, GenerationError>>) -> Result<OutputStream, GenerationError> {
    asked.await?.begun().await
}

/// What kind of failure an error is; none for mistakes of the request.
fn reasons(error: &GenerationError) -> &'static [FallbackOn] {
    use FallbackOn::{EngineError as Failed, LoadFailed, Maintenance, Overloaded, Timeout};
    match error {
        GenerationError::Engine(error) => match error {
            EngineError::QueueFull { .. } | EngineError::Overloaded { .. } => &[Overloaded],
            // It could not be loaded, or died later.
            EngineError::Unavailable { .. } => &[LoadFailed, Failed],
            EngineError::Compute { .. } | EngineError::Upstream { .. } => &[Failed],
            EngineError::Timeout { .. } => &[Timeout],
            EngineError::Loading { .. }
            | EngineError::NotLoaded { .. }
            | EngineError::Maintenance { .. }
            | EngineError::ShuttingDown => &[Maintenance],
            EngineError::ContextExceeded { .. }
            | EngineError::PromptTooLong { .. }
            | EngineError::InvalidRequest { .. }
            | EngineError::NotSupported { .. } => &[],
        },
        GenerationError::Unfinished | GenerationError::Internal(_) => &[Failed],
        GenerationError::Template(_) | GenerationError::InvalidRequest { .. } => &[],
    }
}

/// Whether options mean the same to another model: its tokens have other numbers.
fn is_portable(options: &Options) -> bool {
    let is_token = |(target, _): &(BiasTarget, f32)| matches!(target, BiasTarget::Token(_));
    options.stop_tokens.is_empty() && !options.logit_bias.iter().any(is_token)
}

impl ChatBackend for Fallback {
    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
        let portable = is_portable(&request.options);
        self.answer(portable, move |backend| {
            let request = request.clone();
            async move { backend.chat(request).await }.boxed()
        })
        .boxed()
    }

    fn continue_text(&self, request: TextRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
        let mut segments = request.prompts.iter().flat_map(|prompt| &prompt.0);
        let portable = is_portable(&request.options) && segments.all(|segment| matches!(segment, Segment::Text(_)));
        self.answer(portable, move |backend| {
            let request = request.clone();
            async move { backend.continue_text(request).await }.boxed()
        })
        .boxed()
    }

    fn render(&self, conversation: Conversation) -> BoxFuture<'_, Result<String, GenerationError>> {
        self.primary.render(conversation)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::stream;

    use super::super::conversation::{Message, Role};
    use super::super::output::{FinishReason, Output, Piece, Totals};
    use super::*;

    /// Answers with these outputs, or refuses.
    struct Scripted(Result<Vec<Result<Piece, GenerationError>>, GenerationError>);

    impl ChatBackend for Scripted {
        fn chat(&self, _: ChatRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
            let outputs = self.0.clone().map(|pieces| {
                let output = |piece| Output {
                    choice: 0,
                    piece,
                    tokens: 0,
                };
                OutputStream::new(stream::iter(pieces.into_iter().map(move |piece| piece.map(output))))
            });
            async { outputs }.boxed()
        }

        fn continue_text(&self, _: TextRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
            self.chat(ChatRequest::default())
        }

        fn render(&self, _: Conversation) -> BoxFuture<'_, Result<String, GenerationError>> {
            async { Ok("rendered".into()) }.boxed()
        }
    }

    struct Others(Vec<(&'static str, Arc<dyn ChatBackend>)>);

    impl Alternatives for Others {
        fn named<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Option<Arc<dyn ChatBackend>>> {
            let found = self.0.iter().find(|(known, _)| *known == name);
            let found = found.map(|(_, backend)| backend.clone());
            async { found }.boxed()
        }
    }

    fn says(text: &str) -> Vec<Result<Piece, GenerationError>> {
        vec![
            Ok(Piece::Content {
                text: text.into(),
                tokens: Vec::new(),
                logprobs: Vec::new(),
            }),
            Ok(Piece::Finished {
                reason: FinishReason::EndOfText,
                totals: Some(Totals::default()),
            }),
        ]
    }

    fn full() -> GenerationError {
        EngineError::QueueFull {
            model: "m".into(),
            limit: 1,
            retry_after: Duration::from_secs(1),
        }
        .into()
    }

    fn compute() -> GenerationError {
        EngineError::Compute {
            model: "m".into(),
            reason: "x".into(),
        }
        .into()
    }

    fn fallback(primary: Scripted, on: &[FallbackOn], metrics: &Metrics) -> Fallback {
        let others = Others(vec![
            ("broken", Arc::new(Scripted(Err(compute())))),
            ("good", Arc::new(Scripted(Ok(says("good"))))),
        ]);
        let substitutes = Substitutes {
            models: ["absent", "broken", "good"].map(str::to_owned).to_vec(),
            on: on.to_vec(),
        };
        Fallback::new("m", Arc::new(primary), substitutes, Arc::new(others), metrics.clone())
    }

    fn ask(primary: Scripted, on: &[FallbackOn]) -> (Result<String, GenerationError>, Option<String>) {
        let outputs = fallback(primary, on, &Metrics::new())
            .chat(request())
            .now_or_never()
            .unwrap();
        match outputs {
            Ok(outputs) => {
                let by = outputs.substitute().map(|by| by.to_string());
                let whole = outputs.collect().now_or_never().unwrap();
                (whole.map(|whole| whole.choices[0].content.clone()), by)
            }
            Err(error) => (Err(error), None),
        }
    }

    fn request() -> ChatRequest {
        ChatRequest {
            conversation: Conversation {
                messages: vec![Message::new(Role::User, "hello")],
                ..Conversation::default()
            },
            options: Options::default(),
        }
    }

    #[test]
    fn others_answer_until_the_first_piece() {
        let good = (Ok("good".to_owned()), Some("good".to_owned()));
        let all = &FallbackOn::ALL;
        assert_eq!(ask(Scripted(Ok(says("m"))), all), (Ok("m".into()), None));
        assert_eq!(ask(Scripted(Err(full())), all), good);
        // A stream that breaks before anything came of it.
        assert_eq!(ask(Scripted(Ok(vec![Err(compute())])), all), good);
        assert_eq!(ask(Scripted(Ok(vec![])), all), good);
        // But not after.
        let mut breaks = says("m");
        breaks[1] = Err(compute());
        assert_eq!(ask(Scripted(Ok(breaks)), all), (Err(compute()), None));
    }

    #[test]
    fn only_for_the_reasons_that_are_named() {
        assert_eq!(ask(Scripted(Err(full())), &[FallbackOn::Timeout]), (Err(full()), None));
        let wrong = GenerationError::InvalidRequest {
            field: "n",
            message: "n".into(),
        };
        assert_eq!(ask(Scripted(Err(wrong.clone())), &FallbackOn::ALL), (Err(wrong), None));
    }

    #[test]
    fn tokens_are_no_words_of_another_model() {
        let metrics = Metrics::new();
        let fallback = fallback(Scripted(Err(full())), &FallbackOn::ALL, &metrics);
        let mut with_tokens = request();
        with_tokens.options.stop_tokens = vec![1];
        assert!(fallback.chat(with_tokens).now_or_never().unwrap().is_err());
        assert!(fallback.chat(request()).now_or_never().unwrap().is_ok());
        let line = "hearth_fallbacks_total{model=\"m\",reason=\"overloaded\",to=\"good\"} 1";
        assert!(metrics.encode(Vec::new()).contains(line));
    }
}
