//! `hearth generate`: answers a prompt, or a file of prompts, without a server.

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::engines;
use super::output;
use crate::chat;
use crate::config::Overrides;
use crate::engine::{
    Engine, Event, FinishReason, GenerateRequest, ModelCard, Prompt, SamplingOverrides, Timings, Usage,
};
use crate::models::Started;

/// Arguments of `hearth generate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to answer; `-` reads standard input.
    #[arg(required_unless_present = "batch")]
    prompt: Option<String>,

    /// Name, alias or role of the model; the first one if not given.
    #[arg(long, short)]
    model: Option<String>,

    /// Tokens to generate at most; the model's default if not given.
    #[arg(long, short = 'n')]
    max_tokens: Option<u32>,

    /// 0 always takes the likeliest token.
    #[arg(long, short)]
    temperature: Option<f32>,

    /// Same seed, same answer.
    #[arg(long)]
    seed: Option<u32>,

    /// System message of the conversation.
    #[arg(long, short, conflicts_with = "raw")]
    system: Option<String>,

    /// Treat the prompt as a user's message, through the model's chat template (the default where it has one).
    #[arg(long, conflicts_with = "raw")]
    chat: bool,

    /// Continue the prompt as it is.
    #[arg(long)]
    raw: bool,

    /// Print one JSON object with text, counts and timings instead of streaming the text.
    #[arg(long)]
    json: bool,

    /// Answer every line of a JSONL file: a string, or an object with `prompt` and, if wanted, `system`, `max_tokens`,
    /// `temperature`, `seed`. Prints one JSON object per line, in the same order.
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["prompt", "json"])]
    batch: Option<PathBuf>,

    #[command(flatten)]
    overrides: Overrides,
}

/// One prompt with what is special about it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Item {
    pub(super) prompt: String,
    pub(super) system: Option<String>,
    pub(super) max_tokens: Option<u32>,
    pub(super) temperature: Option<f32>,
    pub(super) seed: Option<u32>,
}

/// A complete answer.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    model: String,
    text: String,
    finish_reason: &'static str,
    prompt_tokens: u32,
    completion_tokens: u32,
    cached_tokens: u32,
    prompt_seconds: f64,
    decode_seconds: f64,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let items = match &args.batch {
        Some(file) => read_batch(file)?,
        None => vec![Item {
            prompt: match args.prompt.as_deref() {
                Some("-") | None => read_stdin()?,
                Some(prompt) => prompt.to_owned(),
            },
            ..Item::default()
        }],
    };
    let started = engines::start_one(&args.overrides, args.model.as_deref())?;
    let style = Style::new(&args, &started)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        match &args.batch {
            Some(_) => batch(&args, &started, &style, items).await,
            None => single(&args, &started, &style, &items[0]).await,
        }
    })
}

/// How prompts become text.
pub(super) enum Style {
    Raw,
    Chat(Box<chat::Template>),
}

impl Style {
    fn new(args: &Args, started: &Started) -> anyhow::Result<Self> {
        let card = started.engine.card();
        if args.raw || (card.chat_template.is_none() && !args.chat && args.system.is_none()) {
            return Ok(Self::Raw);
        }
        Ok(Self::Chat(Box::new(chat::Template::of(card)?)))
    }

    /// Through the model's chat template, if it has one.
    pub(super) fn of(card: &ModelCard) -> anyhow::Result<Self> {
        Ok(match card.chat_template {
            Some(_) => Self::Chat(Box::new(chat::Template::of(card)?)),
            None => Self::Raw,
        })
    }

    /// What the model reads.
    pub(super) fn text(&self, system: Option<&str>, prompt: &str) -> anyhow::Result<String> {
        let Self::Chat(template) = self else {
            return Ok(prompt.to_owned());
        };
        let mut messages = Vec::new();
        messages.extend(system.map(|text| serde_json::json!({"role": "system", "content": text})));
        messages.push(serde_json::json!({"role": "user", "content": prompt}));
        Ok(template.render(&chat::RenderInput {
            messages,
            add_generation_prompt: true,
            ..chat::RenderInput::default()
        })?)
    }

    fn request(&self, args: &Args, item: &Item, engine: &dyn Engine) -> anyhow::Result<GenerateRequest> {
        let sampling = SamplingOverrides {
            temperature: item.temperature.or(args.temperature),
            max_tokens: item.max_tokens.or(args.max_tokens),
            seed: item.seed.or(args.seed),
            ..SamplingOverrides::default()
        }
        .or(&engine.card().sampling);
        let system = item.system.as_deref().or(args.system.as_deref());
        let text = self.text(system, &item.prompt)?;
        Ok(GenerateRequest {
            prompt: Prompt::Text {
                text,
                add_special: true,
            },
            max_tokens: sampling.max_tokens,
            sampling: sampling.resolve(Vec::new())?,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            ignore_eos: false,
            cache_prompt: true,
            special: false,
            progress: false,
        })
    }
}

/// Streams one answer to the terminal, or prints it as JSON.
async fn single(args: &Args, started: &Started, style: &Style, item: &Item) -> anyhow::Result<()> {
    let engine = &*started.engine;
    let request = style.request(args, item, engine)?;
    if args.json {
        return output::print_json(&complete(engine, request, None).await?);
    }
    let mut events = engine.submit(request).await?;
    let mut stdout = io::stdout().lock();
    while let Some(event) = events.next().await {
        match event {
            Event::Delta { text, .. } => {
                stdout.write_all(text.as_bytes())?;
                stdout.flush()?;
            }
            Event::Finished { reason, usage, timings } => {
                writeln!(stdout)?;
                tracing::debug!(?reason, ?usage, ?timings, "finished");
                if reason == FinishReason::Length {
                    tracing::warn!(
                        "the answer was cut off at {} tokens (--max-tokens)",
                        usage.completion_tokens
                    );
                }
                return Ok(());
            }
            Event::Failed(error) => return Err(error.into()),
            Event::Progress(_) => {}
        }
    }
    bail!("the engine ended without an answer")
}

/// Answers all items, as many at once as the model has slots, and prints them in order.
async fn batch(args: &Args, started: &Started, style: &Style, items: Vec<Item>) -> anyhow::Result<()> {
    let engine: &dyn Engine = &*started.engine;
    let bar = output::progress_bar(items.len() as u64, "prompts");
    let at_once = engine.card().parallel as usize;
    let mut answers = futures_util::stream::iter(items.into_iter().enumerate().map(|(index, item)| async move {
        let request = style.request(args, &item, engine)?;
        complete(engine, request, Some(index)).await
    }))
    .buffered(at_once.max(1));
    while let Some(answer) = answers.next().await {
        let line = serde_json::to_string(&answer?)?;
        writeln!(io::stdout().lock(), "{line}")?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

async fn complete(engine: &dyn Engine, request: GenerateRequest, index: Option<usize>) -> anyhow::Result<Answer> {
    let mut events = engine.submit(request).await?;
    let mut text = String::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Delta { text: delta, .. } => text.push_str(&delta),
            Event::Finished { reason, usage, timings } => {
                return Ok(Answer::new(
                    engine.card().name.clone(),
                    index,
                    text,
                    &reason,
                    usage,
                    timings,
                ));
            }
            Event::Failed(error) => return Err(error.into()),
            Event::Progress(_) => {}
        }
    }
    bail!("the engine ended without an answer")
}

impl Answer {
    fn new(
        model: String,
        index: Option<usize>,
        text: String,
        reason: &FinishReason,
        usage: Usage,
        timings: Timings,
    ) -> Self {
        Self {
            index,
            model,
            text,
            finish_reason: match reason {
                FinishReason::EndOfText | FinishReason::StopString(_) => "stop",
                FinishReason::Length => "length",
            },
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
            prompt_seconds: timings.prefill.as_secs_f64(),
            decode_seconds: timings.decode.as_secs_f64(),
        }
    }
}

fn read_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    io::stdin()
        .lock()
        .read_to_string(&mut text)
        .context("cannot read the prompt from standard input")?;
    Ok(text)
}

/// Prompts from a JSONL file.
pub(super) fn read_batch(path: &Path) -> anyhow::Result<Vec<Item>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut items = Vec::new();
    for (number, line) in (1..).zip(io::BufReader::new(file).lines()) {
        let line = line.with_context(|| format!("cannot read line {number} of {}", path.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        items.push(parse_item(&line).with_context(|| format!("line {number} of {}", path.display()))?);
    }
    Ok(items)
}

fn parse_item(line: &str) -> anyhow::Result<Item> {
    if line.trim_start().starts_with('"') {
        return Ok(Item {
            prompt: serde_json::from_str(line)?,
            ..Item::default()
        });
    }
    Ok(serde_json::from_str(line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_strings_or_objects() {
        assert_eq!(parse_item("\"hello\"").unwrap().prompt, "hello");
        let item = parse_item(r#"{"prompt": "hi", "max_tokens": 3}"#).unwrap();
        assert_eq!((item.prompt.as_str(), item.max_tokens), ("hi", Some(3)));
        assert!(parse_item(r#"{"prompt": "hi", "max_token": 3}"#).is_err());
        assert!(parse_item("hello").is_err());
    }
}
