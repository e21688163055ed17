//! Prompts of a model: its templates, and the tokens of what they print.

use std::sync::Arc;

use super::conversation::Conversation;
use super::error::GenerationError;
use super::literal::Part;
use super::request::{OutputFormat, Segment, TextPrompt};
use super::template::{Prepared, Templates};
use crate::engine::{Border, Prompt, Token, TokenEngine};
use crate::llama::chat::Rendered;

/// A token engine and the templates of its model. Cheap to clone.
#[derive(Clone)]
pub(super) struct Prompts {
    engine: Arc<dyn TokenEngine>,
    templates: Arc<Templates>,
}

impl Prompts {
    pub(super) fn new(engine: Arc<dyn TokenEngine>) -> Self {
        Self {
            templates: Arc::new(Templates::new(engine.info())),
            engine,
        }
    }

    /// Renders a conversation whose answer has this form.
    pub(super) async fn render(
        &self,
        conversation: Conversation,
        format: &OutputFormat,
    ) -> Result<Prepared, GenerationError> {
        self.templates.prepare(self.engine.info(), conversation, format).await
    }

    /// Texts and tokens as they are, without a template.
    pub(super) async fn text_prompt(&self, prompt: TextPrompt) -> Result<Prompt, GenerationError> {
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

    /// Mostly one text; what users wrote that looks like control tokens is tokenized apart.
    pub(super) async fn chat_prompt(&self, mut parts: Vec<Part>) -> Result<Prompt, GenerationError> {
        if let [Part::Prompt(text)] = parts.as_mut_slice() {
            return Ok(Prompt::Text {
                text: std::mem::take(text),
                add_special: true,
            });
        }
        let mut tokens = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let (text, control) = match part {
                Part::Prompt(text) => (text, true),
                Part::Literal(text) => (text, false),
            };
            tokens.extend(self.engine.tokenize(text, index == 0, control).await?);
        }
        Ok(Prompt::Tokens(tokens))
    }

    /// The control tokens that the parser needs to see. Texts of several tokens are seen anyway.
    pub(super) async fn preserved(&self, rendered: &Rendered) -> Result<Vec<Token>, GenerationError> {
        let mut tokens = Vec::new();
        for text in &rendered.preserved {
            tokens.extend(self.single_token(text).await?);
        }
        Ok(tokens)
    }

    /// Where messages begin. White space behind a role may be one token with what follows.
    pub(super) async fn borders(&self, rendered: &Rendered) -> Result<Vec<Border>, GenerationError> {
        let mut borders = Vec::with_capacity(rendered.borders.len());
        for border in &rendered.borders {
            let text = border.delimiter.trim_end().to_owned();
            borders.push(Border {
                tokens: self.engine.tokenize(text, false, true).await?,
                of_user: border.role == "user",
            });
        }
        Ok(borders)
    }

    /// The token that a text is; `None` if it is several.
    pub(super) async fn single_token(&self, text: &str) -> Result<Option<Token>, GenerationError> {
        let tokens = self.engine.tokenize(text.to_owned(), false, true).await?;
        Ok(match tokens.as_slice() {
            [token] => Some(*token),
            _ => None,
        })
    }

    /// The tokens of a conversation before the newest message of the user; `None` if it is not known where that begins.
    pub(super) async fn before_newest(
        &self,
        conversation: Conversation,
        format: &OutputFormat,
    ) -> Result<Option<Vec<Token>>, GenerationError> {
        let prepared = self.render(conversation, format).await?;
        let borders = self.borders(&prepared.rendered).await?;
        let mut tokens = match self.chat_prompt(prepared.parts).await? {
            Prompt::Tokens(tokens) => tokens,
            Prompt::Text { text, add_special } => self.engine.tokenize(text, add_special, true).await?,
        };
        let of_user = |at: usize| {
            borders
                .iter()
                .any(|border| border.of_user && border.begins(&tokens[at..]))
        };
        let newest = (0..tokens.len()).rfind(|at| of_user(*at));
        tokens.truncate(newest.unwrap_or(0));
        Ok(newest.map(|_| tokens))
    }
}
