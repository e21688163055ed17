//! `hearth generate`: answers a prompt, or a file of prompts, without a server.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::{engines, output};
use crate::config::Overrides;
use crate::engine::{ModelInfo, SamplingOverrides, TokenEngine};
use crate::generation::{
    ChatBackend, ChatRequest, Completion, Conversation, FinishReason, GenerationError, LocalBackend, Message, Options,
    OutputStream, Piece, Role, TextRequest, Totals,
};

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
    /// What the model thought before the text.
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning: String,
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
    let model = started.engine.info();
    let mut asker = Asker::new(started.engine.clone());
    asker.chat = !args.raw && (asker.chat || args.chat || args.system.is_some());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        match &args.batch {
            Some(_) => batch(&args, model, &asker, items).await,
            None => single(&args, model, &asker, &items[0]).await,
        }
    })
}

/// A model as the command line asks it.
pub(super) struct Asker {
    backend: LocalBackend,
    /// Through the chat template; else prompts are continued as they are.
    chat: bool,
}

impl Asker {
    /// Prompts are messages where the model has a chat template.
    pub(super) fn new(engine: Arc<dyn TokenEngine>) -> Self {
        Self {
            chat: engine.info().chat_template.is_some(),
            backend: LocalBackend::new(engine),
        }
    }

    /// Begins to answer one prompt.
    pub(super) async fn ask(
        &self,
        system: Option<&str>,
        prompt: &str,
        options: Options,
    ) -> Result<OutputStream, GenerationError> {
        if !self.chat {
            let prompts = vec![prompt.to_owned().into()];
            return self.backend.continue_text(TextRequest { prompts, options }).await;
        }
        let mut messages = Vec::new();
        messages.extend(system.map(|text| Message::new(Role::System, text)));
        messages.push(Message::new(Role::User, prompt));
        let conversation = Conversation {
            messages,
            ..Conversation::default()
        };
        self.backend.chat(ChatRequest { conversation, options }).await
    }
}

/// Begins to answer an item with what the arguments say where it says nothing.
async fn ask(args: &Args, asker: &Asker, item: &Item) -> Result<OutputStream, GenerationError> {
    let options = Options {
        sampling: SamplingOverrides {
            temperature: item.temperature.or(args.temperature),
            max_tokens: item.max_tokens.or(args.max_tokens),
            seed: item.seed.or(args.seed),
            ..SamplingOverrides::default()
        },
        ..Options::default()
    };
    let system = item.system.as_deref().or(args.system.as_deref());
    asker.ask(system, &item.prompt, options).await
}

/// Terminal codes around a thought.
const DIM: &str = "\x1b[2m";
const NORMAL: &str = "\x1b[0m";

/// Streams one answer to the terminal, or prints it as JSON.
async fn single(args: &Args, model: &ModelInfo, asker: &Asker, item: &Item) -> anyhow::Result<()> {
    let mut outputs = ask(args, asker, item).await?;
    if args.json {
        return output::print_json(&Answer::new(model, None, outputs.collect().await?)?);
    }
    let mut stdout = io::stdout().lock();
    // Thoughts are for people; what reads a pipe wants the answer.
    let shows_thoughts = stdout.is_terminal();
    let mut thinks = false;
    while let Some(output) = outputs.next().await {
        match output?.piece {
            Piece::Reasoning { text } if shows_thoughts => {
                thinks = true;
                write!(stdout, "{DIM}{text}{NORMAL}")?;
                stdout.flush()?;
            }
            Piece::Content { text, .. } => {
                if std::mem::take(&mut thinks) {
                    stdout.write_all(b"\n\n")?;
                }
                stdout.write_all(text.as_bytes())?;
                stdout.flush()?;
            }
            Piece::Finished { reason, totals } => {
                writeln!(stdout)?;
                tracing::debug!(?reason, ?totals, "finished");
                if reason == FinishReason::Length {
                    tracing::warn!(
                        "the answer was cut off at {} tokens (--max-tokens)",
                        totals.unwrap_or_default().usage.completion_tokens
                    );
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Answers all items, as many at once as the model has slots, and prints them in order.
async fn batch(args: &Args, model: &ModelInfo, asker: &Asker, items: Vec<Item>) -> anyhow::Result<()> {
    let bar = output::progress_bar(items.len() as u64, "prompts");
    let at_once = model.parallel as usize;
    let mut answers = futures_util::stream::iter(items.into_iter().enumerate().map(|(index, item)| async move {
        let completion = ask(args, asker, &item).await?.collect().await?;
        Answer::new(model, Some(index), completion)
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

impl Answer {
    fn new(model: &ModelInfo, index: Option<usize>, completion: Completion) -> anyhow::Result<Self> {
        let Completion { choices, totals } = completion;
        let choice = choices.into_iter().next().context("the answer has no text")?;
        let Totals { usage, timings, .. } = totals;
        Ok(Self {
            index,
            model: model.name.clone(),
            reasoning: choice.reasoning,
            text: choice.content,
            finish_reason: match choice.reason {
                FinishReason::EndOfText | FinishReason::StopString(_) => "stop",
                FinishReason::Length => "length",
                FinishReason::ToolCalls => "tool_calls",
            },
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            cached_tokens: usage.cached_tokens,
            prompt_seconds: timings.prefill.as_secs_f64(),
            decode_seconds: timings.decode.as_secs_f64(),
        })
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
