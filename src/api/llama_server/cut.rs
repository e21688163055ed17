//! Where a text ends early: at a line that is not indented enough, or when time is up.

use std::time::Duration;

/// What a request says about early ends; the watch over one text.
#[derive(Debug, Clone, Default)]
pub(super) struct Cut {
    /// Least indentation of all lines but the first, in spaces and tabs.
    indent: usize,
    /// Time for decoding, which ends the text at the next line break.
    time: Option<Duration>,
    /// Spaces and tabs that the current line begins with; `None` once something else came, and in the first line.
    margin: Option<usize>,
}

impl Cut {
    pub(super) fn new(indent: usize, time: Option<Duration>) -> Self {
        Self {
            indent,
            time,
            ..Self::default()
        }
    }

    /// Whether it may cut anything.
    pub(super) fn is_active(&self) -> bool {
        self.indent > 0 || self.time.is_some()
    }

    /// Looks at more text, `decode` after the first token. Returns how many of its bytes belong to the answer, if it ends here.
    pub(super) fn check(&mut self, text: &str, decode: Duration) -> Option<usize> {
        for (at, character) in text.char_indices() {
            match (character, &mut self.margin) {
                ('\n', _) => self.margin = Some(0),
                (' ' | '\t', Some(margin)) => *margin += 1,
                (_, Some(margin)) if *margin < self.indent => return Some(at),
                (_, margin) => *margin = None,
            }
        }
        let late = self.time.is_some_and(|time| decode > time);
        (late && text.contains('\n')).then_some(text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_must_be_indented() {
        let run = |indent, pieces: &[&str]| {
            let mut cut = Cut::new(indent, None);
            let mut text = String::new();
            for piece in pieces {
                if let Some(end) = cut.check(piece, Duration::ZERO) {
                    return (text + &piece[..end], true);
                }
                text += piece;
            }
            (text, false)
        };
        assert_eq!(run(2, &["def\n", "  a\n b"]), ("def\n  a\n ".into(), true));
        assert_eq!(run(2, &["a\n", " ", " b", "\n   c"]), ("a\n  b\n   c".into(), false));
        // A line with nothing in it is no line yet.
        assert_eq!(run(1, &["a\n\n", "\n b"]), ("a\n\n\n b".into(), false));
        assert_eq!(run(0, &["a\nb"]), ("a\nb".into(), false));
        assert_eq!(run(4, &["no line break"]), ("no line break".into(), false));
    }

    #[test]
    fn time_ends_a_text_at_a_line_break() {
        let mut cut = Cut::new(0, Some(Duration::from_millis(10)));
        assert_eq!(cut.check("a\n", Duration::from_millis(9)), None);
        assert_eq!(cut.check("b", Duration::from_millis(11)), None);
        assert_eq!(cut.check("c\n", Duration::from_millis(12)), Some(2));
    }
}
