//! Generation by a model of this process: its chat template, then its token engine.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use futures_util::future::{BoxFuture, FutureExt};

use super::ChatBackend;
use super::choices::Choices;
use super::conversation::Conversation;
use super::error::GenerationError;
use super::format::text_grammar;
use super::output::OutputStream;
use super::prompt::render;
use super::request::{BiasTarget, ChatRequest, Options, Segment, TextPrompt, TextRequest};
use crate::chat::{Template, TemplateError};
use crate::engine::{EngineError, GenerateRequest, Grammar, Prompt, Token, TokenEngine};

/// Conversations up to these sizes are rendered where they arrive; longer ones would block an async worker for too long.
const INLINE_MESSAGES: usize = 128;
const INLINE_BYTES: usize = 64 * 1024;

/// A token engine and the template of its model. Cheap to clone.
#[derive(Clone)]
pub struct LocalBackend {
    engine: Arc<dyn TokenEngine>,
    /// Compiled when it is first used.
    template: Arc<OnceLock<Result<Template, TemplateError>>>,
}

impl LocalBackend {
    #[must_use]
    pub fn new(engine: Arc<dyn TokenEngine>) -> Self {
        Self {
            engine,
            template: Arc::new(OnceLock::new()),
        }
    }

    fn template(&self) -> Result<&Template, GenerationError> {
        let compiled = self.template.get_or_init(|| {
            let info = self.engine.info();
            if info.chat_template.is_none() {
                tracing::warn!(
                    model = info.name,
                    "the file has no chat template; conversations use ChatML"
                );
            }
            Template::of(info)
        });
        compiled.as_ref().map_err(|error| error.clone().into())
    }

    /// Long conversations are rendered away from the async workers.
    async fn prompt_text(&self, conversation: Conversation) -> Result<String, GenerationError> {
        let bytes = conversation
            .messages
            .iter()
            .map(|message| message.content.len())
            .sum::<usize>();
        if conversation.messages.len() <= INLINE_MESSAGES && bytes <= INLINE_BYTES {
            return render(self.template()?, &conversation);
        }
        let this = self.clone();
        tokio::task::spawn_blocking(move || render(this.template()?, &conversation))
            .await
            .map_err(|error| GenerationError::Internal(error.to_string()))?
    }

    async fn text_prompt(&self, prompt: TextPrompt) -> Result<Prompt, GenerationError> {
        let mut segments = prompt.0;
        if segments.len() <= 1 {
            return Ok(match segments.pop() {
                Some(Segment::Text(text)) => Prompt::Text {
                    text,
                    add_special: true,
                },
                Some(Segment::Tokens(tokens)) => Prompt::Tokens(tokens),
                None => Prompt::Tokens(Vec::new()),
            });
        }
        let mut tokens = Vec::new();
        // As llama-server does: only the first text may bring the tokens that begin every text.
        let mut first = true;
        for segment in segments {
            match segment {
                Segment::Text(text) => {
                    tokens.extend(self.engine.tokenize(text, first, true).await?);
                    first = false;
                }
                Segment::Tokens(more) => tokens.extend(more),
            }
        }
        Ok(Prompt::Tokens(tokens))
    }

    /// Biases by token; the tokens of a text all get its bias.
    async fn logit_bias(&self, biases: Vec<(BiasTarget, f32)>) -> Result<Vec<(Token, f32)>, GenerationError> {
        let mut out = Vec::with_capacity(biases.len());
        for (target, bias) in biases {
            match target {
                BiasTarget::Token(token) => out.push((token, bias)),
                BiasTarget::Text(text) => {
                    let tokens = self.engine.tokenize(text, false, false).await?;
                    out.extend(tokens.into_iter().map(|token| (token, bias)));
                }
            }
        }
        Ok(out)
    }

    async fn submit(
        &self,
        prompts: Vec<Prompt>,
        options: Options,
        grammar: Option<Grammar>,
    ) -> Result<OutputStream, GenerationError> {
        let sampling = options.sampling.or(&self.engine.info().sampling);
        let logit_bias = self.logit_bias(options.logit_bias).await?;
        refuse_to_ban_all(&logit_bias, self.engine.info().vocabulary)?;
        let template = GenerateRequest {
            max_tokens: sampling.max_tokens,
            stop: options.stop,
            stop_tokens: options.stop_tokens,
            ignore_eos: options.ignore_eos,
            cache_prompt: options.cache_prompt,
            special: options.special,
            progress: options.progress,
            grammar,
            logprobs: options.logprobs,
            ..GenerateRequest::new(
                Prompt::Tokens(Vec::new()),
                sampling.resolve(logit_bias).map_err(EngineError::from)?,
            )
        };
        let mut streams = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let request = GenerateRequest {
                prompt,
                ..template.clone()
            };
            streams.push(self.engine.submit(request).await?);
        }
        Ok(OutputStream::new(Choices::new(streams)))
    }
}

/// There is nothing to choose from where no token may come.
fn refuse_to_ban_all(biases: &[(Token, f32)], vocabulary: u32) -> Result<(), GenerationError> {
    let banned = biases.iter().filter(|(_, bias)| *bias == f32::NEG_INFINITY);
    let banned: BTreeSet<Token> = banned.map(|(token, _)| *token).collect();
    if u32::try_from(banned.len()).is_ok_and(|banned| banned < vocabulary) {
        return Ok(());
    }
    Err(GenerationError::InvalidRequest {
        field: "logit_bias",
        message: "`logit_bias` bans every token of the vocabulary".into(),
    })
}

impl ChatBackend for LocalBackend {
    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
        async move {
            let text = self.prompt_text(request.conversation).await?;
            let prompt = Prompt::Text {
                text,
                add_special: true,
            };
            let grammar = text_grammar(request.options.format.clone()).await?;
            self.submit(vec![prompt], request.options, grammar).await
        }
        .boxed()
    }

    fn continue_text(&self, request: TextRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
        async move {
            if request.prompts.is_empty() {
                return Err(GenerationError::InvalidRequest {
                    field: "prompt",
                    message: "there is no prompt".into(),
                });
            }
            let mut prompts = Vec::with_capacity(request.prompts.len());
            for prompt in request.prompts {
                prompts.push(self.text_prompt(prompt).await?);
            }
            let grammar = text_grammar(request.options.format.clone()).await?;
            self.submit(prompts, request.options, grammar).await
        }
        .boxed()
    }

    fn render(&self, conversation: Conversation) -> BoxFuture<'_, Result<String, GenerationError>> {
        self.prompt_text(conversation).boxed()
    }
}
