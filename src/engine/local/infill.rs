//! Texts that go between two others.

use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;

use super::tokenize::split;
use crate::engine::{EngineError, InfillTokens, Prompt};

/// How the model is asked; `None` if it has not learnt it.
pub(super) fn tokens(model: &LlamaModel) -> Option<InfillTokens> {
    let vocab = model.vocab();
    let some = |token: LlamaToken| (token.0 >= 0).then_some(token.0);
    Some(InfillTokens {
        prefix: some(vocab.fim_pre())?,
        suffix: some(vocab.fim_suf())?,
        middle: some(vocab.fim_mid())?,
        repository: some(vocab.fim_rep()),
        separator: some(vocab.fim_sep()),
        bos: some(vocab.bos()).filter(|_| vocab.should_add_bos()),
    })
}

/// The prompt for what goes between two texts.
pub(super) async fn prompt(
    model: Arc<LlamaModel>,
    marks: InfillTokens,
    before: String,
    after: String,
) -> Result<Prompt, EngineError> {
    let before = split(model.clone(), before, false, false).await?;
    let after = split(model, after, false, false).await?;
    let begin = marks.bos.into_iter().chain([marks.prefix]);
    let tokens = begin
        .chain(before)
        .chain([marks.suffix])
        .chain(after)
        .chain([marks.middle]);
    Ok(Prompt::Tokens(tokens.collect()))
}
