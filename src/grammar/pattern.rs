//! The `pattern`s of JSON schemas, in the words that llama.cpp's converter knows.
//!
//! The converter takes a pattern that it does not know (`\d`, no `^` and `$`) for any string, and lets `.` and `[^a]` be a quotation
//! mark, which ends the string. Here the same is said with literals, classes, groups and repetitions of what may stand in
//! a JSON text. See `_pattern_to_rule` in llama.cpp's common/json-schema-to-grammar.cpp.

use regex_syntax::ast::{
    AssertionKind, Ast, ClassPerlKind, ClassSet, ClassSetItem, Literal, RepetitionKind, RepetitionRange,
    parse::ParserBuilder,
};

/// Parentheses within parentheses; the converter has a bound, too.
const MAX_DEPTH: u32 = 30;

/// Characters from the first to the second.
type Range = (char, char);

/// The pattern for the converter.
///
/// # Errors
/// Says what has no grammar.
pub(super) fn rewrite(pattern: &str) -> Result<String, String> {
    let ast = ParserBuilder::new().nest_limit(MAX_DEPTH).build().parse(pattern);
    let ast = ast.map_err(|error| error.kind().to_string())?;
    let mut out = "^".to_owned();
    match &ast {
        Ast::Alternation(alternation) => {
            out.push('(');
            for (index, ast) in alternation.asts.iter().enumerate() {
                if index > 0 {
                    out.push('|');
                }
                whole(ast, &mut out)?;
            }
            out.push(')');
        }
        ast => whole(ast, &mut out)?,
    }
    out.push('$');
    Ok(out)
}

/// An alternative of the whole pattern: where it is not anchored, anything may stand.
fn whole(ast: &Ast, out: &mut String) -> Result<(), String> {
    let parts = match ast {
        Ast::Concat(concat) => concat.asts.as_slice(),
        ast => std::slice::from_ref(ast),
    };
    let is = |part: Option<&Ast>, kinds: [AssertionKind; 2]| matches!(part, Some(Ast::Assertion(found)) if kinds.contains(&found.kind));
    let start = is(parts.first(), [AssertionKind::StartLine, AssertionKind::StartText]);
    let parts = &parts[usize::from(start)..];
    let end = is(parts.last(), [AssertionKind::EndLine, AssertionKind::EndText]);
    let parts = &parts[..parts.len() - usize::from(end)];
    if !start {
        anything(out)?;
    }
    parts.iter().try_for_each(|part| write(part, out))?;
    if !end {
        anything(out)?;
    }
    Ok(())
}

fn anything(out: &mut String) -> Result<(), String> {
    class(&[('\0', char::MAX)], out)?;
    out.push('*');
    Ok(())
}

fn write(ast: &Ast, out: &mut String) -> Result<(), String> {
    match ast {
        Ast::Empty(_) => {}
        Ast::Literal(literal) => character(literal.c, out),
        // Any character but the end of a line.
        Ast::Dot(_) => class(&negated(vec![('\n', '\n'), ('\r', '\r')]), out)?,
        Ast::ClassPerl(found) => class(&perl(&found.kind, found.negated), out)?,
        Ast::ClassBracketed(found) => {
            let ranges = set(&found.kind)?;
            class(&if found.negated { negated(ranges) } else { ranges }, out)?;
        }
        Ast::Group(group) => {
            out.push('(');
            write(&group.ast, out)?;
            out.push(')');
        }
        Ast::Repetition(repetition) => {
            if matches!(*repetition.ast, Ast::Empty(_) | Ast::Repetition(_)) {
                return Err("a repetition of nothing or of a repetition".to_owned());
            }
            out.push('(');
            write(&repetition.ast, out)?;
            out.push(')');
            match &repetition.op.kind {
                RepetitionKind::ZeroOrOne => out.push('?'),
                RepetitionKind::ZeroOrMore => out.push('*'),
                RepetitionKind::OneOrMore => out.push('+'),
                RepetitionKind::Range(RepetitionRange::Exactly(count)) => *out += &format!("{{{count}}}"),
                RepetitionKind::Range(RepetitionRange::AtLeast(least)) => *out += &format!("{{{least},}}"),
                RepetitionKind::Range(RepetitionRange::Bounded(least, most)) => *out += &format!("{{{least},{most}}}"),
            }
        }
        Ast::Alternation(alternation) => {
            for (index, ast) in alternation.asts.iter().enumerate() {
                if index > 0 {
                    out.push('|');
                }
                write(ast, out)?;
            }
        }
        Ast::Concat(concat) => concat.asts.iter().try_for_each(|ast| write(ast, out))?,
        Ast::Assertion(_) => return Err("an anchor inside it".to_owned()),
        Ast::Flags(_) => return Err("flags".to_owned()),
        Ast::ClassUnicode(_) => return Err("a class by a Unicode property".to_owned()),
    }
    Ok(())
}

/// A character as it stands in a JSON text.
fn character(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\\\""),
        '\\' => out.push_str("\\\\\\\\"),
        '\n' => out.push_str("\\\\n"),
        '\r' => out.push_str("\\\\r"),
        '\t' => out.push_str("\\\\t"),
        '\0'..'\x20' => *out += &format!("\\\\u{:04x}", u32::from(c)),
        '^' | '$' | '.' | '[' | ']' | '(' | ')' | '|' | '{' | '}' | '*' | '+' | '?' => {
            out.push('\\');
            out.push(c);
        }
        _ => out.push(c),
    }
}

/// One of these characters, as it stands in a JSON text.
fn class(ranges: &[Range], out: &mut String) -> Result<(), String> {
    let within = |c: char| ranges.iter().any(|(first, last)| (*first..=*last).contains(&c));
    let escaped: Vec<char> = ['"', '\\', '\n', '\r', '\t']
        .into_iter()
        .filter(|c| within(*c))
        .collect();
    let mut plain = String::new();
    for (first, last) in ranges {
        // What JSON takes as it is.
        for (low, high) in [(' ', '!'), ('#', '['), (']', char::MAX)] {
            let (first, last) = ((*first).max(low), (*last).min(high));
            if first <= last {
                class_end(first, &mut plain);
                plain.push('-');
                class_end(last, &mut plain);
            }
        }
    }
    if plain.is_empty() && escaped.is_empty() {
        return Err("a class without characters that JSON takes".to_owned());
    }
    out.push('(');
    if !plain.is_empty() {
        *out += &format!("[{plain}]");
    }
    for (index, c) in escaped.into_iter().enumerate() {
        if index > 0 || !plain.is_empty() {
            out.push('|');
        }
        character(c, out);
    }
    out.push(')');
    Ok(())
}

fn class_end(c: char, out: &mut String) {
    if c.is_ascii_alphanumeric() {
        out.push(c);
    } else {
        *out += &format!("\\U{:08x}", u32::from(c));
    }
}

fn set(set: &ClassSet) -> Result<Vec<Range>, String> {
    match set {
        ClassSet::Item(item) => items(item),
        ClassSet::BinaryOp(_) => Err("an operation of classes".to_owned()),
    }
}

fn items(item: &ClassSetItem) -> Result<Vec<Range>, String> {
    let one = |literal: &Literal| (literal.c, literal.c);
    Ok(match item {
        ClassSetItem::Empty(_) => Vec::new(),
        ClassSetItem::Literal(literal) => vec![one(literal)],
        ClassSetItem::Range(range) => vec![(range.start.c, range.end.c)],
        ClassSetItem::Perl(found) => perl(&found.kind, found.negated),
        ClassSetItem::Bracketed(found) => {
            let ranges = set(&found.kind)?;
            if found.negated { negated(ranges) } else { ranges }
        }
        ClassSetItem::Union(union) => {
            let parts: Result<Vec<Vec<Range>>, String> = union.items.iter().map(items).collect();
            parts?.concat()
        }
        ClassSetItem::Ascii(_) | ClassSetItem::Unicode(_) => return Err("a class by name".to_owned()),
    })
}

/// As in ECMAScript, whose regular expressions JSON Schema means: only ASCII, but for the blanks.
fn perl(kind: &ClassPerlKind, negate: bool) -> Vec<Range> {
    let ranges = match kind {
        ClassPerlKind::Digit => vec![('0', '9')],
        ClassPerlKind::Word => vec![('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        ClassPerlKind::Space => vec![
            ('\t', '\r'),
            (' ', ' '),
            ('\u{a0}', '\u{a0}'),
            ('\u{1680}', '\u{1680}'),
            ('\u{2000}', '\u{200a}'),
            ('\u{2028}', '\u{2029}'),
            ('\u{202f}', '\u{202f}'),
            ('\u{205f}', '\u{205f}'),
            ('\u{3000}', '\u{3000}'),
            ('\u{feff}', '\u{feff}'),
        ],
    };
    if negate { negated(ranges) } else { ranges }
}

/// All other characters.
fn negated(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut out = Vec::new();
    let mut next = Some('\0');
    for (first, last) in ranges {
        let Some(start) = next else { break };
        if let Some(before) = before(first)
            && start <= before
        {
            out.push((start, before));
        }
        if last >= start {
            next = after(last);
        }
    }
    if let Some(start) = next {
        out.push((start, char::MAX));
    }
    out
}

fn before(c: char) -> Option<char> {
    ('\0'..c).next_back()
}

fn after(c: char) -> Option<char> {
    (c..=char::MAX).nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_rewritten() {
        for (pattern, expect) in [
            ("^a.c$", None),
            ("^[a-z]+$", Some("^(([a-z]))+$")),
            (r"^\d{3}-\d{4}$", Some("^(([0-9])){3}-(([0-9])){4}$")),
            (r"^(a|b)?\.x$", Some(r"^((a|b))?\.x$")),
            (r#"^"\\$"#, Some(r#"^\\"\\\\$"#)),
            ("^ab{2,}$", Some("^a(b){2,}$")),
            ("^a$|^b$", Some("^(a|b)$")),
            (r#"^["]$"#, Some(r#"^(\\")$"#)),
        ] {
            let rewritten = rewrite(pattern).unwrap();
            if let Some(expect) = expect {
                assert_eq!(rewritten, expect, "{pattern}");
            }
        }
        let any = rewrite("").unwrap();
        assert!(any.starts_with("^([") && any.ends_with(")*$"), "{any}");
        for pattern in [
            r"^(?=a)b$",
            r"^\bword$",
            "^a(b$)",
            r"^\p{L}$",
            "(",
            "^(?i)a$",
            "^a{2}{3}$",
        ] {
            assert!(rewrite(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn others_are_all_but_these() {
        assert_eq!(
            negated(vec![('b', 'd'), ('c', 'f'), ('\0', '`')]),
            [('a', 'a'), ('g', char::MAX)]
        );
        assert_eq!(negated(vec![('\0', char::MAX)]), []);
        assert_eq!(
            negated(vec![('\u{d7ff}', '\u{e000}')]),
            [('\0', '\u{d7fe}'), ('\u{e001}', char::MAX)]
        );
    }
}
