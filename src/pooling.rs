//! How embeddings are pooled: a plain type that the configuration and engines share.

/// How the vectors of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    /// The vector of the first token.
    Cls,
    /// The vector of the last token.
    Last,
    /// Not a vector, but how well a document answers a query.
    Rank,
}

impl Pooling {
    pub const ALL: [Self; 4] = [Self::Mean, Self::Cls, Self::Last, Self::Rank];

    /// As llama-server's `--pooling` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Last => "last",
            Self::Rank => "rank",
        }
    }

    /// By llama.cpp's number, as in the key `pooling_type` of a GGUF file; `None` for no pooling.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Mean),
            2 => Some(Self::Cls),
            3 => Some(Self::Last),
            4 => Some(Self::Rank),
            _ => None,
        }
    }
}
