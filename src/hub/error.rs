//! Why something was not fetched.

use std::fmt;

/// What went wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}{}", Hint(hint.as_deref()))]
pub struct PullError {
    pub what: String,
    pub hint: Option<String>,
    /// What was asked for makes no sense, whatever the hub answers.
    pub usage: bool,
}

struct Hint<'h>(Option<&'h str>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(hint) => write!(out, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl PullError {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: None,
            usage: false,
        }
    }

    pub(super) fn usage(what: impl Into<String>) -> Self {
        Self {
            usage: true,
            ..Self::new(what)
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// For failures of the file system.
    pub(super) fn file(path: &std::path::Path, doing: &str, error: &std::io::Error) -> Self {
        Self::new(format!("cannot {doing} {}: {error}", path.display()))
    }
}
