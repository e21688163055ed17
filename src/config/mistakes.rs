//! Mistakes in a configuration, shown with the line they stand in.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// Line and column, counted from 1; `None` for what stands in no file.
    pub position: Option<(usize, usize)>,
    /// The line itself.
    pub line: Option<String>,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// All mistakes of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigErrors {
    pub file: Option<PathBuf>,
    pub mistakes: Vec<Mistake>,
}

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    pub(super) fn general(message: impl Into<String>, hint: &str) -> Self {
        Self {
            file: None,
            mistakes: vec![Mistake {
                position: None,
                line: None,
                message: message.into(),
                hint: Some(hint.to_owned()),
            }],
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.mistakes {
            writeln!(f, "error: {}", mistake.message)?;
            if let (Some((line, column)), Some(text)) = (mistake.position, &mistake.line) {
                if let Some(file) = &self.file {
                    writeln!(f, "  --> {}:{line}:{column}", file.display())?;
                }
                writeln!(f, "{line:>5} | {text}")?;
                writeln!(f, "      | {:>column$}", "^")?;
            }
            if let Some(hint) = &mistake.hint {
                writeln!(f, "  hint: {hint}")?;
            }
        }
        let count = self.mistakes.len();
        writeln!(
            f,
            "{count} mistake{} in the configuration",
            if count == 1 { "" } else { "s" }
        )
    }
}

/// Collects mistakes of one file.
#[derive(Debug)]
pub(super) struct Mistakes<'t> {
    text: &'t str,
    found: Vec<Mistake>,
}

impl<'t> Mistakes<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            found: Vec::new(),
        }
    }

    /// Notes a mistake at a span of the text.
    pub(super) fn at(&mut self, span: &Range<usize>, message: impl Into<String>, hint: Option<String>) {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        self.found.push(Mistake {
            position: Some((
                before.matches('\n').count() + 1,
                self.text[line_start..start].chars().count() + 1,
            )),
            line: Some(line.to_owned()),
            message: message.into(),
            hint,
        });
    }

    /// The mistakes in the order of the text, or the value if there are none.
    pub(super) fn finish<T>(mut self, file: PathBuf, value: T) -> Result<T, ConfigErrors> {
        if self.found.is_empty() {
            return Ok(value);
        }
        self.found.sort_by_key(|mistake| mistake.position);
        Err(ConfigErrors {
            file: Some(file),
            mistakes: self.found,
        })
    }
}
