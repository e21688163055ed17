//! Cuts in runs of characters of one kind that are too long for llama.cpp.
//!
//! llama.cpp splits text for most byte-level vocabularies with `std::regex`, which recurses once per character of a match:
//! ten thousand spaces or letters in a row overflow the stack and end the process (`unicode_regex_split_stl` in
//! `src/unicode.cpp`; Mistral-Nemo and gpt-oss take that way). No match is longer than a run of characters of one kind,
//! so long runs are cut before llama.cpp sees them.

/// Characters between two changes from or to white space; four times as many are still well inside a thread's stack.
const LONGEST_RUN: usize = 512;

/// Where to cut so that no run is too long, preferably where a word ends: there the tokenizer cuts, too. Never inside a
/// special text. A text that only grows at its end keeps its cuts but the last.
pub(super) fn cuts(text: &str, special: impl Fn() -> Vec<String>) -> Vec<usize> {
    let mut cuts = Vec::new();
    let mut specials = None;
    // Of the run that is being read: characters since its start or the last cut, and the ends of words in it.
    let mut length = 0;
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Option<char> = None;
    for (at, character) in text.char_indices() {
        match before {
            Some(other) if other.is_whitespace() != character.is_whitespace() => {
                length = 0;
                ends.clear();
            }
            Some(other) if other.is_alphanumeric() && !character.is_alphanumeric() => ends.push(at),
            _ => {}
        }
        before = Some(character);
        if length >= LONGEST_RUN {
            let specials = specials.get_or_insert_with(&special);
            let free = |at: &usize| !inside_special(text, *at, specials);
            let cut = ends.iter().rev().copied().find(free);
            let cut = cut.or_else(|| boundaries_before(text, at).take(LONGEST_RUN / 2).find(free));
            let cut = cut.unwrap_or(at);
            cuts.push(cut);
            ends.retain(|end| *end > cut);
            length = text[cut..at].chars().count();
        }
        length += 1;
    }
    cuts
}

/// The borders of characters at and before a place, backwards.
fn boundaries_before(text: &str, at: usize) -> impl Iterator<Item = usize> {
    std::iter::once(at).chain(text[..at].char_indices().rev().map(|(at, _)| at))
}

fn inside_special(text: &str, at: usize, specials: &[String]) -> bool {
    let bytes = text.as_bytes();
    specials.iter().any(|special| {
        let first = at.saturating_sub(special.len() - 1);
        (first..at).any(|start| bytes[start..].starts_with(special.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        let mut start = 0;
        let ends = cuts(text, || vec!["[INST]".to_owned(), "</s>".to_owned()]);
        ends.into_iter()
            .chain([text.len()])
            .map(|end| {
                let piece = &text[start..end];
                start = end;
                piece
            })
            .collect()
    }

    #[test]
    fn ordinary_text_is_whole() {
        let text = "An ordinary text, with words. ".repeat(1000);
        assert_eq!(pieces(&text), [text.as_str()]);
        assert_eq!(pieces(""), [""]);
    }

    #[test]
    fn runs_of_one_kind_are_cut() {
        for unit in ["a", " ", "!", "中", "\n", "7"] {
            let text = unit.repeat(5000);
            let pieces = pieces(&text);
            assert!(
                pieces.len() >= 9 && pieces.concat() == text,
                "{unit:?} {}",
                pieces.len()
            );
        }
    }

    #[test]
    fn words_stay_whole() {
        let sentence = "今天天气很好，我们去公园散步。";
        for piece in pieces(&sentence.repeat(200)) {
            assert!(piece.starts_with(['，', '。', '今']), "{piece}");
        }
    }

    #[test]
    fn special_texts_stay_whole() {
        let text = "[INST]</s>".repeat(500);
        let pieces = pieces(&text);
        assert!(pieces.len() > 5);
        for piece in pieces {
            assert!(piece.starts_with(['[', '<']) && piece.ends_with([']', '>']), "{piece}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_run_is_long(words in prop::collection::vec(("[a-z!\u{4e2d}\\[\\]]{0,300}", " {0,2}", "[ \t]{0,700}"), 0..12)) {
            let text: String = words.iter().map(|(word, space, spaces)| format!("{word}{space}{word}{spaces}")).collect();
            let pieces = pieces(&text);
            prop_assert_eq!(pieces.concat(), text.as_str());
            for piece in pieces {
                let longest = piece
                    .split(|c: char| c.is_whitespace())
                    .chain(piece.split(|c: char| !c.is_whitespace()))
                    .map(|run| run.chars().count())
                    .max();
                prop_assert!(longest <= Some(LONGEST_RUN));
            }
        }
    }
}
