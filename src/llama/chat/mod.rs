//! llama.cpp's chat library, `common`: templates, the grammars of tool calls, the parsers of answers.
//!
//! [`Template::render`] makes a prompt of a conversation, and with it the description of a [`Parser`] for the answer.
//! All of it is synchronous, takes milliseconds, and recurses over what it is given: callers check sizes and depths, and
//! call from threads with large stacks ([`run`]). `common.cpp` beside this file is the other side.

#![expect(unsafe_code, reason = "calls into common.cpp")]

mod known;
mod pool;
mod source;

use std::ffi::c_char;
use std::ptr::{self, NonNull};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use known::{Kind, Known};
pub use pool::{RunError, run};

/// What `common` says is wrong, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ChatError(pub String);

/// Opaque objects of common.cpp.
#[repr(C)]
struct RawTemplate {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawParser {
    _opaque: [u8; 0],
}

// SAFETY: the declarations are those of common.cpp. Texts are pointers with lengths in bytes; results are written to the
// last pointers, and freed by `hearth_chat_free`.
unsafe extern "C" {
    fn hearth_chat_free(text: *mut c_char);
    fn hearth_chat_template_new(
        source: *const c_char,
        source_length: usize,
        bos: *const c_char,
        bos_length: usize,
        eos: *const c_char,
        eos_length: usize,
        made: *mut *mut RawTemplate,
        out: *mut *mut c_char,
        length: *mut usize,
    ) -> bool;
    fn hearth_chat_template_free(made: *mut RawTemplate);
    fn hearth_chat_render(
        made: *const RawTemplate,
        request: *const c_char,
        request_length: usize,
        prompt_only: bool,
        out: *mut *mut c_char,
        length: *mut usize,
    ) -> bool;
    fn hearth_chat_parser_new(
        description: *const c_char,
        description_length: usize,
        made: *mut *mut RawParser,
        out: *mut *mut c_char,
        length: *mut usize,
    ) -> bool;
    fn hearth_chat_parser_free(made: *mut RawParser);
    fn hearth_chat_parse(
        made: *const RawParser,
        text: *const c_char,
        text_length: usize,
        partial: bool,
        out: *mut *mut c_char,
        length: *mut usize,
    ) -> bool;
    fn hearth_chat_schema_grammar(
        schema: *const c_char,
        schema_length: usize,
        out: *mut *mut c_char,
        length: *mut usize,
    ) -> bool;
}

/// Calls a function of common.cpp that gives a text or says what is wrong.
fn call(function: impl FnOnce(*mut *mut c_char, *mut usize) -> bool) -> Result<String, ChatError> {
    let (mut out, mut length) = (ptr::null_mut(), 0);
    let succeeded = function(&raw mut out, &raw mut length);
    if out.is_null() {
        return Err(ChatError("there is not enough memory".into()));
    }
    // SAFETY: common.cpp wrote a pointer to `length` bytes that stay until they are freed below.
    let bytes = unsafe { std::slice::from_raw_parts(out.cast::<u8>(), length) };
    let text = String::from_utf8_lossy(bytes).into_owned();
    // SAFETY: the text came from common.cpp and is not used after this.
    unsafe { hearth_chat_free(out) };
    if succeeded { Ok(text) } else { Err(ChatError(text)) }
}

fn read<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, ChatError> {
    serde_json::from_str(text).map_err(|error| ChatError(error.to_string()))
}

fn chars(text: &str) -> *const c_char {
    text.as_ptr().cast()
}

/// A compiled chat template.
#[derive(Debug)]
pub struct Template {
    raw: NonNull<RawTemplate>,
    can: Abilities,
    /// It has a place for the thoughts of earlier messages.
    thoughts: bool,
    /// For a template that `common` would analyse anew at each rendering.
    known: Option<Known>,
}

/// What common.cpp tells of a template.
#[derive(Deserialize)]
struct Compiled {
    #[serde(flatten)]
    can: Abilities,
    is_analysed: bool,
}

/// What a template knows to write, as far as `common` finds out by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Abilities {
    #[serde(rename = "supports_tools")]
    pub tools: bool,
    #[serde(rename = "supports_tool_calls")]
    pub tool_calls: bool,
    #[serde(rename = "supports_parallel_tool_calls")]
    pub parallel_tool_calls: bool,
    #[serde(rename = "supports_system_role")]
    pub system_role: bool,
}

// SAFETY: the object is not tied to a thread.
unsafe impl Send for Template {}
// SAFETY: it is only read after it was made: rendering builds its state anew each time, and what is known has a lock.
unsafe impl Sync for Template {}

/// A conversation as `common` reads it.
#[derive(Debug, Clone, Serialize)]
pub struct Request<'r> {
    /// In OpenAI's form.
    pub messages: Vec<Value>,
    /// In OpenAI's form; templates print them.
    pub tools: Vec<Value>,
    pub tool_choice: Choice,
    pub parallel_tool_calls: bool,
    pub add_generation_prompt: bool,
    /// The last message, of the assistant, stays open. Needs `add_generation_prompt` to be false.
    pub continue_final_message: bool,
    pub enable_thinking: bool,
    /// The parser tells thoughts apart from the content.
    pub reasoning_apart: bool,
    /// JSON text; empty for none.
    pub json_schema: &'r str,
    /// Further variables of the template. Those that say what the conversation is have no effect.
    #[serde(serialize_with = "further")]
    pub variables: &'r Map<String, Value>,
}

/// Leaves out what would replace the conversation itself.
fn further<S: Serializer>(variables: &Map<String, Value>, serializer: S) -> Result<S::Ok, S::Error> {
    const OWN: [&str; 5] = ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"];
    let further = variables.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    serializer.collect_map(further)
}

/// Whether tools are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    Auto,
    None,
    Required,
}

/// A prompt with what is needed to generate and to read the answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Rendered {
    pub prompt: String,
    /// In GBNF; empty for none. It covers `parser.generation_prompt` and the answer.
    pub grammar: String,
    /// The grammar only holds from where a trigger is found.
    #[serde(rename = "grammar_lazy")]
    pub lazy: bool,
    pub triggers: Vec<Trigger>,
    /// Control tokens that the parser needs to see as text.
    pub preserved: Vec<String>,
    /// Texts that end the answer.
    pub stops: Vec<String>,
    /// Whether the template has a place for thoughts.
    pub thinks: bool,
    /// What opens a thought; empty if it is not known.
    pub thinking_start: String,
    /// What closes a thought.
    pub thinking_ends: Vec<String>,
    /// Where messages begin in a prompt.
    pub borders: Vec<Border>,
    #[serde(flatten)]
    pub parser: ParserDescription,
}

/// What puts a lazy grammar into force.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Trigger {
    kind: u8,
    pub value: String,
}

/// Kinds of [`Trigger`], in the order of `common_grammar_trigger_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerKind {
    /// A text, found anywhere.
    Word,
    /// A regular expression, found anywhere.
    Pattern,
    /// A regular expression that matches all of the text.
    PatternFull,
}

impl Trigger {
    /// How `value` is meant; `None` for a kind that templates do not give.
    #[must_use]
    pub fn kind(&self) -> Option<TriggerKind> {
        match self.kind {
            1 => Some(TriggerKind::Word),
            2 => Some(TriggerKind::Pattern),
            3 => Some(TriggerKind::PatternFull),
            _ => None,
        }
    }
}

/// A text with which messages of a role begin.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Border {
    pub role: String,
    pub delimiter: String,
}

/// How an answer is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParserDescription {
    /// `common`'s number of the family of formats.
    format: i32,
    /// The end of the prompt, with which the parser's input begins.
    pub generation_prompt: String,
    /// `common`'s serialised parser.
    parser: String,
    #[serde(default)]
    reasoning_apart: bool,
}

impl ParserDescription {
    /// `common`'s serialised parser, JSON.
    #[must_use]
    pub fn parser(&self) -> &str {
        &self.parser
    }
}

impl Template {
    /// Compiles the text of a template. `bos` and `eos` are the texts of the tokens that begin and end a sequence.
    ///
    /// # Errors
    /// With what is wrong with the template.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        let source = source::readable(source);
        let mut made = ptr::null_mut();
        let compiled = call(|out, length| {
            // SAFETY: pointers and lengths are those of the texts, and the results have places.
            unsafe {
                hearth_chat_template_new(
                    chars(&source),
                    source.len(),
                    chars(bos),
                    bos.len(),
                    chars(eos),
                    eos.len(),
                    &raw mut made,
                    out,
                    length,
                )
            }
        })?;
        let raw = NonNull::new(made).ok_or_else(|| ChatError("the template is gone".into()))?;
        // Owned from here on, so that it is freed whatever comes.
        let mut template = Self {
            raw,
            can: Abilities {
                tools: false,
                tool_calls: false,
                parallel_tool_calls: false,
                system_role: false,
            },
            thoughts: ["reasoning_content", "thinking"]
                .iter()
                .any(|name| source.contains(name)),
            known: None,
        };
        let Compiled { can, is_analysed } = read(&compiled)?;
        template.can = can;
        template.known = is_analysed.then(Known::default);
        Ok(template)
    }

    #[must_use]
    pub fn abilities(&self) -> Abilities {
        self.can
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// When the template refuses it, or cannot be rendered, in `common`'s words.
    pub fn render(&self, mut request: Request<'_>) -> Result<Rendered, ChatError> {
        if !self.thoughts {
            without_thoughts(&mut request);
        }
        let text = written(&request)?;
        let Some(known) = self.known.as_ref().filter(|_| !request.continue_final_message) else {
            return self.render_text(&text, &request, false);
        };
        request.messages = Vec::new();
        let Rendered { prompt, parser, .. } = self.render_text(&text, &request, true)?;
        let kind = Kind {
            request: written(&request)?,
            generation_prompt: parser.generation_prompt,
        };
        if let Some(rendered) = known.get(&kind, prompt) {
            return Ok(rendered);
        }
        let rendered = self.render_text(&text, &request, false)?;
        known.put(kind, &rendered);
        Ok(rendered)
    }

    /// Renders a request that is written as `text`; with `prompt_only`, nothing but the prompt and the generation prompt.
    fn render_text(&self, text: &str, request: &Request<'_>, prompt_only: bool) -> Result<Rendered, ChatError> {
        let described = call(|out, length| {
            // SAFETY: the template lives as long as `self`; the text's pointer and length fit.
            unsafe { hearth_chat_render(self.raw.as_ptr(), chars(text), text.len(), prompt_only, out, length) }
        })?;
        let mut rendered: Rendered = read(&described)?;
        rendered.parser.reasoning_apart = request.reasoning_apart;
        Ok(rendered)
    }
}

fn written(request: &Request<'_>) -> Result<String, ChatError> {
    serde_json::to_string(request).map_err(|error| ChatError(error.to_string()))
}

/// Leaves out what a template without a place for it cannot print: `common` would put it into the content of some, in front of the
/// answer, of which these print only the first part. A message that goes on keeps its thoughts.
fn without_thoughts(request: &mut Request<'_>) {
    let complete = request
        .messages
        .len()
        .saturating_sub(usize::from(request.continue_final_message));
    for message in request.messages.iter_mut().take(complete) {
        if let Some(message) = message.as_object_mut() {
            message.shift_remove("reasoning_content");
        }
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        // SAFETY: made by common.cpp, and not used after this.
        unsafe { hearth_chat_template_free(self.raw.as_ptr()) }
    }
}

/// Reads answers.
#[derive(Debug)]
pub struct Parser {
    raw: NonNull<RawParser>,
}

// SAFETY: the object is not tied to a thread.
unsafe impl Send for Parser {}
// SAFETY: it is only read after it was made: each parse has a state of its own.
unsafe impl Sync for Parser {}

/// An answer, or as much of it as there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Message {
    pub reasoning: String,
    pub content: String,
    pub tool_calls: Vec<ToolCall>,
}

/// A call in an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ToolCall {
    /// Empty where the model writes none.
    pub id: String,
    pub name: String,
    /// JSON text.
    pub arguments: String,
}

impl Parser {
    /// The parser that [`Template::render`] described.
    ///
    /// # Errors
    /// When it cannot be read, which is a fault of hearth.
    pub fn new(description: &ParserDescription) -> Result<Self, ChatError> {
        let text = serde_json::to_string(description).map_err(|error| ChatError(error.to_string()))?;
        let mut made = ptr::null_mut();
        call(|out, length| {
            // SAFETY: the text's pointer and length fit, and the results have places.
            unsafe { hearth_chat_parser_new(chars(&text), text.len(), &raw mut made, out, length) }
        })?;
        let raw = NonNull::new(made).ok_or_else(|| ChatError("the parser is gone".into()))?;
        Ok(Self { raw })
    }

    /// Reads an answer; with `partial`, the beginning of one.
    ///
    /// # Errors
    /// When the answer is not in the form that the parser expects.
    pub fn parse(&self, text: &str, partial: bool) -> Result<Message, ChatError> {
        let message = call(|out, length| {
            // SAFETY: the parser lives as long as `self`; the text's pointer and length fit.
            unsafe { hearth_chat_parse(self.raw.as_ptr(), chars(text), text.len(), partial, out, length) }
        })?;
        read(&message)
    }
}

impl Drop for Parser {
    fn drop(&mut self) {
        // SAFETY: made by common.cpp, and not used after this.
        unsafe { hearth_chat_parser_free(self.raw.as_ptr()) }
    }
}

/// The grammar, in GBNF, of the JSON that fits a schema.
///
/// # Errors
/// When the schema is broken or asks for what grammars cannot express.
pub fn schema_grammar(schema: &Value) -> Result<String, ChatError> {
    let text = schema.to_string();
    call(|out, length| {
        // SAFETY: the text's pointer and length fit, and the results have places.
        unsafe { hearth_chat_schema_grammar(chars(&text), text.len(), out, length) }
    })
}

#[cfg(test)]
mod tests;
