//! Conversations, as all front ends put them.

use serde_json::{Map, Value};

/// What a model is to answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    pub messages: Vec<Message>,
    /// Definitions in OpenAI's form, as the client sent them; templates print them.
    pub tools: Vec<Value>,
    pub ending: Ending,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Map<String, Value>,
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
    User,
    Assistant,
    Tool,
}

/// A call that the assistant made.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    pub id: Option<String>,
    pub name: String,
    /// An object; a string where the model wrote something that is no JSON object.
    pub arguments: Value,
}

impl Role {
    /// As templates and APIs write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
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
