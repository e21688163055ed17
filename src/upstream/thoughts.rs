//! Thoughts that a server leaves in the content, between `<think>` tags at its beginning.

use crate::config::UpstreamReasoning;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// A piece of what came as content.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Reasoning(String),
    Content(String),
}

/// Tells thoughts from content while both come in pieces.
#[derive(Debug)]
pub(super) struct Thoughts {
    place: Place,
    /// What may be the beginning of a tag, or blanks that a tag would swallow.
    held: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing has come yet. `within`: without a tag it is a thought.
    Start {
        within: bool,
    },
    /// Blanks at the beginning of a thought are left out.
    Opened,
    Inside,
    /// Blanks after a thought are left out.
    Behind,
    Content,
}

impl Thoughts {
    pub(super) fn new(reasoning: UpstreamReasoning) -> Self {
        Self {
            place: match reasoning {
                UpstreamReasoning::Auto => Place::Start { within: false },
                UpstreamReasoning::Open => Place::Start { within: true },
                UpstreamReasoning::Fields => Place::Content,
            },
            held: String::new(),
        }
    }

    /// Thoughts come apart: what is in the content is content.
    pub(super) fn come_apart(&mut self) {
        if matches!(self.place, Place::Start { .. }) {
            self.place = Place::Content;
        }
    }

    pub(super) fn put(&mut self, text: &str) -> Vec<Part> {
        let mut parts = Vec::new();
        self.held.push_str(text);
        while self.step(&mut parts) {}
        parts
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) -> Vec<Part> {
        let held = std::mem::take(&mut self.held);
        let part = match self.place {
            Place::Start { within: true } | Place::Inside => Part::Reasoning(held.trim_end().to_owned()),
            Place::Opened | Place::Behind => return Vec::new(),
            Place::Start { .. } | Place::Content => Part::Content(held),
        };
        match &part {
            Part::Reasoning(text) | Part::Content(text) if text.is_empty() => Vec::new(),
            _ => vec![part],
        }
    }

    /// Whether there may be more to do with what is held.
    fn step(&mut self, parts: &mut Vec<Part>) -> bool {
        match self.place {
            Place::Start { within } => {
                let begun = self.held.trim_start();
                if let Some(rest) = begun.strip_prefix(OPEN) {
                    self.held = rest.to_owned();
                } else if OPEN.starts_with(begun) {
                    return false;
                } else if !within {
                    self.place = Place::Content;
                    return true;
                }
                self.place = Place::Opened;
                true
            }
            Place::Opened | Place::Behind => {
                let begun = self.held.trim_start();
                if begun.is_empty() {
                    self.held.clear();
                    return false;
                }
                self.held = begun.to_owned();
                self.place = match self.place {
                    Place::Opened => Place::Inside,
                    _ => Place::Content,
                };
                true
            }
            Place::Inside => {
                if let Some(end) = self.held.find(CLOSE) {
                    push(parts, Part::Reasoning(self.held[..end].trim_end().to_owned()));
                    self.held.drain(..end + CLOSE.len());
                    self.place = Place::Behind;
                    return true;
                }
                let sure = sure(&self.held);
                let thought: String = self.held.drain(..sure).collect();
                push(parts, Part::Reasoning(thought));
                false
            }
            Place::Content => {
                push(parts, Part::Content(std::mem::take(&mut self.held)));
                false
            }
        }
    }
}

fn push(parts: &mut Vec<Part>, part: Part) {
    match &part {
        Part::Reasoning(text) | Part::Content(text) if text.is_empty() => {}
        _ => parts.push(part),
    }
}

/// Bytes of a thought before blanks and the beginning of a tag at its end.
fn sure(thought: &str) -> usize {
    let tag = (1..CLOSE.len())
        .rev()
        .find(|length| thought.ends_with(&CLOSE[..*length]));
    thought[..thought.len() - tag.unwrap_or(0)].trim_end().len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(reasoning: UpstreamReasoning, pieces: &[&str]) -> (String, String) {
        let mut thoughts = Thoughts::new(reasoning);
        let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| thoughts.put(piece)).collect();
        parts.extend(thoughts.finish());
        let (mut thought, mut content) = (String::new(), String::new());
        for part in parts {
            match part {
                Part::Reasoning(text) => {
                    assert!(content.is_empty(), "a thought after content");
                    thought += &text;
                }
                Part::Content(text) => content += &text,
            }
        }
        (thought, content)
    }

    #[test]
    fn thoughts_are_told_from_content() {
        use UpstreamReasoning::{Auto, Fields, Open};
        for (reasoning, text, thought, content) in [
            (Auto, "<think>\nso what\n</think>\n\nyes", "so what", "yes"),
            (Auto, "\n<think>a < b</thin></think>c", "a < b</thin>", "c"),
            (Auto, "<think></think>yes", "", "yes"),
            (Auto, " yes <think>no</think>", "", " yes <think>no</think>"),
            (Auto, "<thinking>", "", "<thinking>"),
            (Auto, "<thin", "", "<thin"),
            (Auto, "<think>cut off", "cut off", ""),
            (Open, "so what\n</think>\nyes", "so what", "yes"),
            (Open, "<think>so what</think>yes", "so what", "yes"),
            (Fields, "<think>x</think>", "", "<think>x</think>"),
        ] {
            assert_eq!(read(reasoning, &[text]), (thought.into(), content.into()), "{text:?}");
        }
    }

    proptest! {
        /// However a text is cut into pieces, the same comes out of it, and content is never lost.
        #[test]
        fn pieces_make_no_difference(
            words in proptest::collection::vec("<think>|</think>|<|/|think|>| |\n|é|word", 0..12),
            cuts in proptest::collection::vec(0_usize..64, 0..8),
            open: bool,
        ) {
            let text = words.concat();
            let reasoning = if open { UpstreamReasoning::Open } else { UpstreamReasoning::Auto };
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(reasoning, &pieces), read(reasoning, &[&text]));
        }
    }
}
