//! A model's chat template: what a conversation becomes, and how the answer is read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::conversation::{Conversation, Ending, Message, ReasoningFormat, Role, Tool, ToolChoice};
use super::error::{GenerationError, TemplateError};
use super::limits;
use super::literal::{Literals, Part};
use super::reader::Form;
use super::request::OutputFormat;
use super::required::without_content;
use crate::engine::ModelInfo;
use crate::llama::chat::{self, Choice, Parser, Rendered, RunError, Template, TriggerKind};

/// For models whose file has no template; most instruction-tuned models without one were trained on ChatML.
const CHATML: &str = "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + message.content + \
                      '<|im_end|>\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}\
                      {%- endif -%}";

/// Bytes of a conversation that any template that ends renders in time.
const SMALL: usize = 1 << 20;

/// The templates of a model, compiled when they are first used.
#[derive(Debug)]
pub(super) struct Templates {
    default: OnceCell<Arc<Template>>,
    /// For conversations with tools, where the model has one of its own.
    with_tools: OnceCell<Arc<Template>>,
    /// A rendering did not end: there may be more like it.
    endless: AtomicBool,
    /// Control tokens that are text in messages.
    literals: Arc<Literals>,
    /// It was told that the template does not print messages as they are.
    told: Arc<AtomicBool>,
}

/// A prompt, and how to generate and read its answer.
pub(super) struct Prepared {
    /// What `prompt` says is in `parts`.
    pub(super) rendered: Rendered,
    pub(super) parts: Vec<Part>,
    pub(super) parser: Arc<Parser>,
    pub(super) form: Form,
}

impl Templates {
    pub(super) fn new(info: &ModelInfo) -> Self {
        Self {
            literals: Arc::new(Literals::new(&info.control_tokens)),
            told: Arc::default(),
            default: OnceCell::new(),
            with_tools: OnceCell::new(),
            endless: AtomicBool::new(false),
        }
    }

    /// Renders a conversation whose answer has this form.
    pub(super) async fn prepare(
        &self,
        info: &ModelInfo,
        conversation: Conversation,
        format: &OutputFormat,
    ) -> Result<Prepared, GenerationError> {
        limits::check(&conversation, format)?;
        let template = self.template(info, &conversation).await?;
        let request = Request::new(info, conversation, format)?;
        let (literals, told) = (self.literals.clone(), self.told.clone());
        let is_small = request.messages.iter().map(size).sum::<usize>() < SMALL;
        self.run(is_small, move || request.prepare(&template, &literals, &told))
            .await?
    }

    async fn template(&self, info: &ModelInfo, conversation: &Conversation) -> Result<Arc<Template>, GenerationError> {
        let (cell, source) = match &info.tool_template {
            Some(source) if !conversation.tools.is_empty() => (&self.with_tools, source.clone()),
            _ => match &info.chat_template {
                Some(source) => (&self.default, source.clone()),
                None => (&self.default, CHATML.to_owned()),
            },
        };
        let compile = || async {
            if info.chat_template.is_none() {
                tracing::warn!(
                    model = info.name,
                    "the file has no chat template; conversations use ChatML"
                );
            }
            let (bos, eos) = (info.bos_token.clone(), info.eos_token.clone());
            let compiled = self.run(true, move || Template::new(&source, &bos, &eos)).await?;
            compiled
                .map(Arc::new)
                .map_err(|error| TemplateError::Broken(error.to_string()).into())
        };
        cell.get_or_try_init(compile).await.cloned()
    }

    /// Runs a call into `common` on its threads. If it does not end although its input `is_small`, the template is to blame.
    async fn run<T: Send + 'static>(
        &self,
        is_small: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, GenerationError> {
        let broken = |what: String| GenerationError::from(TemplateError::Broken(what));
        if self.endless.load(Ordering::Relaxed) {
            return Err(broken("rendering it did not end".into()));
        }
        chat::run(work).await.map_err(|error| match error {
            RunError::Endless if !is_small => {
                invalid("messages", format!("rendering the conversation failed: {error}"))
            }
            RunError::Endless => {
                self.endless.store(true, Ordering::Relaxed);
                broken(format!("rendering it failed: {error}"))
            }
            error => GenerationError::Internal(format!("rendering the chat template: {error}")),
        })
    }
}

/// A conversation, made ready for `common`.
struct Request {
    messages: Vec<Message>,
    tools: Vec<Tool>,
    choice: Choice,
    parallel_tool_calls: Option<bool>,
    ending: Ending,
    thinking: bool,
    reasoning_apart: bool,
    format: OutputFormat,
    variables: Map<String, Value>,
}

impl Request {
    fn new(info: &ModelInfo, conversation: Conversation, format: &OutputFormat) -> Result<Self, GenerationError> {
        let mut tools = conversation.tools;
        let choice = match &conversation.tool_choice {
            ToolChoice::Auto => Choice::Auto,
            ToolChoice::None => Choice::None,
            ToolChoice::Required => Choice::Required,
            // Offered alone, it is the one that must be called.
            ToolChoice::Named(name) => {
                tools.retain(|tool| tool.name == *name);
                Choice::Required
            }
        };
        if choice == Choice::Required && tools.is_empty() {
            let message = match &conversation.tool_choice {
                ToolChoice::Named(name) => format!("`tool_choice` names `{name}`, which is not among the `tools`"),
                _ => "`tool_choice` asks for a call, but there are no `tools`".to_owned(),
            };
            return Err(invalid("tool_choice", message));
        }
        if choice == Choice::None {
            // A model that sees no tools calls none.
            tools.clear();
        }
        if matches!(format, OutputFormat::Grammar(_)) && !tools.is_empty() {
            let message = "`grammar` and `tools` cannot be combined: calls have a grammar of their own";
            return Err(invalid("grammar", message.into()));
        }
        if choice == Choice::Required && *format != OutputFormat::Text {
            let message = "a call is required by `tool_choice`, and another form by `response_format`, `json_schema` or \
                           `grammar`";
            return Err(invalid("tool_choice", message.into()));
        }
        let mut messages = conversation.messages;
        let mut ending = conversation.ending;
        // To go on with nothing is to begin.
        if ending == Ending::FinalMessage
            && let Some(last) = messages.last()
            && last.content.is_empty()
            && last.reasoning.as_ref().is_none_or(String::is_empty)
        {
            messages.pop();
            ending = Ending::Answer;
        }
        let mut variables = info.template_variables.clone();
        variables.extend(conversation.variables);
        let default_thinking = variables
            .shift_remove("enable_thinking")
            .and_then(|value| value.as_bool());
        Ok(Self {
            messages,
            tools,
            choice,
            parallel_tool_calls: conversation.parallel_tool_calls,
            ending,
            thinking: conversation.thinking.or(default_thinking).unwrap_or(true),
            reasoning_apart: conversation.reasoning_format == ReasoningFormat::Apart,
            format: format.clone(),
            variables,
        })
    }

    /// Renders, on a thread with a large stack.
    fn prepare(
        mut self,
        template: &Template,
        literals: &Literals,
        told: &AtomicBool,
    ) -> Result<Prepared, GenerationError> {
        limits::read_arguments(&mut self.messages)?;
        limits::read_parameters(&mut self.tools)?;
        let schema = limits::read_schema(&self.format)?;
        let (mut hidden, mut hides) = (self.messages.clone(), false);
        for message in hidden.iter_mut().filter(|message| message.role != Role::Assistant) {
            if let Some(content) = literals.hide(&message.content) {
                message.content = content;
                hides = true;
            }
        }
        let mut rendered = self.render(template, &hidden, &schema)?;
        let mut parts = vec![Part::Prompt(std::mem::take(&mut rendered.prompt))];
        if hides && let Some(Part::Prompt(prompt)) = parts.first() {
            if Literals::is_mangled(prompt) {
                if !told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "the chat template does not print messages as they are: control tokens in them are control tokens"
                    );
                }
                rendered = self.render(template, &self.messages, &schema)?;
                parts = vec![Part::Prompt(std::mem::take(&mut rendered.prompt))];
            } else {
                parts = literals.split(prompt);
            }
        }
        if self.choice == Choice::Required && self.reasoning_apart {
            rendered.grammar = without_content(&rendered.grammar, rendered.parser.parser());
        }
        let internal = |error: chat::ChatError| GenerationError::Internal(format!("the parser of answers: {error}"));
        let parser = Parser::new(&rendered.parser).map_err(internal)?;
        // What is there already of a message that is continued is not part of the answer.
        let before = if self.ending == Ending::FinalMessage {
            parser.parse("", true).unwrap_or_default()
        } else {
            chat::Message::default()
        };
        let thinks = self.reasoning_apart && rendered.thinks;
        Ok(Prepared {
            form: Form {
                generation_prompt: rendered.parser.generation_prompt.clone(),
                thinking_start: if thinks {
                    rendered.thinking_start.clone()
                } else {
                    String::new()
                },
                thinking_ends: rendered.thinking_ends.clone(),
                hazards: hazards(&rendered),
                calls: call_starts(&rendered),
                tools: self.tools.into_iter().map(|tool| tool.name).collect(),
                before,
            },
            parser: Arc::new(parser),
            rendered,
            parts,
        })
    }

    fn render(
        &self,
        template: &Template,
        messages: &[Message],
        json_schema: &str,
    ) -> Result<Rendered, GenerationError> {
        let rendered = template.render(chat::Request {
            messages: messages.iter().map(message).collect(),
            tools: self.tools.iter().map(tool).collect(),
            tool_choice: self.choice,
            parallel_tool_calls: self
                .parallel_tool_calls
                .unwrap_or(template.abilities().parallel_tool_calls),
            add_generation_prompt: self.ending == Ending::Answer,
            continue_final_message: self.ending == Ending::FinalMessage,
            enable_thinking: self.thinking,
            reasoning_apart: self.reasoning_apart,
            json_schema,
            variables: &self.variables,
        });
        rendered.map_err(|error| TemplateError::Refused(error.to_string()).into())
    }
}

/// The first characters of texts that mean something to the parser.
fn hazards(rendered: &Rendered) -> String {
    let triggers = rendered.triggers.iter().map(|trigger| &trigger.value);
    let texts = triggers.chain(&rendered.preserved).chain(&rendered.thinking_ends);
    let first = texts.filter_map(|text| text.trim_start().chars().next());
    first.collect::<BTreeSet<char>>().into_iter().collect()
}

/// Texts with which calls begin.
fn call_starts(rendered: &Rendered) -> Vec<String> {
    let words = rendered
        .triggers
        .iter()
        .filter(|trigger| trigger.kind() == Some(TriggerKind::Word));
    let texts = words.map(|trigger| trigger.value.trim().to_owned());
    texts.filter(|text| !text.is_empty()).collect()
}

/// Bytes of a message.
fn size(message: &Message) -> usize {
    let arguments = message.tool_calls.iter().map(|call| call.arguments.len());
    message.content.len() + message.reasoning.as_ref().map_or(0, String::len) + arguments.sum::<usize>()
}

fn invalid(field: &'static str, message: String) -> GenerationError {
    GenerationError::InvalidRequest { field, message }
}

/// A message in OpenAI's form. Templates ask whether a field is there, so what is not set is left out.
fn message(message: &Message) -> Value {
    let mut out = Map::new();
    out.insert("role".into(), message.role.as_str().into());
    out.insert("content".into(), message.content.as_str().into());
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let mut out = json!({
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            });
            if !call.id.is_empty() {
                out["id"] = call.id.as_str().into();
            }
            out
        });
        out.insert("tool_calls".into(), calls.collect());
    }
    for (field, value) in [
        ("reasoning_content", &message.reasoning),
        ("name", &message.name),
        ("tool_call_id", &message.tool_call_id),
    ] {
        if let Some(text) = value {
            out.insert(field.into(), text.as_str().into());
        }
    }
    out.into()
}

fn tool(tool: &Tool) -> Value {
    json!({
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
    })
}
