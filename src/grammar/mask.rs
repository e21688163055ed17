//! Sets of tokens.

use super::vocabulary::Token;

/// Tokens that may come, a bit each.
#[derive(Debug)]
pub(super) struct Mask(Box<[u64]>);

impl Mask {
    /// No token of a vocabulary of `size`.
    pub(super) fn new(size: usize) -> Self {
        Self(vec![0; size.div_ceil(64)].into())
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0) + 64
    }

    pub(super) fn insert(&mut self, token: Token) {
        if let Some((word, bit)) = place(token)
            && let Some(word) = self.0.get_mut(word)
        {
            *word |= bit;
        }
    }

    pub(super) fn contains(&self, token: Token) -> bool {
        place(token).is_some_and(|(word, bit)| self.0.get(word).is_some_and(|word| word & bit != 0))
    }

    /// The tokens, by their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = Token> + '_ {
        (0..).zip(&self.0).flat_map(|(index, word): (Token, &u64)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(index * 64 + Token::try_from(bit).unwrap_or(0))
            })
        })
    }
}

fn place(token: Token) -> Option<(usize, u64)> {
    let token = usize::try_from(token).ok()?;
    Some((token / 64, 1 << (token % 64)))
}
