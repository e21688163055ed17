//! How deep the brackets of a text are nested.

/// Deeper nesting is no honest answer.
const MAX_DEPTH: u32 = 200;
/// Opening brackets in all. The parser recurses once per open bracket at most, and twice as many fit its stack, see the test
/// `brackets_fit_the_stack` of `llama::chat`.
const MAX_BRACKETS: u32 = 20_000;

/// Counts brackets outside of strings while a text grows.
///
/// Where JSON begins in a text is not known, so a quotation mark may open a string or close one. Two readings are counted
/// side by side, one the opposite of the other: one of them is that of any JSON that the text contains.
#[derive(Debug)]
pub(super) struct Brackets {
    readings: [Reading; 2],
    opened: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Brackets {
    pub(super) fn new() -> Self {
        let opposite = Reading {
            in_string: true,
            ..Reading::default()
        };
        Self {
            readings: [Reading::default(), opposite],
            opened: 0,
        }
    }

    /// Takes more of the text; returns whether it is still harmless.
    pub(super) fn push(&mut self, text: &str) -> bool {
        for byte in text.bytes() {
            if matches!(byte, b'[' | b'{') {
                self.opened += 1;
            }
            for reading in &mut self.readings {
                reading.take(byte);
            }
            let [first, second] = &mut self.readings;
            if first.in_string == second.in_string {
                // An escape was none in the other reading. The deeper of the two stays possible for both.
                let depth = first.depth.max(second.depth);
                first.depth = depth;
                *second = Reading {
                    depth,
                    in_string: !first.in_string,
                    escaped: false,
                };
            }
            if self.opened > MAX_BRACKETS || self.readings.iter().any(|reading| reading.depth > MAX_DEPTH) {
                return false;
            }
        }
        true
    }
}

impl Reading {
    fn take(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmless(text: &str) -> bool {
        Brackets::new().push(text)
    }

    #[test]
    fn deep_nesting_is_found_wherever_the_strings_are() {
        let deep = "[".repeat(300);
        for before in ["", "\"", "say \"hi\" ", "\\\"", "\"\\\"", "a \\ \" \\\" b", "\"]\" \\"] {
            assert!(!harmless(&format!("{before}{deep}")), "{before}");
            assert!(
                !harmless(&format!("{before}{{\"a\": \"]]]]\", \"b\": {deep}")),
                "{before}"
            );
            // Closing brackets within strings close nothing.
            let hidden = "[\"]\",".repeat(300);
            assert!(!harmless(&format!("{before}{hidden}")), "{before}");
        }
        assert!(!harmless(&"{\"a\":".repeat(60_000)));
    }

    #[test]
    fn ordinary_texts_are_harmless() {
        assert!(harmless(
            &"fn main() { let a = [1, 2]; println!(\"{a:?}\"); }\n".repeat(2000)
        ));
        assert!(harmless(&"[".repeat(150)));
        assert!(!harmless(&"[]".repeat(20_001)));
    }
}
