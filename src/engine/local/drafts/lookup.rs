//! Guesses from the text itself: what followed the last few tokens when they stood there before (prompt look-up, n-grams).
//!
//! It costs nothing, and is right where answers repeat their prompt: code that is changed, texts that are summed up.

use std::collections::HashMap;

use crate::engine::Token;

/// Tokens that must be the same.
const SAME: usize = 3;

/// Where each group of tokens stood last.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// The place behind a group of tokens, by these.
    behind: HashMap<[Token; SAME], usize>,
    /// Tokens of the text that were seen.
    seen: usize,
}

impl Lookup {
    /// Forgets everything: another text begins.
    pub(super) fn clear(&mut self) {
        self.behind.clear();
        self.seen = 0;
    }

    /// Adds up to `most` guesses for what follows a text in two parts, which continues that of the call before.
    pub(super) fn guess(&mut self, cached: &[Token], pending: &[Token], most: usize, guesses: &mut Vec<Token>) {
        let length = cached.len() + pending.len();
        let token = |place: usize| cached.get(place).or_else(|| pending.get(place - cached.len())).copied();
        let group = |end: usize| {
            let from = end.checked_sub(SAME)?;
            Some([token(from)?, token(from + 1)?, token(from + 2)?])
        };
        // The last group itself is not looked at: nothing follows it yet.
        for end in self.seen.max(SAME)..length {
            if let Some(group) = group(end) {
                self.behind.insert(group, end);
            }
        }
        self.seen = length;
        if let Some(place) = group(length).and_then(|last| self.behind.get(&last)) {
            guesses.extend((*place..length).map_while(token).take(most));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guess(lookup: &mut Lookup, text: &[Token], most: usize) -> Vec<Token> {
        let mut guesses = Vec::new();
        // In two parts, wherever these meet.
        let (cached, pending) = text.split_at(text.len() - text.len() / 3);
        lookup.guess(cached, pending, most, &mut guesses);
        guesses
    }

    #[test]
    fn what_came_last_time_comes_again() {
        let mut lookup = Lookup::default();
        let text = [1, 2, 3, 4, 5, 9, 1, 2, 3];
        assert_eq!(guess(&mut lookup, &text[..2], 2), [0; 0]);
        assert_eq!(guess(&mut lookup, &text[..8], 2), [0; 0]);
        assert_eq!(guess(&mut lookup, &text, 2), [4, 5]);
        assert_eq!(guess(&mut lookup, &text, 100), [4, 5, 9, 1, 2, 3]);
        lookup.clear();
        assert_eq!(guess(&mut lookup, &[1, 2, 3], 2), [0; 0]);
    }

    proptest! {
        /// Piece by piece the same as at once, and the latest place counts.
        #[test]
        fn the_latest_place(text in prop::collection::vec(0..3i32, 0..60), pieces in prop::collection::vec(0usize..60, 0..5)) {
            let mut lookup = Lookup::default();
            let mut pieces: Vec<usize> = pieces.into_iter().map(|piece| piece.min(text.len())).collect();
            pieces.sort_unstable();
            for piece in pieces {
                guess(&mut lookup, &text[..piece], 4);
            }
            let found = guess(&mut lookup, &text, 4);
            let expect = (SAME..text.len())
                .rev()
                .find(|end| text.len() >= SAME && text[end - SAME..*end] == text[text.len() - SAME..])
                .map_or(vec![], |end| text[end..text.len().min(end + 4)].to_vec());
            prop_assert_eq!(found, expect);
        }
    }
}
