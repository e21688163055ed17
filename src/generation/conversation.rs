//! Conversations, as all front ends put them.

use serde_json::{Map, Value};

/// What a model is to answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    /// Whether an answer may have more than one call; if not given, where the template knows how to write them.
    pub parallel_tool_calls: Option<bool>,
    pub ending: Ending,
    /// Whether the model is to think before it answers, if it can; the model's own setting if not given.
    pub thinking: Option<bool>,
    /// Tokens after which a thought is ended.
    pub reasoning_budget: Option<u32>,
    /// What becomes of the thoughts.
    pub reasoning_format: ReasoningFormat,
    /// Further variables of the template, such as `reasoning_effort`, on top of the model's own.
    pub variables: Map<String, Value>,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    pub name: String,
    /// Empty for none.
    pub description: String,
    /// The JSON schema of its arguments, an object; an empty one for none.
    pub parameters: Value,
}

/// Whether the model calls tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// Not at all.
    None,
    /// At least one call.
    Required,
    /// A call of this tool.
    Named(String),
}

/// What becomes of a model's thoughts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReasoningFormat {
    /// They are told apart from the content.
    #[default]
    Apart,
    /// They stay in the content, as the model writes them.
    InContent,
}

/// How the prompt ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ending {
    /// With the header of an answer: the assistant's turn begins.
    #[default]
    Answer,
    /// In the middle of the final message, which is to be continued.
    FinalMessage,
    /// After the final message.
    Closed,
}

impl Ending {
    /// How a conversation ends that says nothing about it: a final text of the assistant is continued.
    #[must_use]
    pub fn of(messages: &[Message]) -> Self {
        match messages.last() {
            Some(last) if last.role == Role::Assistant && last.tool_calls.is_empty() => Self::FinalMessage,
            _ => Self::Answer,
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub role: Role,
    pub content: String,
    pub tool_calls: Vec<ToolCall>,
    /// What the assistant thought before this answer.
    pub reasoning: Option<String>,
    /// Of the participant, or of the tool that a result comes from.
    pub name: Option<String>,
    /// The call that a tool's result answers.
    pub tool_call_id: Option<String>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    /// OpenAI's newer word for `System`; templates that do not know it read `system`.
    Developer,
    User,
    Assistant,
    Tool,
}

/// A call that the assistant made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Empty where a client gave none.
    pub id: String,
    pub name: String,
    /// The JSON text of an object, unless the model wrote something else.
    pub arguments: String,
}

impl Role {
    /// As templates and APIs write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

impl Message {
    /// A message that is nothing but text.
    #[must_use]
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            tool_calls: Vec::new(),
            reasoning: None,
            name: None,
            tool_call_id: None,
        }
    }
}
