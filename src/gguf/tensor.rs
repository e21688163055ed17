//! Tensors: names, shapes, and the block formats of ggml.

use std::fmt;

/// A ggml data type: `block` weights are stored in `bytes` bytes.
///
/// Numbers, names and sizes are those of ggml 0.26 (`ggml/include/ggml.h`, `ggml/src/ggml.c`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TensorType {
    /// ggml's number of the type, as GGUF stores it.
    pub id: u32,
    pub name: &'static str,
    /// Weights per block; rows are whole blocks.
    pub block: u64,
    /// Bytes per block.
    pub bytes: u64,
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn kind(id: u32, name: &'static str, block: u64, bytes: u64) -> TensorType {
    TensorType { id, name, block, bytes }
}

/// All types that ggml knows.
pub const TENSOR_TYPES: &[TensorType] = &[
    kind(0, "F32", 1, 4),
    kind(1, "F16", 1, 2),
    kind(2, "Q4_0", 32, 18),
    kind(3, "Q4_1", 32, 20),
    kind(6, "Q5_0", 32, 22),
    kind(7, "Q5_1", 32, 24),
    kind(8, "Q8_0", 32, 34),
    kind(9, "Q8_1", 32, 36),
    kind(10, "Q2_K", 256, 84),
    kind(11, "Q3_K", 256, 110),
    kind(12, "Q4_K", 256, 144),
    kind(13, "Q5_K", 256, 176),
    kind(14, "Q6_K", 256, 210),
    kind(15, "Q8_K", 256, 292),
    kind(16, "IQ2_XXS", 256, 66),
    kind(17, "IQ2_XS", 256, 74),
    kind(18, "IQ3_XXS", 256, 98),
    kind(19, "IQ1_S", 256, 50),
    kind(20, "IQ4_NL", 32, 18),
    kind(21, "IQ3_S", 256, 110),
    kind(22, "IQ2_S", 256, 82),
    kind(23, "IQ4_XS", 256, 136),
    kind(24, "I8", 1, 1),
    kind(25, "I16", 1, 2),
    kind(26, "I32", 1, 4),
    kind(27, "I64", 1, 8),
    kind(28, "F64", 1, 8),
    kind(29, "IQ1_M", 256, 56),
    kind(30, "BF16", 1, 2),
    kind(34, "TQ1_0", 256, 54),
    kind(35, "TQ2_0", 256, 66),
    kind(39, "MXFP4", 32, 17),
    kind(40, "NVFP4", 64, 36),
    kind(41, "Q1_0", 128, 18),
    kind(42, "Q2_0", 64, 18),
];

impl TensorType {
    /// The type with ggml's number `id`.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        TENSOR_TYPES.iter().find(|known| known.id == id).copied()
    }

    /// The type with this name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        TENSOR_TYPES
            .iter()
            .find(|known| known.name.eq_ignore_ascii_case(name))
            .copied()
    }
}

/// One entry of the tensor directory.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    pub name: String,
    pub kind: TensorType,
    /// Elements per dimension, the fastest first, as ggml counts them; unused ones are 1.
    pub shape: [u64; 4],
    /// Number of dimensions in the file, 1 to 4.
    pub dimensions: usize,
    /// First byte of the data, counted from the beginning of its file.
    pub offset: u64,
    /// Bytes of the data.
    pub bytes: u64,
    /// Which file of a split model holds the data; 0 for the first.
    pub part: usize,
}

impl TensorInfo {
    /// Number of weights.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The dimensions that the file gives.
    #[must_use]
    pub fn dims(&self) -> &[u64] {
        &self.shape[..self.dimensions]
    }
}
