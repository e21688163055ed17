//! What a template says of answers, kept for the next request of the same kind.
//!
//! `common` analyses most templates anew whenever it renders a conversation, by rendering some thirty conversations of its own:
//! several milliseconds, of which the prompt itself needs few. What it finds depends on the generation prompt and on all of the
//! request but its messages: requests that agree in these are of one kind.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Rendered;

/// Bytes of what is kept for a template: clients with tools, forms of answers and settings of their own.
const BYTES: u64 = 4 << 20;

/// What is said of answers; `Rendered::prompt` is empty.
#[derive(Debug)]
pub(super) struct Known(Cache<Kind, Arc<Rendered>, Bytes>);

/// A request without its messages, as JSON, and the generation prompt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) request: String,
    pub(super) generation_prompt: String,
}

impl Default for Known {
    fn default() -> Self {
        Self(Cache::with_weighter(1, BYTES, Bytes))
    }
}

impl Known {
    /// What is known of that kind, with this prompt.
    pub(super) fn get(&self, kind: &Kind, prompt: String) -> Option<Rendered> {
        let known = self.0.get(kind)?;
        Some(Rendered {
            prompt,
            ..Rendered::clone(&known)
        })
    }

    pub(super) fn put(&self, kind: Kind, rendered: &Rendered) {
        let mut rendered = rendered.clone();
        rendered.prompt.clear();
        self.0.insert(kind, Arc::new(rendered));
    }
}

/// Weighs what is kept by its long texts.
#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Kind, Arc<Rendered>> for Bytes {
    fn weight(&self, kind: &Kind, rendered: &Arc<Rendered>) -> u64 {
        (kind.request.len() + rendered.grammar.len() + rendered.parser.parser.len()) as u64
    }
}
