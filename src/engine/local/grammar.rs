//! Grammars of requests: compiled before the queue, away from the async workers, and kept for the next request.

use std::sync::{Arc, OnceLock};

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token_type::LlamaTokenAttr;
use parking_lot::Mutex;

use super::tokenize::{aside, tokenize};
use crate::engine::{EngineError, Grammar};
use crate::grammar::{Compiled, Kind, Matcher, Vocabulary};

/// Compiled grammars that are kept, and what they may take together; the last one stays, whatever its size.
const MAX_KEPT: usize = 64;
const MAX_KEPT_BYTES: usize = 128 << 20;

/// The grammars of a model.
#[derive(Debug, Default)]
pub(super) struct Grammars {
    /// Read when the first grammar comes.
    vocabulary: OnceLock<Arc<Vocabulary>>,
    /// The latest last.
    kept: Mutex<Vec<(Grammar, Arc<Compiled>)>>,
}

impl Grammars {
    /// A matcher for one answer.
    pub(super) async fn matcher(
        self: &Arc<Self>,
        model: Arc<LlamaModel>,
        grammar: Grammar,
        preserved: Vec<i32>,
        special: bool,
    ) -> Result<Matcher, EngineError> {
        let this = self.clone();
        aside(move || this.prepare(&model, grammar, preserved, special)).await?
    }

    fn prepare(
        &self,
        model: &LlamaModel,
        grammar: Grammar,
        preserved: Vec<i32>,
        special: bool,
    ) -> Result<Matcher, EngineError> {
        let invalid = |message: String| EngineError::InvalidRequest {
            field: "grammar",
            message,
        };
        let prefix = grammar.prefix.clone();
        let compiled = match self.kept(&grammar) {
            Some(compiled) => compiled,
            None => {
                let vocabulary = self.vocabulary.get_or_init(|| Arc::new(vocabulary(model)));
                let compiled = Compiled::new(&grammar.text, grammar.triggers.as_deref(), vocabulary.clone());
                let compiled = Arc::new(compiled.map_err(|error| invalid(error.to_string()))?);
                self.keep(grammar, compiled.clone());
                compiled
            }
        };
        let mut matcher = Matcher::new(compiled, preserved, special);
        if !prefix.is_empty() {
            let tokens = tokenize(&model.vocab(), &prefix, false, true);
            let fits = matcher
                .begin_with(&prefix, &tokens)
                .map_err(|error| invalid(error.to_string()))?;
            if !fits {
                return Err(invalid(
                    "the grammar does not allow the end of the prompt, which it covers".into(),
                ));
            }
        }
        Ok(matcher)
    }

    /// The compiled grammar, if it is kept; what only the prompt differs in is the same grammar.
    fn kept(&self, grammar: &Grammar) -> Option<Arc<Compiled>> {
        let mut kept = self.kept.lock();
        let same = |(other, _): &(Grammar, _)| other.text == grammar.text && other.triggers == grammar.triggers;
        let index = kept.iter().rposition(same)?;
        let found = kept.remove(index);
        let compiled = found.1.clone();
        if compiled.is_full() {
            return None;
        }
        kept.push(found);
        Some(compiled)
    }

    fn keep(&self, grammar: Grammar, compiled: Arc<Compiled>) {
        let mut kept = self.kept.lock();
        kept.push((grammar, compiled));
        let mut bytes = 0;
        let fits = |(grammar, compiled): &(Grammar, Arc<Compiled>)| {
            bytes += grammar.text.len() + compiled.bytes();
            bytes <= MAX_KEPT_BYTES
        };
        let stay = kept.iter().rev().take(MAX_KEPT).take_while({
            let mut fits = fits;
            move |entry| fits(entry)
        });
        let stay = stay.count().max(1);
        let gone = kept.len() - stay;
        kept.drain(..gone);
    }
}

/// What each token of a model is for a grammar.
fn vocabulary(model: &LlamaModel) -> Vocabulary {
    let vocab = model.vocab();
    Vocabulary::new(vocab.tokens().map(|token| {
        let attributes = vocab.attr(token);
        let nothing = attributes.contains(LlamaTokenAttr::Unused) || attributes.contains(LlamaTokenAttr::Unknown);
        let kind = if vocab.is_eog(token) {
            Kind::End
        } else if nothing || attributes.contains(LlamaTokenAttr::Control) {
            Kind::Control
        } else {
            Kind::Text
        };
        (vocab.token_to_piece(token, true, None), kind)
    }))
}
