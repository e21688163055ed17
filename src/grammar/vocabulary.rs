//! The texts of a model's tokens, in an order in which all tokens are tried quickly.

/// A token id: an index into the vocabulary.
pub type Token = i32;

/// What each token stands for.
#[derive(Debug)]
pub struct Vocabulary {
    bytes: Vec<u8>,
    /// Where the bytes of each token begin, and the end of the last ones.
    starts: Vec<u32>,
    kinds: Vec<Kind>,
    /// Tokens that are text, by their bytes.
    sorted: Vec<Token>,
    /// How many bytes each of `sorted` has in common with the one before.
    common: Vec<u16>,
    /// For each byte, where in `sorted` the tokens that begin with it end.
    ends: Box<[usize; 256]>,
}

/// What a token is for a grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Stands for nothing that would be printed.
    Control,
    /// Ends a text.
    End,
}

impl Vocabulary {
    /// From the bytes and kind of every token, in their order.
    pub fn new(tokens: impl IntoIterator<Item = (Vec<u8>, Kind)>) -> Self {
        let mut this = Self {
            bytes: Vec::new(),
            starts: vec![0],
            kinds: Vec::new(),
            sorted: Vec::new(),
            common: Vec::new(),
            ends: Box::new([0; 256]),
        };
        for (piece, kind) in tokens {
            // No token is longer: lengths fit `common`.
            let piece = if piece.len() > usize::from(u16::MAX) {
                &[]
            } else {
                &piece[..]
            };
            this.bytes.extend_from_slice(piece);
            this.starts.push(u32::try_from(this.bytes.len()).unwrap_or(u32::MAX));
            this.kinds.push(kind);
        }
        let text = (0..).zip(&this.kinds).filter(|(_, kind)| **kind == Kind::Text);
        let mut sorted: Vec<Token> = text.map(|(token, _)| token).collect();
        // A token without bytes would let a text stand still.
        sorted.retain(|token| !this.piece(*token).is_empty());
        sorted.sort_unstable_by(|a, b| this.piece(*a).cmp(this.piece(*b)).then(a.cmp(b)));
        let mut before: &[u8] = &[];
        let common = sorted.iter().map(|token| {
            let piece = this.piece(*token);
            let common = before.iter().zip(piece).take_while(|(a, b)| a == b).count();
            before = piece;
            u16::try_from(common).unwrap_or(u16::MAX)
        });
        this.common = common.collect();
        let ends = (0..=u8::MAX).map(|first| sorted.partition_point(|token| this.piece(*token)[0] <= first));
        let ends: Vec<usize> = ends.collect();
        this.ends.copy_from_slice(&ends);
        this.sorted = sorted;
        this
    }

    /// The bytes of a token; nothing for a number that is none.
    pub(super) fn piece(&self, token: Token) -> &[u8] {
        let range = usize::try_from(token).ok().and_then(|index| {
            let start = *self.starts.get(index)?;
            Some(start as usize..*self.starts.get(index + 1)? as usize)
        });
        range.and_then(|range| self.bytes.get(range)).unwrap_or_default()
    }

    /// What a token is; a number that is none is a control token.
    pub(super) fn kind(&self, token: Token) -> Kind {
        let index = usize::try_from(token).ok();
        let kind = index.and_then(|index| self.kinds.get(index)).copied();
        kind.unwrap_or(Kind::Control)
    }

    /// The control tokens.
    pub(super) fn control(&self) -> impl Iterator<Item = Token> + '_ {
        let tokens = (0..).zip(&self.kinds).filter(|(_, kind)| **kind == Kind::Control);
        tokens.map(|(token, _)| token)
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// The token with this id, if there is one.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<Token> {
        let known = usize::try_from(id).is_ok_and(|id| id < self.len());
        Token::try_from(id).ok().filter(|_| known)
    }

    /// The control token with this text, or the only token that is this text.
    #[must_use]
    pub fn named(&self, text: &str) -> Option<Token> {
        let mut found = None;
        for token in (0..).take(self.len()) {
            if self.piece(token) == text.as_bytes() {
                if self.kind(token) != Kind::Text {
                    return Some(token);
                }
                found = found.or(Some(token));
            }
        }
        found
    }

    /// The tokens that are text by their bytes, and how many bytes each has in common with the one before.
    pub(super) fn sorted(&self) -> (&[Token], &[u16]) {
        (&self.sorted, &self.common)
    }

    /// Where in [`Self::sorted`] the tokens that begin with a byte end.
    pub(super) fn after(&self, first: u8) -> usize {
        self.ends[usize::from(first)]
    }
}
