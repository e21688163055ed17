//! Models that are not there: templates of many styles, and an engine that says what it is told to.
#![allow(dead_code)]

use std::sync::{Arc, LazyLock};

use futures_util::future::{BoxFuture, FutureExt};
use hearth::engine::{
    EngineError, Event, EventStream, FinishReason, GenerateRequest, Health, ModelFile, ModelInfo, SamplingOverrides,
    SlotCounts, Timings, Token, TokenEngine, Usage,
};
use hearth::generation::{Conversation, GenerationError, Message, Role, Tool};
use hearth::grammar::{Compiled, Kind, Matcher, Vocabulary};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};

/// Thoughts in tags, calls as JSON in tags.
const TAGS: &str = include_str!("../../../scripts/demo/hearth_demo/chat_template.jinja");
/// A template that writes all there is. `common` chooses a parser by texts in the template, which stand in a comment.
const WRITER: &str = "{%- for m in messages -%}<|{{ m.role }}|>{%- if m.reasoning_content -%}<think>{{ m.reasoning_content }}\
</think>{%- endif -%}{{ m.content }}{%- for call in m.tool_calls or [] -%}<call>{{ call.function.name }} {{ \
call.function.arguments | tojson }}</call>{%- endfor -%}<|end|>{%- endfor -%}{%- if tools -%}{{ tools | tojson }}{%- endif -%}\
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}";
/// What stands for each family of formats.
const MARKS: [&str; 17] = [
    "",
    "<|channel|>",
    "[SYSTEM_PROMPT] [TOOL_CALLS] [ARGS]",
    "chat_format=llm-jp-harmony-v1",
    "<atem:function_calls> <|eom|>",
    ">>>all >>>${recipient}",
    "<|tool_calls_section_begin|> <|tool_call_begin|>",
    "<|open|> <|close|> <|end_of_msg|>",
    "<role>ASSISTANT</role> <arg_key>",
    "<|START_TEXT|> <|START_ACTION|>",
    "<|tool_list_start|> <|tool_list_end|>",
    "List of tools: [",
    "<|role_sep|> <|message_sep|>",
    "]<]minimax[>[ <tool_call> <invoke name=",
    "dsml_token DSML function_calls tool_calls",
    "'<|tool_call>call:' {#- OpenAI Chat Completions:",
    "Tool usage guidelines: <function name=\" <param name=\"",
];
/// Calls as tags, which the template's own rendering shows, for the parser that `common` derives from it.
const XML: &str = "{%- for m in messages -%}<{{ m.role }}>{{ m.content }}{%- for call in m.tool_calls or [] -%}<tool_call>\n\
<function={{ call.function.name }}>\n{%- for key, value in call.function.arguments | items -%}<parameter={{ key }}>\n\
{{ value if value is string else value | tojson }}\n</parameter>\n{%- endfor -%}</function>\n</tool_call>{%- endfor -%}\
</{{ m.role }}>{%- endfor -%}{%- for tool in tools or [] -%}{{ tool | tojson }}{%- endfor -%}{%- if add_generation_prompt -%}\
<assistant><think>{%- endif -%}";
const LIST: &str = "{%- for m in messages -%}[{{ m.role }}]{{ m.content }}{%- if m.tool_calls -%}[CALLS][{%- for call in \
m.tool_calls -%}{\"name\": \"{{ call.function.name }}\", \"arguments\": {{ call.function.arguments | tojson }}, \"id\": \
\"{{ call.id }}\"}{%- if not loop.last -%}, {% endif -%}{%- endfor -%}]{%- endif -%}[/{{ m.role }}]{%- endfor -%}\
{%- if tools -%}[TOOLS]{{ tools | tojson }}[/TOOLS]{%- endif -%}{%- if add_generation_prompt -%}[assistant]{%- endif -%}";

/// Templates of all styles.
pub static TEMPLATES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let marked = MARKS.iter().map(|marks| {
        // A comment must not end early.
        let comment = marks.replace("{#-", "").replace("#}", "");
        format!("{{# {comment} #}}{WRITER}")
    });
    [TAGS, XML, LIST].map(str::to_owned).into_iter().chain(marked).collect()
});

/// Texts that mean something in one of the formats.
pub const WORDS: [&str; 24] = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "{\"name\": \"",
    "\", \"arguments\": ",
    "<|im_start|>",
    "<|im_end|>",
    "weather",
    "weather_map",
    "<function=",
    "<parameter=",
    "</parameter>",
    "</function>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "\u{f0000}",
    "{{ 1 }}",
    "\\\"",
    "日本",
    "\n\n",
];

/// Control tokens of the model.
const CONTROL: [&str; 6] = [
    "<|im_start|>",
    "<|im_end|>",
    "<tool_call>",
    "</tool_call>",
    "<think>",
    "<|channel|>",
];
const END: Token = 256 + CONTROL.len() as Token;

static VOCABULARY: LazyLock<Arc<Vocabulary>> = LazyLock::new(|| {
    let bytes = (0..=255u8).map(|byte| (vec![byte], Kind::Text));
    let control = CONTROL.map(|text| (text.as_bytes().to_vec(), Kind::Control));
    let more = [
        (b"<end>".to_vec(), Kind::End),
        (b"\": \"".to_vec(), Kind::Text),
        (b"ab".to_vec(), Kind::Text),
    ];
    Arc::new(Vocabulary::new(bytes.chain(control).chain(more)))
});

fn piece(token: Token) -> Vec<u8> {
    match usize::try_from(token).unwrap_or(0) {
        byte @ 0..256 => vec![byte as u8],
        control if control < 256 + CONTROL.len() => CONTROL[control - 256].as_bytes().to_vec(),
        more => [&b""[..], b"\": \"", b"ab"][(more - 256 - CONTROL.len()).min(2)].to_vec(),
    }
}

pub fn info(template: &str) -> ModelInfo {
    ModelInfo {
        name: "fuzz".into(),
        role: None,
        aliases: Vec::new(),
        architecture: "none".into(),
        context: 4096,
        context_train: 4096,
        parallel: 1,
        vocabulary: END.unsigned_abs() + 3,
        parameters: 0,
        size_bytes: 0,
        file: ModelFile::default(),
        chat_template: Some(template.to_owned()),
        tool_template: None,
        template_variables: Map::new(),
        bos_token: "<s>".into(),
        eos_token: "</s>".into(),
        control_tokens: CONTROL.map(str::to_owned).to_vec(),
        sampling: SamplingOverrides::default(),
        created: 0,
    }
}

/// An engine that follows the grammar of a request as the bytes it was given choose.
pub struct Chooser {
    info: ModelInfo,
    choices: Vec<u8>,
    pub said: Mutex<String>,
}

impl Chooser {
    pub fn new(template: &str, choices: &[u8]) -> Self {
        Self {
            info: info(template),
            choices: choices.to_vec(),
            said: Mutex::default(),
        }
    }

    fn say(&self, request: &GenerateRequest) -> Result<(Vec<u8>, bool), EngineError> {
        let mut said = Vec::new();
        let Some(grammar) = &request.grammar else {
            return Ok((self.choices.clone(), true));
        };
        let invalid = |message: String| EngineError::InvalidRequest {
            field: "grammar",
            message,
        };
        let compiled = Compiled::new(&grammar.text, grammar.triggers.as_deref(), VOCABULARY.clone());
        let compiled = Arc::new(compiled.map_err(|error| invalid(error.to_string()))?);
        let mut matcher = Matcher::new(compiled, request.preserved.clone(), false);
        if !grammar.prefix.is_empty() {
            let tokens: Vec<Token> = grammar.prefix.bytes().map(Token::from).collect();
            let fits = matcher.begin_with(&grammar.prefix, &tokens);
            if !fits.map_err(|error| invalid(error.to_string()))? {
                return Err(invalid("the prefix".into()));
            }
        }
        let mut choices = self.choices.iter().copied().chain(std::iter::repeat_n(0, 200));
        for step in 0..1000 {
            let Some(choice) = choices.next() else { break };
            let mut allowed = Vec::new();
            let Ok(ends) = matcher.allowed(|token| allowed.push(token)) else {
                break;
            };
            if ends && (allowed.is_empty() || choice < 8 && step > 0) {
                return Ok((said, true));
            }
            let token = match allowed.len() {
                // A lazy grammar that waits takes all.
                0 if matcher.is_waiting() => Token::from(choice) % END,
                0 => break,
                count => allowed[(usize::from(choice) * 7919) % count],
            };
            match matcher.accept(token) {
                Ok(accepted) => assert!(accepted || allowed.is_empty(), "{token} was allowed\n{}", grammar.text),
                Err(_) => break,
            }
            said.extend(piece(token));
        }
        Ok((said, false))
    }
}

impl TokenEngine for Chooser {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn watch_health(&self) -> watch::Receiver<Health> {
        watch::channel(Health::Ready).1
    }

    fn slots(&self) -> SlotCounts {
        SlotCounts::default()
    }

    fn submit(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, EngineError>> {
        async move {
            let (said, complete) = self.say(&request)?;
            let text = String::from_utf8_lossy(&said).into_owned();
            self.said.lock().clone_from(&text);
            let (sender, receiver) = mpsc::unbounded_channel();
            if !text.is_empty() {
                let _ = sender.send(Event::Delta {
                    text,
                    tokens: vec![1],
                    logprobs: Vec::new(),
                });
            }
            let _ = sender.send(Event::Finished {
                reason: if complete {
                    FinishReason::EndOfText
                } else {
                    FinishReason::Length
                },
                usage: Usage::default(),
                timings: Timings::default(),
            });
            Ok(EventStream::new(receiver))
        }
        .boxed()
    }

    fn tokenize(&self, text: String, _: bool, control: bool) -> BoxFuture<'_, Result<Vec<Token>, EngineError>> {
        let (mut tokens, mut rest) = (Vec::new(), text.as_str());
        while let Some(byte) = rest.bytes().next() {
            let found = (256..).zip(CONTROL).find(|(_, text)| control && rest.starts_with(text));
            let (token, length) = found.map_or((Token::from(byte), 1), |(token, text)| (token, text.len()));
            tokens.push(token);
            rest = rest.get(length..).unwrap_or_else(|| {
                let next = (1..=4).find_map(|skip| rest.get(skip..));
                next.unwrap_or_default()
            });
        }
        async { Ok(tokens) }.boxed()
    }

    fn token_pieces(&self, tokens: Vec<Token>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, EngineError>> {
        async move { Ok(tokens.into_iter().map(piece).collect()) }.boxed()
    }

    fn shutdown(&self, _: std::time::Duration) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

/// Runs async code that waits for the threads of `common`.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
    });
    RUNTIME.block_on(work)
}

pub fn tool(name: &str, parameters: Value) -> Tool {
    Tool {
        name: name.into(),
        description: "What it does".into(),
        parameters,
    }
}

/// A question, and two tools of which one's name begins with the other's.
pub fn question() -> Conversation {
    let parameters = json!({"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}}}});
    Conversation {
        messages: vec![Message::new(Role::User, "hi")],
        tools: vec![tool("weather", parameters.clone()), tool("weather_map", parameters)],
        ..Conversation::default()
    }
}

/// Bytes of an input, taken one after the other; zeros when there are no more.
pub struct Bytes<'b>(pub &'b [u8]);

impl<'b> Bytes<'b> {
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 1
    }

    pub fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// Words of the formats, and bytes of the input.
    pub fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..self.below(6) {
            if self.one_in(3) {
                let count = self.below(12).min(self.0.len());
                let (raw, rest) = self.0.split_at(count);
                self.0 = rest;
                text += &String::from_utf8_lossy(raw);
            } else {
                text += self.of(&WORDS);
            }
        }
        text
    }

    /// Any JSON.
    pub fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 7 } else { 9 }) {
            0 => Value::Null,
            1 => self.one_in(2).into(),
            2 => i64::from(self.byte()).into(),
            3 => self.of(&[-1, i64::MIN, i64::MAX, 1 << 32, 1_000_000]).into(),
            4 => self.of(&[0.5, -1.5e300, 1e-9, 3.0]).into(),
            5 | 6 => self.text().into(),
            7 => (0..self.below(4)).map(|_| self.json(depth - 1)).collect(),
            _ => {
                let count = self.below(4);
                Value::Object((0..count).map(|_| (self.text(), self.json(depth - 1))).collect())
            }
        }
    }
}

/// What is refused says why.
pub fn check<T>(outcome: Result<T, GenerationError>) {
    if let Err(error) = outcome {
        let message = error.to_string();
        assert!(
            !message.contains("panicked") && !message.contains("did not end"),
            "{message}"
        );
    }
}
