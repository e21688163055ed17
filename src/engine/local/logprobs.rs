//! How likely tokens were.

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;

use crate::engine::{Candidate, Token, TokenLogprob};

/// Probabilities of a place in a text, as natural logarithms, after softmax over the raw logits.
#[derive(Debug)]
pub(super) struct Logprobs<'l> {
    logits: &'l [f32],
    /// The logarithm of the sum of all exponentials.
    normalizer: f64,
}

impl<'l> Logprobs<'l> {
    pub(super) fn new(logits: &'l [f32]) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
        Self {
            logits,
            normalizer: f64::from(largest) + sum.ln(),
        }
    }

    pub(super) fn of(&self, token: Token) -> f32 {
        let logit = usize::try_from(token).ok().and_then(|token| self.logits.get(token));
        let logit = logit.copied().unwrap_or(f32::NEG_INFINITY);
        #[expect(clippy::cast_possible_truncation, reason = "the precision of logits")]
        let logprob = (f64::from(logit) - self.normalizer) as f32;
        // JSON has no infinity, and rounding must not make anything more than certain.
        logprob.clamp(MIN_LOGPROB, 0.0)
    }

    /// The likeliest tokens, likeliest first; of equals the one with the smaller id.
    pub(super) fn top(&self, count: usize) -> Vec<Token> {
        let mut best: Vec<(f32, Token)> = Vec::with_capacity(count + 1);
        if count == 0 {
            return Vec::new();
        }
        for (token, logit) in (0..).zip(self.logits) {
            if best.len() == count && *logit <= best[count - 1].0 {
                continue;
            }
            let place = best.partition_point(|(other, _)| *other >= *logit);
            best.insert(place, (*logit, token));
            best.truncate(count);
        }
        best.into_iter().map(|(_, token)| token).collect()
    }
}

/// Stands for "never", as in OpenAI's API.
const MIN_LOGPROB: f32 = -9999.0;

/// How likely a token was that is printed as `piece`, and the likeliest ones in its place.
pub(super) fn token_logprob(model: &LlamaModel, logits: &[f32], token: Token, piece: &[u8], top: u32) -> TokenLogprob {
    let logprobs = Logprobs::new(logits);
    let candidate = |token: Token, bytes: Vec<u8>| Candidate {
        token,
        bytes,
        logprob: logprobs.of(token),
    };
    let top = logprobs.top(usize::try_from(top).unwrap_or(0)).into_iter();
    let vocab = model.vocab();
    TokenLogprob {
        chosen: candidate(token, piece.to_vec()),
        top: top
            .map(|token| candidate(token, vocab.token_to_piece(LlamaToken(token), true, None)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let logits = [1.0, -2.0, 700.0, 699.0, f32::NEG_INFINITY];
        let logprobs = Logprobs::new(&logits);
        let sum: f64 = (0..4).map(|token| f64::from(logprobs.of(token)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        assert_eq!(logprobs.of(4), MIN_LOGPROB);
        assert_eq!(Logprobs::new(&[3.0]).of(0), 0.0);
    }

    #[test]
    fn the_likeliest_come_first() {
        let logits = [1.0, 5.0, 3.0, 5.0, 4.0];
        let top = |count| Logprobs::new(&logits).top(count);
        assert_eq!(top(0), [] as [Token; 0]);
        assert_eq!(top(3), [1, 3, 4]);
        assert_eq!(top(9), [1, 3, 4, 2, 0]);
    }
}
