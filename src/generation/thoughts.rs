//! A client's own grammar says what the answer is; the model may think before it.

use std::collections::BTreeSet;
use std::fmt::Write;

/// How a model's thoughts look, and whether the prompt has begun them.
pub(super) struct Thoughts<'t> {
    pub(super) start: &'t str,
    pub(super) end: &'t str,
    pub(super) open: bool,
}

impl<'t> Thoughts<'t> {
    /// Those that may come in an answer to a prompt that ends with `generation_prompt`; `None` if none may.
    pub(super) fn of(start: &'t str, end: &'t str, generation_prompt: &str) -> Option<Self> {
        if start.is_empty() || end.is_empty() {
            return None;
        }
        let (opened, closed) = (generation_prompt.rfind(start), generation_prompt.rfind(end));
        // Thoughts that the prompt has ended are over.
        (closed.is_none() || opened > closed).then_some(Self {
            start,
            end,
            open: opened.is_some(),
        })
    }

    /// The grammar with thoughts before it; if they are not open, they may be missing. Its lines stay where they are.
    pub(super) fn before(&self, grammar: &str) -> String {
        let mut out = String::with_capacity(grammar.len() + 1024);
        rename_root(grammar, &mut out);
        if out == grammar {
            return out;
        }
        out.push_str("\nroot ::= ");
        if self.open {
            out.push_str("thoughts-0");
        } else {
            out.push('(');
            literal(self.start, &mut out);
            out.push_str(" thoughts-0)?");
        }
        out.push_str(" [ \\n]{0,2} root-of-answer\n");
        until(self.end, &mut out);
        out
    }
}

/// Rules for a text that ends with `end`, and has it nowhere before: rule `thoughts-N` has seen N of its characters.
fn until(end: &str, out: &mut String) {
    let end: Vec<char> = end.chars().collect();
    let letters: BTreeSet<char> = end.iter().copied().collect();
    for seen in 0..end.len() {
        let _ = write!(out, "thoughts-{seen} ::= [^");
        for letter in &letters {
            escaped(*letter, out);
        }
        out.push_str("] thoughts-0");
        for letter in &letters {
            out.push_str(" | ");
            literal(letter.encode_utf8(&mut [0; 4]), out);
            let mut text = end[..seen].to_vec();
            text.push(*letter);
            let next = (0..=text.len()).rev().find(|length| text.ends_with(&end[..*length]));
            match next {
                Some(next) if next == end.len() => {}
                next => {
                    let _ = write!(out, " thoughts-{}", next.unwrap_or(0));
                }
            }
        }
        out.push('\n');
    }
}

fn literal(text: &str, out: &mut String) {
    out.push('"');
    text.chars().for_each(|c| escaped(c, out));
    out.push('"');
}

fn escaped(c: char, out: &mut String) {
    let _ = write!(out, "\\U{:08X}", u32::from(c));
}

/// Copies a grammar; its rule `root` gets another name.
fn rename_root(grammar: &str, out: &mut String) {
    let mut rest = grammar;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => closed(rest, '"'),
            '[' => closed(rest, ']'),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '<' => rest.find('>').map_or(rest.len(), |end| end + 1),
            _ => {
                let word = rest
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '-')
                    .unwrap_or(rest.len());
                if &rest[..word] == "root" {
                    out.push_str("root-of-answer");
                    rest = &rest[word..];
                    continue;
                }
                word.max(first.len_utf8())
            }
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
}

/// The length of what ends at `last`, both ends included; a backslash takes the next character with it.
fn closed(text: &str, last: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == last && !escaped {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(grammar: &str) -> String {
        let mut out = String::new();
        rename_root(grammar, &mut out);
        out
    }

    #[test]
    fn only_the_rule_is_renamed() {
        for (grammar, expect) in [
            ("root ::= \"a\" root?", "root-of-answer ::= \"a\" root-of-answer?"),
            ("root-2 ::= x\nroot::=root-2", "root-2 ::= x\nroot-of-answer::=root-2"),
            (
                r#"root ::= "root \" root" [root\] ] # root"#,
                r#"root-of-answer ::= "root \" root" [root\] ] # root"#,
            ),
            ("root ::= <root> (root)", "root-of-answer ::= <root> (root-of-answer)"),
            ("root ::= \"é\" [^é] é", "root-of-answer ::= \"é\" [^é] é"),
            ("root ::= \"open", "root-of-answer ::= \"open"),
        ] {
            assert_eq!(renamed(grammar), expect);
        }
    }

    #[test]
    fn thoughts_end_where_they_end_first() {
        let mut rules = String::new();
        until("aab", &mut rules);
        let expect = "thoughts-0 ::= [^\\U00000061\\U00000062] thoughts-0 | \"\\U00000061\" thoughts-1 | \"\\U00000062\" thoughts-0\n\
            thoughts-1 ::= [^\\U00000061\\U00000062] thoughts-0 | \"\\U00000061\" thoughts-2 | \"\\U00000062\" thoughts-0\n\
            thoughts-2 ::= [^\\U00000061\\U00000062] thoughts-0 | \"\\U00000061\" thoughts-2 | \"\\U00000062\"\n";
        assert_eq!(rules, expect);
    }

    #[test]
    fn thoughts_come_before_an_answer() {
        let with = |prompt| Thoughts::of("<", ">", prompt).map(|thoughts| thoughts.before("root ::= \"x\""));
        let open = with("assistant<").unwrap();
        assert!(
            open.starts_with("root-of-answer ::= \"x\"\nroot ::= thoughts-0 [ \\n]{0,2} root-of-answer\n"),
            "{open}"
        );
        let maybe = with("assistant").unwrap();
        assert!(maybe.contains("\nroot ::= (\"\\U0000003C\" thoughts-0)? "), "{maybe}");
        assert_eq!(with("assistant<>"), None);
        assert!(Thoughts::of("", ">", "").is_none());
        let rootless = Thoughts::of("<", ">", "").unwrap().before("a ::= \"x\"");
        assert_eq!(rootless, "a ::= \"x\"");
    }
}
