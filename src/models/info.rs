//! What is known of a model before its weights are loaded.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::ModelConfig;
use crate::engine::ModelInfo;
use crate::gguf::{Gguf, GgufError};

/// Without a configured context a model gets what it was trained for, but no more than this: long contexts cost memory
/// that nobody asked for.
const DEFAULT_CONTEXT: u32 = 32_768;

/// Puts together what the configuration and the header say.
///
/// # Errors
/// [`GgufError::Model`] when the header does not describe a model.
pub fn describe(config: &ModelConfig, gguf: &Gguf) -> Result<ModelInfo, GgufError> {
    let geometry = gguf.geometry()?;
    let context = config.context.unwrap_or_else(|| geometry.context.min(DEFAULT_CONTEXT));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(ModelInfo {
        name: config.name.clone(),
        role: config.role.clone(),
        aliases: config.aliases.clone(),
        architecture: geometry.architecture,
        context,
        context_train: geometry.context,
        parallel: config.parallel,
        vocabulary: geometry.tokenizer.vocabulary,
        parameters: gguf.parameters(),
        size_bytes: gguf.size_bytes(),
        // One of the configuration is for all conversations.
        tool_template: geometry
            .tokenizer
            .tool_template
            .filter(|_| config.chat_template.is_none()),
        chat_template: match &config.chat_template {
            Some(template) => Some(template.text.clone()),
            None => geometry.tokenizer.chat_template,
        },
        template_variables: config.chat_template_kwargs.clone().unwrap_or_default(),
        control_tokens: geometry.tokenizer.control_texts,
        bos_token: geometry.tokenizer.bos_text,
        eos_token: geometry.tokenizer.eos_text,
        sampling: config.sampling.clone(),
        created: now.as_secs(),
    })
}
