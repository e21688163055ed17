//! Prompts of requests as tokens.

use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;

use super::tokenize::{Tokenizer, split_prompt};
use super::{LocalEngine, check_tokens, invalid};
use crate::engine::{EngineError, Prompt, Token};

impl LocalEngine {
    /// The tokens of a prompt, at least one.
    pub(super) async fn prompt_tokens(
        &self,
        model: Arc<LlamaModel>,
        prompt: Prompt,
    ) -> Result<Vec<Token>, EngineError> {
        let mut tokens = match prompt {
            Prompt::Text { text, add_special } => {
                self.refuse_endless(&text)?;
                self.text_tokens(model.clone(), text, add_special).await?
            }
            Prompt::Tokens(tokens) => {
                check_tokens("prompt", &tokens, &model)?;
                tokens
            }
        };
        let vocab = model.vocab();
        if tokens.is_empty() && vocab.bos().0 >= 0 {
            tokens.push(vocab.bos().0);
        }
        if tokens.is_empty() {
            return Err(invalid("prompt", "the prompt is empty"));
        }
        Ok(tokens)
    }

    /// The tokens of a text with control tokens.
    pub(super) async fn text_tokens(
        &self,
        model: Arc<LlamaModel>,
        text: String,
        add_special: bool,
    ) -> Result<Vec<Token>, EngineError> {
        split_prompt(model, self.tokenizer()?, text, add_special).await
    }

    fn tokenizer(&self) -> Result<Arc<Tokenizer>, EngineError> {
        let tokenizer = self.tokenizer.get().cloned();
        tokenizer.ok_or_else(|| self.unavailable("the model is gone".into()))
    }

    /// Refuses a text that cannot fit the context whatever its tokens are: counting them would take long.
    fn refuse_endless(&self, text: &str) -> Result<(), EngineError> {
        /// Texts up to so many bytes per token of the context are counted.
        const ORDINARY: usize = 16;
        let context = usize::try_from(self.info.context).unwrap_or(usize::MAX);
        if text.len() <= context.saturating_mul(ORDINARY) {
            return Ok(());
        }
        let longest = self.tokenizer()?.longest_piece();
        let least = longest.map_or(0, |longest| text.len().div_ceil(longest.max(1)));
        if least <= context {
            return Ok(());
        }
        Err(EngineError::PromptTooLong {
            model: self.info.name.clone(),
            bytes: text.len(),
            least_tokens: least,
            context: self.info.context,
        })
    }
}
