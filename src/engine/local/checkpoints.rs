//! Saved states of sequences, from which prompts go on.
//!
//! A recurrent state cannot be cut back: without this, a prompt that shares only its beginning with what a slot holds is
//! computed anew. So the state is saved where prompts are likely to part: before the first message of the user (behind the
//! system prompt and tools), before the newest one, before the answer or where it begins, and now and then within long
//! messages, where a pass ends: the tools may be others, or the end of a document. Only what cannot be cut is saved; the
//! attention part stays in the slot. What a slot holds is saved as a whole before another conversation takes its place.
//!
//! llama-server has context checkpoints and a prompt cache for the same purposes.

use std::sync::Arc;

use llama_cpp_2::context::session::SeqState;

use crate::engine::{Border, Token};

/// Beginnings that are shorter are computed again.
const SHORTEST: usize = 32;

/// Sequences that are shorter are not kept when they lose their slot.
pub(super) const SHORTEST_KEPT: usize = 64;

/// States between messages are so many tokens apart at least, and this part of the sequence.
const BETWEEN: usize = 512;
const BETWEEN_PART: usize = 8;

/// What cannot be cut back of a sequence, as it was at a length.
#[derive(Debug, Clone)]
pub(super) struct Checkpoint {
    /// Tokens of the sequence.
    pub(super) length: usize,
    /// Shared where a kept sequence and a slot begin with the same tokens; counted for both.
    pub(super) state: Arc<SeqState>,
    /// Value of the worker's clock when it was saved or used last.
    pub(super) used: u64,
    /// Of the token behind, at the end of a prompt: if the same prompt comes again nothing is computed for its first token.
    pub(super) logits: Option<Arc<[f32]>>,
}

/// A whole sequence that has no slot any more.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) tokens: Vec<Token>,
    pub(super) state: SeqState,
    /// Its memory can drop its last tokens.
    pub(super) can_trim: bool,
    pub(super) checkpoints: Vec<Checkpoint>,
    /// Value of the worker's clock when it was saved.
    pub(super) used: u64,
}

/// Bytes of states.
pub(super) fn bytes(checkpoints: &[Checkpoint]) -> u64 {
    checkpoints.iter().map(Checkpoint::bytes).sum()
}

impl Checkpoint {
    fn bytes(&self) -> u64 {
        (self.state.byte_len() + self.logits.as_deref().map_or(0, size_of_val)) as u64
    }
}

impl Kept {
    pub(super) fn bytes(&self) -> u64 {
        self.state.byte_len() as u64 + bytes(&self.checkpoints)
    }
}

/// How many leading tokens of `prompt` need not be computed again where a sequence holds `tokens`.
///
/// At least one token is left to compute, which yields the logits of the first answer token, unless these were saved. A memory
/// that cannot drop its last tokens (`can_trim` false: recurrent state, sliding windows) is only of use when all it holds is a
/// beginning of the prompt, or as far as a state was saved.
pub(super) fn reusable(tokens: &[Token], checkpoints: &[Checkpoint], prompt: &[Token], can_trim: bool) -> usize {
    let common = tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count();
    if common == prompt.len() && logits_behind(checkpoints, common).is_some() {
        return common;
    }
    let common = common.min(prompt.len().saturating_sub(1));
    if can_trim || common == tokens.len() {
        return common;
    }
    let lengths = checkpoints.iter().map(|checkpoint| checkpoint.length);
    lengths.filter(|length| *length <= common).max().unwrap_or(0)
}

/// The logits of the token behind the first `length` ones, if they were saved.
pub(super) fn logits_behind(checkpoints: &[Checkpoint], length: usize) -> Option<&Arc<[f32]>> {
    let mut checkpoints = checkpoints.iter();
    let at = checkpoints.find(|checkpoint| checkpoint.length == length)?;
    at.logits.as_ref()
}

/// Whether the last saved state of a sequence, at the length `last`, is far behind its end.
pub(super) fn is_far(last: usize, length: usize) -> bool {
    length >= last + BETWEEN.max(length / BETWEEN_PART)
}

/// Lengths of a prompt at which it is worthwhile to save the state, ascending and behind the first `reused` tokens.
///
/// Where later turns print the beginning of the answer as the prompt does, that is its end: a state before the answer takes a
/// pass of its own. A prompt that opens thoughts has more behind the border than a line break, which later turns leave out.
pub(super) fn lengths(prompt: &[Token], borders: &[Border], reused: usize) -> Vec<usize> {
    let places = (0..prompt.len()).filter_map(|at| {
        let border = borders.iter().find(|border| border.begins(&prompt[at..]))?;
        Some((at, at + border.tokens.len(), border.of_user))
    });
    let (mut first, mut newest, mut last) = (None, None, prompt.len());
    for (at, end, of_user) in places {
        last = if end + 1 < prompt.len() { at } else { prompt.len() };
        if of_user {
            first = first.or(Some(at));
            newest = Some(at);
        }
    }
    let mut lengths: Vec<usize> = [first, newest, Some(last)].into_iter().flatten().collect();
    lengths.retain(|length| *length >= SHORTEST && *length > reused);
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn borders() -> [Border; 2] {
        let border = |tokens: &[Token], of_user| Border {
            tokens: tokens.to_vec(),
            of_user,
        };
        [border(&[1, 2], true), border(&[1, 3], false)]
    }

    /// Messages of a system, a user and so on, with so many further tokens each.
    fn prompt(messages: &[(Token, usize)]) -> Vec<Token> {
        let message = |(role, length): &(Token, usize)| [vec![1, *role], vec![9; *length]].concat();
        messages.iter().flat_map(message).collect()
    }

    #[test]
    fn states_between_messages_are_far_apart() {
        assert!(!is_far(0, BETWEEN - 1));
        assert!(is_far(0, BETWEEN));
        // Of long sequences a larger part is computed again.
        let long = BETWEEN * BETWEEN_PART * 2;
        assert!(!is_far(long - BETWEEN, long));
        assert!(is_far(long - BETWEEN * 2, long));
    }

    #[test]
    fn prompts_part_at_messages() {
        let turns = prompt(&[(4, 50), (2, 10), (3, 10), (2, 20), (3, 1)]);
        assert_eq!(lengths(&turns, &borders(), 0), [52, 76, 101]);
        assert_eq!(lengths(&turns, &borders(), 60), [76, 101]);
        assert_eq!(lengths(&turns, &borders(), 101), [0; 0]);
        let opens_thoughts = prompt(&[(4, 50), (2, 10), (3, 10), (2, 20), (3, 2)]);
        assert_eq!(lengths(&opens_thoughts, &borders(), 0), [52, 76, 98]);
        // Tokens alone have no messages: the same prompt may come again.
        assert_eq!(lengths(&[5; 40], &borders(), 0), [40]);
        assert_eq!(lengths(&[5; 20], &borders(), 0), [0; 0]);
        assert_eq!(lengths(&[5], &[], 0), [0; 0]);
    }
}
