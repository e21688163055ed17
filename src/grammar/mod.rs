//! Grammars that an answer keeps to, in llama.cpp's notation (GBNF).
//!
//! llama.cpp's own grammar sampler cannot be given what strangers write: some grammars make it recurse or grow without end,
//! abort the process, or take seconds per token, and it tries all tokens of a vocabulary one by one. This one refuses what it
//! cannot follow, works within an allowance, and remembers what it found out: see [`tables`]. Knows nothing of llama.cpp.
//! docs/grammars.md has what was measured beside llguidance.
//!
//! [`Compiled::new`] reads a grammar, a [`Matcher`] follows it.

mod automaton;
mod class;
mod cost;
mod error;
mod mask;
mod matcher;
mod pattern;
mod prepare;
mod regex;
mod schema;
mod strict;
mod syntax;
mod tables;
mod trigger;
mod vocabulary;

pub use cost::{MAX_COST, cost, cost_of_text};
pub use error::{Exhausted, GrammarError};
pub use matcher::{Compiled, Matcher};
pub use prepare::prepare_schema;
pub use regex::{choice_to_grammar, regex_to_grammar};
pub use trigger::Trigger;
pub use vocabulary::{Kind, Vocabulary};

#[cfg(test)]
mod tests;
