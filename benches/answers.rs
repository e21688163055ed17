//! What reading an answer costs while a model writes it: `cargo bench --bench answers -- 100000 200` for so many tokens of
//! thoughts, and so many tokens per second. Then come content with code, and a call.
//!
//! The answer comes from an engine without a model, once through the parser and once as plain text. Linux only.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hearth::engine::{
    EngineError, Event, EventStream, FinishReason, GenerateRequest, Health, ModelFile, ModelInfo, SamplingOverrides,
    SlotCounts, Timings, Token, TokenEngine, Usage,
};
use hearth::generation::{
    ChatBackend, ChatRequest, Conversation, LocalBackend, Message, Options, OutputStream, Role, TextPrompt,
    TextRequest, Tool,
};
use serde_json::{Map, json};
use tokio::sync::{mpsc, watch};

/// Thoughts in tags, calls as JSON in tags.
const TAGS: &str = include_str!("../scripts/demo/hearth_demo/chat_template.jinja");
/// Thoughts and calls as messages on channels.
const CHANNELS: &str = "{%- for m in messages -%}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{%- endfor -%}\
                        {%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}{# <|channel|> #}";
const CODE: &str =
    "Here it is:\n\n```rust\nfn sum(list: &[u64]) -> u64 {\n    list.iter().filter(|n| **n < 10).sum()\n}\n```\n";

/// Says the same at the same speed, whatever it is asked.
struct Paced {
    info: ModelInfo,
    tokens: Vec<String>,
    per_second: u32,
}

impl TokenEngine for Paced {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn watch_health(&self) -> watch::Receiver<Health> {
        watch::channel(Health::Ready).1
    }

    fn slots(&self) -> SlotCounts {
        SlotCounts::default()
    }

    fn submit(&self, _: GenerateRequest) -> BoxFuture<'_, Result<EventStream, EngineError>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (tokens, per_second) = (self.tokens.clone(), self.per_second);
        std::thread::spawn(move || {
            let started = Instant::now();
            let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
            for (index, text) in (0..).zip(tokens) {
                let due = Duration::from_secs(1) * index / per_second;
                std::thread::sleep(due.saturating_sub(started.elapsed()));
                let tokens = vec![1];
                let logprobs = Vec::new();
                let _ = sender.send(Event::Delta { text, tokens, logprobs });
            }
            let usage = Usage {
                completion_tokens: count,
                ..Usage::default()
            };
            let (reason, timings) = (FinishReason::EndOfText, Timings::default());
            let _ = sender.send(Event::Finished { reason, usage, timings });
        });
        async { Ok(EventStream::new(receiver)) }.boxed()
    }

    fn tokenize(&self, text: String, _: bool, _: bool) -> BoxFuture<'_, Result<Vec<Token>, EngineError>> {
        async move { Ok(text.bytes().map(Token::from).collect()) }.boxed()
    }

    fn token_pieces(&self, tokens: Vec<Token>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, EngineError>> {
        async move { Ok(vec![Vec::new(); tokens.len()]) }.boxed()
    }

    fn shutdown(&self, _: Duration) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

/// Texts of tokens: words with the space before them, and single other characters.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    for character in text.chars() {
        match tokens.last_mut() {
            Some(last) if character.is_alphanumeric() && last.len() < 8 => last.push(character),
            _ => tokens.push(character.to_string()),
        }
    }
    tokens
}

fn answer(thoughts: usize, style: &str) -> Vec<String> {
    let (start, end, call, close) = match style {
        "tags" => (
            "<think>\n",
            "</think>\n\n",
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": ",
            "}\n</tool_call>",
        ),
        _ => (
            "<|channel|>analysis<|message|>",
            "<|end|><|start|>assistant<|channel|>final<|message|>",
            "<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>",
            "",
        ),
    };
    let thought = tokens("Wait, if x < 3 then [1, 2] holds; so \"either\" way it is {a: b}. Let me look again.\n");
    let mut out = tokens(start);
    out.extend(thought.into_iter().cycle().take(thoughts));
    out.extend(tokens(end));
    out.extend(tokens(&CODE.repeat(10)));
    let arguments = json!({"city": "Rome", "days": (0..100).collect::<Vec<u32>>()}).to_string();
    out.extend(tokens(&format!("{call}{arguments}{close}")));
    out
}

/// Processor time of this process.
fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    // `utime` and `stime`, the 14th and 15th field; the name is the second.
    let ticks: u64 = after_name.split(' ').skip(12).take(2).flat_map(str::parse::<u64>).sum();
    Duration::from_millis(ticks * 10)
}

/// Share of a core that an answer takes.
async fn share(stream: impl Future<Output = OutputStream>) -> (f64, usize, usize) {
    let mut stream = stream.await;
    let (cpu, started) = (used(), Instant::now());
    let (mut reasoning, mut calls) = (0, 0);
    while let Some(output) = stream.next().await {
        match output.expect("an answer").piece {
            hearth::generation::Piece::Reasoning { text } => reasoning += text.len(),
            hearth::generation::Piece::ToolCallStart { .. } => calls += 1,
            _ => {}
        }
    }
    let share = (used() - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
    (share, reasoning, calls)
}

fn main() {
    // cargo adds arguments of its own.
    let numbers: Vec<u32> = std::env::args().flat_map(|argument| argument.parse()).collect();
    let thoughts = numbers.first().copied().unwrap_or(10_000);
    let per_second = numbers.get(1).copied().unwrap_or(2_000);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    for (style, template) in [("tags", TAGS), ("channels", CHANNELS)] {
        let backend = backend(template, answer(thoughts as usize, style), per_second);
        let (plain, ..) = runtime.block_on(share(async {
            let prompts = vec![TextPrompt::from("hi".to_owned())];
            let options = Options::default();
            backend
                .continue_text(TextRequest { prompts, options })
                .await
                .expect("an answer")
        }));
        let (parsed, reasoning, calls) = runtime.block_on(share(async {
            let tool = Tool {
                name: "weather".into(),
                description: String::new(),
                parameters: json!({"type": "object"}),
            };
            let conversation = Conversation {
                messages: vec![Message::new(Role::User, "hi")],
                tools: vec![tool],
                ..Conversation::default()
            };
            let options = Options::default();
            backend
                .chat(ChatRequest { conversation, options })
                .await
                .expect("an answer")
        }));
        println!(
            "{style}: {thoughts} tokens of thoughts at {per_second} tokens/s ({reasoning} bytes of reasoning, {calls} call): \
             {:.2} % of a core, {:.2} % without the parser",
            parsed * 100.0,
            plain * 100.0
        );
    }
}

fn backend(template: &str, tokens: Vec<String>, per_second: u32) -> LocalBackend {
    let info = ModelInfo {
        name: "paced".into(),
        role: None,
        aliases: Vec::new(),
        architecture: "none".into(),
        context: 1 << 20,
        context_train: 1 << 20,
        parallel: 1,
        vocabulary: 256,
        parameters: 0,
        size_bytes: 0,
        file: ModelFile::default(),
        chat_template: Some(template.to_owned()),
        tool_template: None,
        template_variables: Map::new(),
        bos_token: String::new(),
        eos_token: String::new(),
        control_tokens: Vec::new(),
        sampling: SamplingOverrides::default(),
        created: 0,
    };
    LocalBackend::new(std::sync::Arc::new(Paced {
        info,
        tokens,
        per_second,
    }))
}
