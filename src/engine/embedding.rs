//! Texts as vectors.

pub use crate::pooling::Pooling;

/// The vectors of several texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// In the order of the texts. With [`Pooling::Rank`] each has one number.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts together.
    pub tokens: u32,
}
