//! From the bytes of tokens to text that may be shown: whole characters only, nothing that could be a stop string.

use std::collections::VecDeque;

use crate::engine::Token;

/// Collects the bytes of one answer and decides what may leave.
///
/// Two things hold text back: a character whose last bytes have not come yet, and an ending that may grow into one
/// of the stop strings. Invalid bytes become U+FFFD.
#[derive(Debug)]
pub struct TextAssembler {
    stops: Vec<String>,
    /// Bytes of a character that is not complete; at most three.
    partial: Vec<u8>,
    /// Complete characters that may be the beginning of a stop string.
    held: String,
    /// Tokens whose text has not left, each with the number of bytes pushed when it was.
    tokens: VecDeque<(Token, usize)>,
    pushed: usize,
    /// The number of bytes pushed when the last token was whose text has left.
    left: usize,
}

/// Text that may be sent, with the tokens that it completes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Released {
    pub text: String,
    pub tokens: Vec<Token>,
    /// The stop string that ended the answer; nothing may be pushed after it.
    pub stop: Option<String>,
    /// Bytes of the last token that belong to the stop string.
    pub overhang: usize,
}

impl TextAssembler {
    /// `stops` must not contain empty strings.
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            partial: Vec::new(),
            held: String::new(),
            tokens: VecDeque::new(),
            pushed: 0,
            left: 0,
        }
    }

    /// Whether the text so far ends inside of a character.
    pub(super) fn is_within_character(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Adds the bytes of one token.
    pub fn push(&mut self, token: Token, piece: &[u8]) -> Released {
        self.pushed += piece.len();
        self.tokens.push_back((token, self.pushed));
        self.decode(piece);
        if let Some((at, stop)) = self.first_stop() {
            let stop = self.stops.swap_remove(stop);
            let end = self.pushed.saturating_sub(self.partial.len() + self.held.len()) + at;
            self.held.truncate(at);
            self.partial.clear();
            // Tokens that are nothing but the stop string are no part of the text.
            let mut begin = self.left;
            let text = std::mem::take(&mut self.held);
            let mut released = Released {
                text,
                stop: Some(stop),
                ..Released::default()
            };
            for (token, token_end) in self.tokens.drain(..) {
                if begin < end || (begin == token_end && begin <= end) {
                    released.tokens.push(token);
                    released.overhang = token_end.saturating_sub(end);
                }
                begin = token_end;
            }
            return released;
        }
        let keep = self.possible_stop();
        let rest = self.held.split_off(self.held.len() - keep);
        let text = std::mem::replace(&mut self.held, rest);
        let mut tokens = Vec::new();
        if !text.is_empty() {
            let gone = self.pushed.saturating_sub(self.partial.len() + self.held.len());
            let complete = self.tokens.partition_point(|(_, end)| *end <= gone);
            tokens.extend(self.tokens.drain(..complete).map(|(token, end)| {
                self.left = end;
                token
            }));
        }
        Released {
            text,
            tokens,
            ..Released::default()
        }
    }

    /// Releases what was held back, when no more tokens will come.
    pub fn finish(&mut self) -> Released {
        if !self.partial.is_empty() {
            self.partial.clear();
            self.held.push(char::REPLACEMENT_CHARACTER);
        }
        Released {
            text: std::mem::take(&mut self.held),
            tokens: self.tokens.drain(..).map(|(token, _)| token).collect(),
            ..Released::default()
        }
    }

    /// Moves all complete characters into `held`.
    fn decode(&mut self, piece: &[u8]) {
        let joined;
        let mut bytes = if self.partial.is_empty() {
            piece
        } else {
            self.partial.extend_from_slice(piece);
            joined = std::mem::take(&mut self.partial);
            &joined
        };
        loop {
            match std::str::from_utf8(bytes) {
                Ok(text) => {
                    self.held.push_str(text);
                    return;
                }
                Err(error) => {
                    let (valid, rest) = bytes.split_at(error.valid_up_to());
                    self.held.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        Some(invalid) => {
                            self.held.push(char::REPLACEMENT_CHARACTER);
                            bytes = &rest[invalid..];
                        }
                        None => {
                            self.partial.extend_from_slice(rest);
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Where the earliest stop string begins, and which it is; the longest one where several begin there.
    fn first_stop(&self) -> Option<(usize, usize)> {
        self.stops
            .iter()
            .enumerate()
            .filter_map(|(index, stop)| Some((self.held.find(stop.as_str())?, index)))
            .min_by_key(|(at, index)| (*at, std::cmp::Reverse(self.stops[*index].len())))
    }

    /// Length in bytes of the longest ending of `held` that is the beginning of a stop string.
    fn possible_stop(&self) -> usize {
        let held = self.held.as_bytes();
        self.stops
            .iter()
            .map(|stop| {
                let stop = stop.as_bytes();
                let longest = (stop.len() - 1).min(held.len());
                (1..=longest)
                    .rev()
                    .find(|length| held.ends_with(&stop[..*length]))
                    .unwrap_or(0)
            })
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&[u8]]) -> (String, Option<String>) {
        let mut assembler = TextAssembler::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut text = String::new();
        for (token, piece) in (0..).zip(pieces) {
            let released = assembler.push(token, piece);
            text += &released.text;
            if released.stop.is_some() {
                return (text, released.stop);
            }
        }
        text += &assembler.finish().text;
        (text, None)
    }

    /// Every way to cut the bytes in two or three gives the same result.
    fn check(stops: &[&str], bytes: &[u8], expect: (&str, Option<&str>)) {
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let (text, stop) = run(stops, &[&bytes[..first], &bytes[first..second], &bytes[second..]]);
                assert_eq!((text.as_str(), stop.as_deref()), expect, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn characters_are_never_split() {
        check(&[], "naïve 🦙 日本".as_bytes(), ("naïve 🦙 日本", None));
        check(&[], b"a\xFFb", ("a\u{FFFD}b", None));
        check(&[], b"end \xF0\x9F", ("end \u{FFFD}", None));
    }

    #[test]
    fn stops_work_across_token_borders() {
        check(&["</s>"], b"one</s>two", ("one", Some("</s>")));
        check(&["</s>"], b"one</x>two", ("one</x>two", None));
        check(&["é!", "!!"], "caf\u{e9}!!".as_bytes(), ("caf", Some("é!")));
        check(&["aab"], b"aaab", ("a", Some("aab")));
        check(&["stop"], b"sto", ("sto", None));
    }

    #[test]
    fn the_same_text_comes_whatever_the_order_of_equal_starts() {
        check(&["END"], b"x EN END", ("x EN ", Some("END")));
    }

    #[test]
    fn tokens_leave_with_the_text_they_complete() {
        let mut assembler = TextAssembler::new(vec!["stop".into()]);
        assert_eq!(assembler.push(1, "é".as_bytes()[..1].as_ref()).tokens, [] as [Token; 0]);
        assert_eq!(assembler.push(2, &"é".as_bytes()[1..]).tokens, [1, 2]);
        assert_eq!(assembler.push(3, b"st").tokens, [] as [Token; 0]);
        let released = assembler.push(4, b"ay");
        assert_eq!((released.text.as_str(), released.tokens), ("stay", vec![3, 4]));
    }

    #[test]
    fn tokens_of_a_stop_string_do_not_leave() {
        let mut assembler = TextAssembler::new(vec!["<end>".into()]);
        assert_eq!(assembler.push(1, b"a").tokens, [1]);
        assembler.push(2, b"b<e");
        assembler.push(3, b"n");
        let released = assembler.push(4, b"d> more");
        assert_eq!((released.tokens, released.overhang), (vec![2], 2));
        // All of it in one token.
        let mut assembler = TextAssembler::new(vec!["<end>".into()]);
        assembler.push(1, b"<");
        let released = assembler.push(2, b"end>");
        assert_eq!((released.text.as_str(), released.tokens), ("", vec![]));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_without_stops(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..40)) {
            let all: Vec<u8> = pieces.concat();
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let (text, stop) = run(&[], &pieces);
            prop_assert_eq!(stop, None);
            prop_assert_eq!(text, String::from_utf8_lossy(&all));
        }

        #[test]
        fn an_answer_never_contains_a_stop(text in "[ab ]{0,40}", cuts in prop::collection::vec(0usize..41, 0..10)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.push(0);
            cuts.push(text.len());
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            let (out, stop) = run(&["ab a", "bb"], &pieces);
            prop_assert!(!out.contains("ab a") && !out.contains("bb"));
            prop_assert_eq!(stop.is_some(), text.contains("ab a") || text.contains("bb"));
            prop_assert!(text.starts_with(&out));
        }
    }
}
