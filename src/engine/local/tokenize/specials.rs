//! Where a prompt may be cut so that its pieces have the tokens that they have within it.
//!
//! llama.cpp first finds the special tokens, the longest first, and then tokenizes each text between two of them by itself
//! (`tokenizer_st_partition` in `src/llama-vocab.cpp`). So a prompt may be cut before a special token that is sure to be found:
//! where no other one begins within it, and none that began earlier reaches into it.

use aho_corasick::AhoCorasick;

/// A token that is found by its text.
#[derive(Debug, Clone)]
pub(super) struct Special {
    pub(super) text: String,
    /// Pieces may begin with it: it is none that takes the white space before it.
    pub(super) begins_piece: bool,
}

#[derive(Debug)]
pub(super) struct Specials {
    texts: AhoCorasick,
    begin_pieces: Vec<bool>,
}

impl Specials {
    /// `None` if there are too many.
    pub(super) fn new(specials: impl Iterator<Item = Special>) -> Option<Self> {
        let specials: Vec<Special> = specials.filter(|special| !special.text.is_empty()).collect();
        Some(Self {
            texts: AhoCorasick::new(specials.iter().map(|special| &special.text)).ok()?,
            begin_pieces: specials.iter().map(|special| special.begins_piece).collect(),
        })
    }

    /// The places, ascending, and none at the beginning.
    pub(super) fn cuts(&self, text: &str) -> Vec<usize> {
        let mut found: Vec<(usize, usize, bool)> = self
            .texts
            .find_overlapping_iter(text)
            .map(|found| (found.start(), found.end(), self.begin_pieces[found.pattern()]))
            .collect();
        found.sort_unstable();
        // Special tokens that overlap are one heap; only one in which all begin together tells where it begins.
        let heaps = found.chunk_by({
            let mut reach = 0;
            move |before, next| {
                reach = reach.max(before.1);
                next.0 < reach
            }
        });
        heaps
            .filter(|heap| {
                heap.iter()
                    .all(|(start, _, begins_piece)| *start == heap[0].0 && *begins_piece)
            })
            .map(|heap| heap[0].0)
            .filter(|start| *start > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn special(text: &str) -> Special {
        Special {
            text: text.to_owned(),
            begins_piece: !text.starts_with('L'),
        }
    }

    /// What llama.cpp makes of a text before it tokenizes what is between special tokens: these, and the texts between them.
    fn partition(text: &str, specials: &[Special]) -> Vec<(bool, String)> {
        let mut ordered = specials.to_vec();
        ordered.sort_by_key(|special| std::cmp::Reverse(special.text.len()));
        let mut parts = vec![(false, text.to_owned())];
        for Special { text, begins_piece } in ordered {
            let mut next = Vec::new();
            for (is_special, part) in parts {
                if is_special {
                    next.push((true, part));
                    continue;
                }
                let mut rest = part.as_str();
                while let Some(at) = rest.find(&text) {
                    let left = &rest[..at];
                    next.push((false, if begins_piece { left } else { left.trim_end() }.to_owned()));
                    next.push((true, text.clone()));
                    rest = &rest[at + text.len()..];
                }
                next.push((false, rest.to_owned()));
            }
            next.retain(|(_, part)| !part.is_empty());
            parts = next;
        }
        parts
    }

    fn pieces<'t>(text: &'t str, specials: &[Special]) -> Vec<&'t str> {
        let mut start = 0;
        let cuts = Specials::new(specials.iter().cloned()).unwrap().cuts(text);
        let ends = cuts.into_iter().chain([text.len()]);
        ends.map(|end| &text[std::mem::replace(&mut start, end)..end]).collect()
    }

    #[test]
    fn prompts_are_cut_before_their_messages() {
        let specials = ["<|s|>", "<|e|>", "<|e|>\n", "<t>", "</t>"].map(special);
        let text = "<|s|>user\nhi<|e|>\n<|s|>bot\n<t>hm</t>yes<|e|>\n";
        assert_eq!(
            pieces(text, &specials),
            ["<|s|>user\nhi", "<|e|>\n", "<|s|>bot\n", "<t>hm", "</t>yes", "<|e|>\n"]
        );
        let none = "no token <| at all |>";
        assert_eq!(pieces(none, &specials), [none]);
    }

    proptest! {
        /// Texts that overlap in all ways, one of which takes the white space before it.
        #[test]
        fn pieces_are_partitioned_as_the_whole(
            texts in prop::collection::btree_set("[ab<>]{1,4}|L[ab]{1,2}", 1..8),
            text in "([ab<>L ]|<a>|ab<|La){0,40}",
        ) {
            let specials: Vec<Special> = texts.iter().map(|text| special(text)).collect();
            let pieces = pieces(&text, &specials);
            let parts: Vec<(bool, String)> = pieces.into_iter().flat_map(|piece| partition(piece, &specials)).collect();
            prop_assert_eq!(parts, partition(&text, &specials));
        }
    }
}
