//! What is wrong with a grammar.

/// Why a grammar cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    #[error("the grammar cannot be read, line {line}: {what}")]
    Syntax { line: usize, what: String },
    #[error("the grammar has no rule `root`")]
    NoRoot,
    #[error("the grammar uses rule `{0}`, but does not define it")]
    Undefined(String),
    #[error(
        "rule `{0}` of the grammar comes to itself again without reading anything (left recursion); write it with the recursion at \
         the end, or with * and +"
    )]
    LeftRecursion(String),
    #[error("the grammar is too large: {0}")]
    TooLarge(String),
    #[error("the grammar's trigger `{pattern}` cannot be used: {reason}")]
    Trigger { pattern: String, reason: String },
    #[error("the JSON schema is wrong at {path}: {what}")]
    Schema {
        /// As in `$ref`.
        path: String,
        what: String,
    },
    #[error("the regular expression cannot be used: {0}")]
    Regex(String),
}

/// A grammar took more work than a request may cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the grammar is too ambiguous: following it takes more work than a request may cause")]
pub struct Exhausted;
