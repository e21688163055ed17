//! What is known of a model before its weights are loaded.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::ModelConfig;
use crate::engine::{ModelFile, ModelInfo};
use crate::gguf::{Gguf, GgufError, file_type_name};

/// The most that a model gets without a configured context, beside what it was trained for: long contexts cost memory that
/// nobody asked for.
const LONGEST_CONTEXT: u32 = 65_536;
/// The most slots that it gets without a number.
const MOST_SLOTS: u32 = 4;

/// Tokens of a sequence that the model can make sense of, trained for so many.
pub(super) fn stretched(config: &ModelConfig, trained: u32) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the factor is 1 or more; the conversion saturates"
    )]
    config
        .rope
        .yarn
        .map_or(trained, |factor| (f64::from(trained) * f64::from(factor)) as u32)
}

/// Puts together what the configuration and the header say. The context and its slots are the most that there may be; the plan
/// decides.
///
/// # Errors
/// [`GgufError::Model`] when the header does not describe a model.
pub fn describe(config: &ModelConfig, gguf: &Gguf) -> Result<ModelInfo, GgufError> {
    let geometry = gguf.geometry()?;
    let longest = stretched(config, geometry.context);
    let context = config.context.unwrap_or_else(|| longest.min(LONGEST_CONTEXT));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(ModelInfo {
        architecture: geometry.architecture,
        context,
        context_train: geometry.context,
        parallel: config.parallel.unwrap_or(MOST_SLOTS),
        vocabulary: geometry.tokenizer.vocabulary,
        parameters: gguf.parameters(),
        size_bytes: gguf.size_bytes(),
        file: ModelFile {
            path: gguf.path().display().to_string(),
            kind: geometry
                .file_type
                .and_then(file_type_name)
                .unwrap_or_default()
                .to_owned(),
            tokenizer: geometry.tokenizer.model,
            embedding: geometry.embedding,
        },
        // One of the configuration is for all conversations.
        tool_template: geometry
            .tokenizer
            .tool_template
            .filter(|_| config.chat_template.is_none()),
        chat_template: match &config.chat_template {
            Some(template) => Some(template.text.clone()),
            None => geometry.tokenizer.chat_template,
        },
        control_tokens: geometry.tokenizer.control_texts,
        bos_token: geometry.tokenizer.bos_text,
        eos_token: geometry.tokenizer.eos_text,
        created: now.as_secs(),
        ..ModelInfo::of_config(config)
    })
}
