//! What a slot wants of whatever makes its guesses.

use crate::engine::Token;

/// A slot that wants guesses.
#[derive(Debug)]
pub(super) struct Wish<'s> {
    pub(super) slot: usize,
    /// What the model has computed, and what it has not.
    pub(super) cached: &'s [Token],
    pub(super) pending: &'s [Token],
    pub(super) most: usize,
    pub(super) guesses: &'s mut Vec<Token>,
}

/// How likely the likeliest token is.
pub(super) fn probability(logits: &[f32], token: Token) -> f32 {
    /// What is so far behind the likeliest does not count.
    const FAR: f32 = 16.0;
    let best = usize::try_from(token)
        .ok()
        .and_then(|token| logits.get(token))
        .copied()
        .unwrap_or(0.0);
    let near = logits.iter().filter(|logit| **logit > best - FAR);
    1.0 / near.map(|logit| (logit - best).exp()).sum::<f32>()
}
