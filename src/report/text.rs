//! Escaping and formatting of text and numbers.

/// Escapes text for XML and HTML, in elements and attributes. Characters that XML forbids become U+FFFD.
pub(super) fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other if other.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// Escapes text for one line of Markdown, table cells included. Underscores stay: inside names they mean nothing.
pub(super) fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|' => {
                out.push('\\');
                out.push(character);
            }
            other if other.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out
}

/// A coordinate to a tenth of a pixel, which keeps files small.
pub(super) fn coordinate(value: f64) -> String {
    let text = format!("{value:.1}");
    match text.strip_suffix(".0") {
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

/// A value with about three significant digits.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1e6 {
        return format!("{}M", number(value / 1e6));
    }
    if size > 0.0 && size < 1e-3 {
        return format!("{value:.1e}");
    }
    let digits = match size {
        _ if size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ if size >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Estimated width of a text in the charts' font, in pixels.
pub(super) fn width(text: &str) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "labels are short")]
    let characters = text.chars().count() as f64;
    characters * 6.6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_escapes() {
        assert_eq!(
            xml("<a b='c' d=\"e\">&\u{1}"),
            "&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;\u{fffd}"
        );
        assert_eq!(markdown("a|b\n<c> q4_k"), "a\\|b \\<c\\> q4_k");
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.05, "0.05"),
            (0.187_4, "0.187"),
            (0.000_05, "5.0e-5"),
            (1.5, "1.5"),
            (12.34, "12.3"),
            (100.0, "100"),
            (8192.0, "8192"),
            (2_500_000.0, "2.5M"),
            (-40.0, "-40"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(coordinate(10.0), "10");
        assert_eq!(coordinate(0.26), "0.3");
    }
}
