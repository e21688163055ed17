//! Regular expressions and lists of choices as grammars.

use std::fmt::Write;

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

use super::error::GrammarError;

const MAX_BYTES: usize = 16 << 10;
const MAX_DEPTH: u32 = 60;

/// A grammar for the texts that a regular expression matches from their beginning to their end. The notation is that of the
/// crate `regex`, close to Python's; what looks around, and what refers to groups, has no grammar.
///
/// # Errors
/// Says what is wrong with it.
pub fn regex_to_grammar(pattern: &str) -> Result<String, GrammarError> {
    if pattern.len() > MAX_BYTES {
        return Err(GrammarError::Regex(format!("it has more than {MAX_BYTES} bytes")));
    }
    let parsed = regex_syntax::ParserBuilder::new()
        .nest_limit(MAX_DEPTH)
        .build()
        .parse(pattern);
    let hir = parsed.map_err(|error| match error {
        regex_syntax::Error::Parse(error) => GrammarError::Regex(error.kind().to_string()),
        regex_syntax::Error::Translate(error) => GrammarError::Regex(error.kind().to_string()),
        other => GrammarError::Regex(other.to_string()),
    })?;
    let mut out = "root ::= ".to_owned();
    write(
        &hir,
        Place {
            first: true,
            last: true,
        },
        &mut out,
    )?;
    out.push('\n');
    Ok(out)
}

/// A grammar for one of several texts.
#[must_use]
pub fn choice_to_grammar(choices: &[String]) -> String {
    let mut out = "root ::= ".to_owned();
    for (index, choice) in choices.iter().enumerate() {
        if index > 0 {
            out.push_str(" | ");
        }
        write_literal(choice, &mut out);
    }
    out.push('\n');
    out
}

/// Whether a part of an expression stands at the beginning and at the end of all of it.
#[derive(Clone, Copy)]
struct Place {
    first: bool,
    last: bool,
}

fn write(hir: &Hir, place: Place, out: &mut String) -> Result<(), GrammarError> {
    let unsupported = |what: &str| Err(GrammarError::Regex(format!("{what} cannot be part of a grammar")));
    match hir.kind() {
        HirKind::Empty => out.push_str("\"\""),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => write_literal(text, out),
            Err(_) => return unsupported("a byte that is no character"),
        },
        HirKind::Class(Class::Unicode(class)) => {
            let ranges = class.ranges();
            if ranges.is_empty() {
                return unsupported("a class without characters");
            }
            out.push('[');
            for range in ranges {
                write_character(range.start(), out);
                out.push('-');
                write_character(range.end(), out);
            }
            out.push(']');
        }
        HirKind::Class(Class::Bytes(_)) => return unsupported("a class of bytes"),
        HirKind::Look(Look::Start | Look::StartLF) if place.first => out.push_str("\"\""),
        HirKind::Look(Look::End | Look::EndLF) if place.last => out.push_str("\"\""),
        HirKind::Look(_) => return unsupported("a border of words or lines"),
        HirKind::Repetition(Repetition { min, max, sub, .. }) => {
            out.push('(');
            write(
                sub,
                Place {
                    first: false,
                    last: false,
                },
                out,
            )?;
            match (min, max) {
                (0, None) => out.push_str(")*"),
                (1, None) => out.push_str(")+"),
                (min, None) => {
                    let _ = write!(out, "){{{min},}}");
                }
                (min, Some(max)) => {
                    let _ = write!(out, "){{{min},{max}}}");
                }
            }
        }
        HirKind::Capture(capture) => {
            out.push('(');
            write(&capture.sub, place, out)?;
            out.push(')');
        }
        HirKind::Concat(parts) => {
            for (index, part) in parts.iter().enumerate() {
                let place = Place {
                    first: place.first && index == 0,
                    last: place.last && index + 1 == parts.len(),
                };
                write(part, place, out)?;
                out.push(' ');
            }
        }
        HirKind::Alternation(choices) => {
            out.push('(');
            for (index, choice) in choices.iter().enumerate() {
                if index > 0 {
                    out.push_str(" | ");
                }
                write(choice, place, out)?;
            }
            out.push(')');
        }
    }
    Ok(())
}

fn write_literal(text: &str, out: &mut String) {
    out.push('"');
    text.chars().for_each(|character| write_character(character, out));
    out.push('"');
}

/// A character in quotes or square brackets.
fn write_character(character: char, out: &mut String) {
    match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | ' ' => out.push(character),
        other => {
            let _ = write!(out, "\\U{:08X}", u32::from(other));
        }
    }
}
