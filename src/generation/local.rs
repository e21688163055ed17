//! Generation by a model of this process: its chat template, then its token engine.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};

use super::ChatBackend;
use super::answer::{self, Steps};
use super::choices::Choices;
use super::conversation::Conversation;
use super::error::GenerationError;
use super::format::text_grammar;
use super::literal::Part;
use super::next_turn::NextTurn;
use super::output::OutputStream;
use super::prompts::Prompts;
use super::request::{BiasTarget, ChatRequest, Options, OutputFormat, TextRequest};
use super::template::Prepared;
use super::thoughts::Thoughts;
use crate::engine::{
    EngineError, EventStream, GenerateRequest, Grammar, Prompt, ReasoningBudget, Token, TokenEngine, Trigger,
};
use crate::llama::chat::{Rendered, TriggerKind};

/// A token engine and the prompts of its model. Cheap to clone.
#[derive(Clone)]
pub struct LocalBackend {
    engine: Arc<dyn TokenEngine>,
    prompts: Prompts,
}

impl LocalBackend {
    #[must_use]
    pub fn new(engine: Arc<dyn TokenEngine>) -> Self {
        Self {
            prompts: Prompts::new(engine.clone()),
            engine,
        }
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

    /// What all requests of an answer have in common.
    async fn request(&self, options: Options) -> Result<GenerateRequest, GenerationError> {
        let sampling = options.sampling.or(&self.engine.info().sampling);
        let logit_bias = self.logit_bias(options.logit_bias).await?;
        refuse_to_ban_all(&logit_bias, self.engine.info().vocabulary)?;
        Ok(GenerateRequest {
            max_tokens: sampling.max_tokens,
            stop: options.stop,
            stop_tokens: options.stop_tokens,
            ignore_eos: options.ignore_eos,
            cache_prompt: options.cache_prompt,
            special: options.special,
            progress: options.progress,
            logprobs: options.logprobs,
            routed_experts: options.routed_experts,
            ..GenerateRequest::new(
                Prompt::Tokens(Vec::new()),
                sampling.resolve(logit_bias).map_err(EngineError::from)?,
            )
        })
    }

    /// Submits a request once for each choice; they differ in their seeds. The engine computes the prompt once.
    async fn submit(&self, mut request: GenerateRequest, choices: u32) -> Result<Vec<EventStream>, GenerationError> {
        if choices > 1
            && let Prompt::Text { text, add_special } = request.prompt
        {
            // Once, so that the requests come together.
            request.prompt = Prompt::Tokens(self.engine.tokenize(text, add_special, true).await?);
        }
        let mut streams = Vec::with_capacity(choices as usize);
        for choice in 0..choices {
            let mut request = request.clone();
            request.sampling.seed = request.sampling.seed.map(|seed| seed.wrapping_add(choice));
            streams.push(self.engine.submit(request).await?);
        }
        Ok(streams)
    }

    async fn answer(&self, request: ChatRequest) -> Result<OutputStream, GenerationError> {
        let ChatRequest { conversation, options } = request;
        let next = NextTurn::after(&self.engine, &self.prompts, &conversation, &options);
        let (format, choices) = (options.format.clone(), options.choices);
        let budget = conversation.reasoning_budget;
        let Prepared {
            rendered,
            parts,
            parser,
            form,
        } = self.prompts.render(conversation, &format).await?;
        let mut generate = self.request(options).await?;
        generate.preserved = self.prompts.preserved(&rendered).await?;
        generate.borders = self.prompts.borders(&rendered).await?;
        generate.grammar = match format {
            OutputFormat::Grammar(text) => Some(Grammar::new(own_grammar(text, &rendered))),
            _ => self.grammar(&rendered).await?,
        };
        if let Some(budget) = budget {
            generate.reasoning_budget = self.budget(budget, &rendered).await?;
        }
        generate.stop.extend(rendered.stops.iter().cloned());
        generate.prompt = self.prompts.chat_prompt(parts).await?;
        let streams = self.submit(generate, choices).await?.into_iter();
        let steps = streams.map(|events| answer::parsed(events, parser.clone(), form.clone(), rendered.stops.clone()));
        let mut steps: Vec<Steps> = steps.collect();
        if let Some(next) = next
            && let Some(only) = steps.pop()
        {
            steps.push(next.watch(only));
        }
        Ok(OutputStream::new(Choices::new(steps, choices as usize)))
    }

    /// A bound for the thoughts; `None` for a model that does not think, or in a way that is not known.
    async fn budget(&self, budget: u32, rendered: &Rendered) -> Result<Option<ReasoningBudget>, GenerationError> {
        let (start, Some(end)) = (&rendered.thinking_start, rendered.thinking_ends.first()) else {
            return Ok(None);
        };
        if start.is_empty() {
            return Ok(None);
        }
        Ok(Some(ReasoningBudget {
            start: self.engine.tokenize(start.clone(), false, true).await?,
            end: self.engine.tokenize(end.clone(), false, true).await?,
            budget,
            already_open: rendered.parser.generation_prompt.trim_end().ends_with(start.as_str()),
        }))
    }

    /// The grammar of calls, or of the answer's form.
    async fn grammar(&self, rendered: &Rendered) -> Result<Option<Grammar>, GenerationError> {
        if rendered.grammar.is_empty() {
            return Ok(None);
        }
        let mut triggers = Vec::new();
        for trigger in &rendered.triggers {
            let text = trigger.value.clone();
            triggers.push(match trigger.kind() {
                // A control token is found without looking at the text.
                Some(TriggerKind::Word) if rendered.preserved.contains(&text) => {
                    match self.prompts.single_token(&text).await? {
                        Some(token) => Trigger::Token(token),
                        None => Trigger::Word(text),
                    }
                }
                Some(TriggerKind::Word) => Trigger::Word(text),
                Some(TriggerKind::Pattern) => Trigger::Pattern(text),
                Some(TriggerKind::PatternFull) => Trigger::PatternFull(text),
                None => continue,
            });
        }
        Ok(Some(Grammar {
            triggers: rendered.lazy.then_some(triggers),
            // The grammar begins where the assistant's turn does.
            prefix: if rendered.lazy {
                "".into()
            } else {
                rendered.parser.generation_prompt.as_str().into()
            },
            ..Grammar::new(rendered.grammar.as_str())
        }))
    }
}

/// A client's grammar is that of the answer, after the thoughts.
fn own_grammar(text: String, rendered: &Rendered) -> String {
    let end = rendered.thinking_ends.first().map_or("", String::as_str);
    match Thoughts::of(&rendered.thinking_start, end, &rendered.parser.generation_prompt) {
        Some(thoughts) if rendered.thinks => thoughts.before(&text),
        _ => text,
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
        self.answer(request).boxed()
    }

    fn continue_text(&self, request: TextRequest) -> BoxFuture<'_, Result<OutputStream, GenerationError>> {
        async move {
            if request.prompts.is_empty() {
                return Err(GenerationError::InvalidRequest {
                    field: "prompt",
                    message: "there is no prompt".into(),
                });
            }
            let choices = request.options.choices;
            let grammar = text_grammar(request.options.format.clone()).await?;
            let template = GenerateRequest {
                grammar,
                ..self.request(request.options).await?
            };
            let mut streams: Vec<EventStream> = Vec::with_capacity(request.prompts.len());
            for prompt in request.prompts {
                let request = GenerateRequest {
                    prompt: self.prompts.text_prompt(prompt).await?,
                    ..template.clone()
                };
                streams.extend(self.submit(request, choices).await?);
            }
            let steps = streams.into_iter().map(answer::plain);
            Ok(OutputStream::new(Choices::new(steps.collect(), choices as usize)))
        }
        .boxed()
    }

    fn render(&self, conversation: Conversation) -> BoxFuture<'_, Result<String, GenerationError>> {
        async move {
            let prepared = self.prompts.render(conversation, &OutputFormat::Text).await?;
            let texts = prepared.parts.into_iter().map(|part| match part {
                Part::Prompt(text) | Part::Literal(text) => text,
            });
            Ok(texts.collect())
        }
        .boxed()
    }
}
