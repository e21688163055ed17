//! JSON as Python's `json.dumps` writes it, which is what chat templates were written and models were trained with.

use std::fmt::Write;

use serde_json::Value;

/// The arguments of `tojson` in a template.
#[derive(Debug, Clone)]
pub(super) struct Style {
    pub(super) ensure_ascii: bool,
    /// Spaces per level; `None` puts all on one line.
    pub(super) indent: Option<usize>,
    /// Between items and between key and value; `None` are Python's defaults.
    pub(super) separators: Option<(String, String)>,
    pub(super) sort_keys: bool,
}

impl Default for Style {
    /// As Hugging Face's templates call it: readable text stays as it is.
    fn default() -> Self {
        Self {
            ensure_ascii: false,
            indent: None,
            separators: None,
            sort_keys: false,
        }
    }
}

/// Writes a value. Nothing is escaped for HTML: that corrupts tool prompts.
pub(super) fn dumps(value: &Value, style: &Style) -> String {
    let item = if style.indent.is_some() { "," } else { ", " };
    let (item, key) = match &style.separators {
        Some((item, key)) => (item.as_str(), key.as_str()),
        None => (item, ": "),
    };
    let mut writer = Writer {
        out: String::new(),
        style,
        item,
        key,
    };
    writer.value(value, 0);
    writer.out
}

struct Writer<'a> {
    out: String,
    style: &'a Style,
    item: &'a str,
    key: &'a str,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) {
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Bool(true) => self.out.push_str("true"),
            Value::Bool(false) => self.out.push_str("false"),
            Value::Number(number) => self.number(number),
            Value::String(text) => self.string(text),
            Value::Array(items) => {
                self.group('[', ']', items.len(), depth, |writer, index| {
                    writer.value(&items[index], depth + 1);
                });
            }
            Value::Object(map) => {
                let mut entries: Vec<(&String, &Value)> = map.iter().collect();
                if self.style.sort_keys {
                    entries.sort_by_key(|(name, _)| *name);
                }
                self.group('{', '}', entries.len(), depth, |writer, index| {
                    let (name, value) = entries[index];
                    writer.string(name);
                    let key = writer.key;
                    writer.out.push_str(key);
                    writer.value(value, depth + 1);
                });
            }
        }
    }

    fn group(&mut self, open: char, close: char, count: usize, depth: usize, mut write: impl FnMut(&mut Self, usize)) {
        self.out.push(open);
        for index in 0..count {
            if index > 0 {
                self.out.push_str(self.item);
            }
            self.line(depth + 1);
            write(self, index);
        }
        if count > 0 {
            self.line(depth);
        }
        self.out.push(close);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.style.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn number(&mut self, number: &serde_json::Number) {
        match number.as_f64() {
            Some(float) if number.is_f64() => self.float(float),
            _ => {
                let _ = write!(self.out, "{number}");
            }
        }
    }

    /// The shortest digits that read back as the same number, as in Rust; but Python takes an exponent below 1e-4 and
    /// from 1e16 on, writes it with a sign and at least two digits, and marks a whole number with `.0`.
    fn float(&mut self, float: f64) {
        let scientific = format!("{float:e}");
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let _ = if (-4..16).contains(&exponent) {
            // `{:?}` writes `.0`, and no exponent in this range.
            write!(self.out, "{float:?}")
        } else {
            let sign = if exponent < 0 { '-' } else { '+' };
            write!(self.out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs())
        };
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if u32::from(c) < 0x20 || (self.style.ensure_ascii && !c.is_ascii()) => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(value: &Value, style: &Style, expect: &str) {
        assert_eq!(dumps(value, style), expect);
    }

    /// Each expectation is what CPython 3.11 prints.
    #[test]
    fn writes_what_python_writes() {
        let plain = Style::default();
        check(
            &json!({"b": [1, 2.5, true, null], "a": "<x> & 'y'"}),
            &plain,
            r#"{"b": [1, 2.5, true, null], "a": "<x> & 'y'"}"#,
        );
        check(
            &json!("ü \"q\" \\ \n \u{1} 🦙"),
            &plain,
            "\"ü \\\"q\\\" \\\\ \\n \\u0001 🦙\"",
        );
        check(
            &json!([
                1e16,
                1e-7,
                100.0,
                1e-5,
                1.25e-5,
                1e-4,
                0.1,
                -0.0,
                1.5e300,
                123456789012345.6,
                1e15
            ]),
            &plain,
            "[1e+16, 1e-07, 100.0, 1e-05, 1.25e-05, 0.0001, 0.1, -0.0, 1.5e+300, 123456789012345.6, 1000000000000000.0]",
        );
        check(&json!([{}, []]), &plain, "[{}, []]");
        let ascii = Style {
            ensure_ascii: true,
            ..Style::default()
        };
        check(&json!("ü🦙"), &ascii, r#""\u00fc\ud83e\udd99""#);
        let indented = Style {
            indent: Some(2),
            ..Style::default()
        };
        check(
            &json!({"a": [1], "b": {}}),
            &indented,
            "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}",
        );
        let tight = Style {
            separators: Some((",".into(), ":".into())),
            sort_keys: true,
            ..Style::default()
        };
        check(&json!({"b": 1, "a": [1, 2]}), &tight, r#"{"a":[1,2],"b":1}"#);
    }
}
