//! One thing that was looked at.

use serde::Serialize;

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    /// Could be better, or is worth knowing.
    Note,
    /// Costs much, or something will not work.
    Problem,
}

impl Status {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub status: Status,
    /// The subject, in a word or two.
    pub subject: &'static str,
    /// How it is.
    pub what: String,
    /// Why that matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
}

impl Finding {
    fn new(status: Status, subject: &'static str, what: impl Into<String>) -> Self {
        Self {
            status,
            subject,
            what: what.into(),
            why: None,
            change: None,
        }
    }

    pub(super) fn ok(subject: &'static str, what: impl Into<String>) -> Self {
        Self::new(Status::Ok, subject, what)
    }

    pub(super) fn note(subject: &'static str, what: impl Into<String>) -> Self {
        Self::new(Status::Note, subject, what)
    }

    pub(super) fn problem(subject: &'static str, what: impl Into<String>) -> Self {
        Self::new(Status::Problem, subject, what)
    }

    pub(super) fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    pub(super) fn change(mut self, change: impl Into<String>) -> Self {
        self.change = Some(change.into());
        self
    }
}
