//! Mistakes, where they are, and how they are shown.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::json;

/// The configuration file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    pub path: PathBuf,
    pub text: String,
}

impl SourceFile {
    /// Line and column of a byte, both from 1, the column in characters.
    ///
    /// A place behind the last visible character counts as its end: a line that exists can be shown.
    pub fn line_column(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.trim_end().len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    }

    fn line(&self, number: usize) -> &str {
        self.text.lines().nth(number - 1).unwrap_or_default()
    }
}

/// Where a value, and thus a mistake, comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// Bytes of the configuration file.
    File(Range<usize>),
    /// An environment variable.
    Variable(String),
    /// A flag, with its dashes.
    Flag(String),
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Hearth does not start.
    Error,
    /// Legal, but hardly meant.
    Warning,
}

/// One mistake: what is wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub origin: Origin,
    pub message: String,
    pub hint: Option<String>,
}

impl Diagnostic {
    pub(super) fn error(origin: &Origin, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            origin: origin.clone(),
            message: message.into(),
            hint: None,
        }
    }

    pub(super) fn warning(origin: &Origin, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(origin, message)
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.message)?;
        match &self.hint {
            Some(hint) => write!(out, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Where the layers and checks put what they find. Shared by reference, hence the cell.
pub(super) struct Problems {
    source: Option<SourceFile>,
    found: RefCell<Vec<Diagnostic>>,
}

impl Problems {
    pub fn new(source: Option<SourceFile>) -> Self {
        Self {
            source,
            found: RefCell::default(),
        }
    }

    pub fn source(&self) -> Option<&SourceFile> {
        self.source.as_ref()
    }

    pub fn push(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    /// A place in words, for messages that point to a second one.
    pub fn place(&self, origin: &Origin) -> String {
        match (origin, &self.source) {
            (Origin::File(span), Some(source)) => format!("line {}", source.line_column(span.start).0),
            (Origin::Variable(name) | Origin::Flag(name), _) => format!("`{name}`"),
            _ => "default".to_owned(),
        }
    }

    pub fn into_errors(self) -> ConfigErrors {
        let mut diagnostics = self.found.into_inner();
        // In the order of the file, as one reads it; what is not in the file comes last.
        diagnostics.sort_by_key(|diagnostic| match &diagnostic.origin {
            Origin::File(span) => span.start,
            _ => usize::MAX,
        });
        ConfigErrors {
            source: self.source,
            diagnostics,
        }
    }
}

/// All mistakes of a configuration. `Display` shows each with its line, a caret and a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    source: Option<SourceFile>,
    diagnostics: Vec<Diagnostic>,
}

impl std::error::Error for ConfigErrors {}

impl<'e> IntoIterator for &'e ConfigErrors {
    type Item = &'e Diagnostic;
    type IntoIter = std::slice::Iter<'e, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.diagnostics.iter()
    }
}

impl ConfigErrors {
    /// In the order of the file; those of the environment and the flags last.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The file that the diagnostics point into.
    pub fn source_file(&self) -> Option<&SourceFile> {
        self.source.as_ref()
    }

    /// Line and column, both from 1, of a diagnostic that is in the file.
    pub fn line_column(&self, diagnostic: &Diagnostic) -> Option<(usize, usize)> {
        match (&diagnostic.origin, &self.source) {
            (Origin::File(span), Some(source)) => Some(source.line_column(span.start)),
            _ => None,
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    pub(super) fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.diagnostics
            .iter()
            .filter(|found| found.severity == severity)
            .count()
    }

    /// For programs: one object per diagnostic.
    pub fn to_json(&self) -> serde_json::Value {
        self.diagnostics
            .iter()
            .map(|found| {
                let place = self.line_column(found);
                json!({
                    "severity": match found.severity {
                        Severity::Error => "error",
                        Severity::Warning => "warning",
                    },
                    "message": found.message,
                    "hint": found.hint,
                    "line": place.map(|(line, _)| line),
                    "column": place.map(|(_, column)| column),
                    "source": match &found.origin {
                        Origin::Variable(name) | Origin::Flag(name) => Some(name.as_str()),
                        _ => None,
                    },
                })
            })
            .collect()
    }

    fn write_one(&self, out: &mut fmt::Formatter<'_>, found: &Diagnostic) -> fmt::Result {
        let label = match found.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(out, "{label}: {}", found.message)?;
        if let (Origin::File(span), Some(source)) = (&found.origin, &self.source) {
            write_excerpt(out, source, span)?;
        }
        if let Some(hint) = &found.hint {
            writeln!(out, "hint: {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for found in &self.diagnostics {
            self.write_one(out, found)?;
            writeln!(out)?;
        }
        let place = self.source.as_ref().map_or(Path::new("the configuration"), |s| &s.path);
        let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        match (self.count(Severity::Error), self.count(Severity::Warning)) {
            (0, warnings) => write!(out, "{}", plural(warnings, "warning"))?,
            (errors, 0) => write!(out, "{}", plural(errors, "mistake"))?,
            (errors, warnings) => write!(out, "{} and {}", plural(errors, "mistake"), plural(warnings, "warning"))?,
        }
        writeln!(out, " in {}", place.display())
    }
}

/// The line with a caret below each marked character, as compilers show it.
fn write_excerpt(out: &mut fmt::Formatter<'_>, source: &SourceFile, span: &Range<usize>) -> fmt::Result {
    let (number, column) = source.line_column(span.start);
    let line = source.line(number);
    let marked = source.text.get(span.clone()).unwrap_or_default();
    // A mark ends with its line, even if what it marks goes on.
    let marked = marked.lines().next().unwrap_or_default().chars().count();
    let rest = line.chars().count().saturating_sub(column - 1);
    let carets = "^".repeat(marked.min(rest).max(1));
    // Tabs are kept, so that the caret stands below its character whatever their width.
    let indent: String = line
        .chars()
        .take(column - 1)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    // Control characters of a broken file must not reach the terminal.
    let shown: String = line
        .chars()
        .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
        .collect();
    let gutter = " ".repeat(number.to_string().len());
    writeln!(out, "{gutter}--> {}:{number}:{column}", source.path.display())?;
    writeln!(out, "{gutter} |")?;
    writeln!(out, "{number} | {shown}")?;
    writeln!(out, "{gutter} | {indent}{carets}")
}
