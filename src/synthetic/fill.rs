//! Random data in ggml's block formats. For speed, a pool of blocks per type and scale is generated once, and tensors are
//! filled with pieces from random offsets of the pool.

use std::collections::HashMap;
use std::io::{self, Write};

use super::tensors::{Planned, Values};
use crate::gguf::TensorType;

/// Size of a pool in bytes; large enough that neighbouring experts differ.
const POOL: usize = 8 << 20;
/// Bytes written from one offset of a pool.
const PIECE: usize = 1 << 20;

/// Writes the data of tensors.
pub(super) struct Filler {
    random: fastrand::Rng,
    pools: HashMap<(u32, u32), Vec<u8>>,
}

impl Filler {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            pools: HashMap::new(),
        }
    }

    /// Writes the `bytes` bytes of a tensor.
    pub(super) fn write(&mut self, tensor: &Planned, bytes: u64, skew: f64, out: &mut impl Write) -> io::Result<()> {
        match tensor.values {
            Values::Constant(value) => self.numbers(bytes, out, |_| value),
            Values::Between(low, high) => self.numbers(bytes, out, |random| low + random.f32() * (high - low)),
            Values::Spread(spread) if tensor.kind.name == "F32" && bytes < PIECE as u64 => {
                self.numbers(bytes, out, |random| normal(random) * spread)
            }
            Values::Spread(spread) => self.blocks(tensor.kind, spread, bytes, out),
            Values::Router(spread) => self.router(tensor, spread, skew, out),
        }
    }

    fn numbers(
        &mut self,
        bytes: u64,
        out: &mut impl Write,
        next: impl Fn(&mut fastrand::Rng) -> f32,
    ) -> io::Result<()> {
        for _ in 0..bytes / 4 {
            out.write_all(&next(&mut self.random).to_le_bytes())?;
        }
        Ok(())
    }

    /// Ranks are shuffled for each layer: an expert that is hot in one layer need not be hot in another.
    #[expect(clippy::cast_possible_truncation, reason = "an F32 is wanted")]
    fn router(&mut self, tensor: &Planned, spread: f32, skew: f64, out: &mut impl Write) -> io::Result<()> {
        let (width, experts) = (tensor.dims[0], tensor.dims.get(1).copied().unwrap_or(1));
        let mut ranks: Vec<u32> = (1..=u32::try_from(experts).unwrap_or(u32::MAX)).collect();
        self.random.shuffle(&mut ranks);
        for rank in ranks {
            let spread = spread * f64::from(rank).powf(-skew) as f32;
            self.numbers(width * 4, out, |random| normal(random) * spread)?;
        }
        Ok(())
    }

    fn blocks(&mut self, kind: TensorType, spread: f32, bytes: u64, out: &mut impl Write) -> io::Result<()> {
        let random = &mut self.random;
        let pool = self
            .pools
            .entry((kind.id, spread.to_bits()))
            .or_insert_with(|| pool(random, kind, spread));
        let block = usize::try_from(kind.bytes).unwrap_or(1);
        let mut left = usize::try_from(bytes).map_err(io::Error::other)?;
        while left > 0 {
            let piece = left.min(PIECE / block * block);
            let start = self.random.usize(0..=(pool.len() - piece) / block) * block;
            out.write_all(&pool[start..start + piece])?;
            left -= piece;
        }
        Ok(())
    }
}

/// Approximately normal: the sum of four uniform numbers.
fn normal(random: &mut fastrand::Rng) -> f32 {
    // The sum of four with variance 1/12 has the variance 1/3.
    (random.f32() + random.f32() + random.f32() + random.f32() - 2.0) * 1.732_05
}

/// Random blocks whose weights have approximately the standard deviation `spread`.
fn pool(random: &mut fastrand::Rng, kind: TensorType, spread: f32) -> Vec<u8> {
    let block = usize::try_from(kind.bytes).unwrap_or(1);
    let mut pool = vec![0; POOL / block * block];
    match kind.name {
        "F32" => each(&mut pool, 4, |bytes| {
            bytes.copy_from_slice(&(normal(random) * spread).to_le_bytes())
        }),
        "F16" => each(&mut pool, 2, |bytes| {
            bytes.copy_from_slice(&half(normal(random) * spread))
        }),
        "BF16" => each(&mut pool, 2, |bytes| {
            bytes.copy_from_slice(&(normal(random) * spread).to_le_bytes()[2..])
        }),
        name => {
            random.fill(&mut pool);
            each(&mut pool, block, |bytes| scale(bytes, name, spread));
        }
    }
    pool
}

fn each(pool: &mut [u8], size: usize, mut change: impl FnMut(&mut [u8])) {
    pool.chunks_exact_mut(size).for_each(&mut change);
}

/// Sets the scales of a block of random bytes. The divisors are the standard deviation of the type's weights at scale 1,
/// with evenly spread quants and sub-scales (formats: `ggml/src/ggml-common.h`, `dequantize_row_*` in `ggml-quants.c`).
fn scale(block: &mut [u8], kind: &str, spread: f32) {
    // Offset of the scale, divisor, and the minimum's scale as a multiple of the scale.
    let (at, divisor, minimum) = match kind {
        "Q4_0" => (0, 4.6, None),
        "Q5_0" => (0, 9.2, None),
        "Q8_0" => (0, 74.0, None),
        "IQ4_NL" => (0, 72.0, None),
        "IQ4_XS" => (0, 1330.0, None),
        "IQ2_XXS" => (0, 33.0, None),
        "IQ3_XXS" => (0, 110.0, None),
        "Q2_K" => (80, 13.8, Some((82, 1.5))),
        "Q3_K" => (108, 42.0, None),
        "Q4_K" => (0, 257.0, Some((2, 7.5))),
        "Q5_K" => (0, 526.0, Some((2, 15.5))),
        "Q6_K" => (208, 1369.0, None),
        // A power of two, 2^(e - 128), before weights of 0 to 12.
        "MXFP4" => {
            let exponent = (spread / 6.0).log2().round() + 128.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "in the range of a byte"
            )]
            {
                block[0] = exponent.clamp(1.0, 254.0) as u8;
            }
            return;
        }
        // Four sub-blocks with an unsigned float each: 4 bits of exponent (bias 7), 3 of mantissa.
        "NVFP4" => {
            let exponent = (spread / 6.0).log2().round() + 8.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "in the range of four bits"
            )]
            block[..4].fill((exponent.clamp(1.0, 14.0) as u8) << 3);
            return;
        }
        _ => return,
    };
    // Most codes reach further below zero than above. With scales of both signs the mean of the weights is zero, like
    // that of real weights.
    let negative = block.last().is_some_and(|byte| byte & 1 == 1);
    let unit = if negative { -spread } else { spread } / divisor;
    block[at..at + 2].copy_from_slice(&half(unit));
    if let Some((at, multiple)) = minimum {
        block[at..at + 2].copy_from_slice(&half(unit * multiple));
    }
}

/// An IEEE half by truncation, for numbers well inside its range; smaller numbers become subnormal or the least one.
#[expect(clippy::cast_possible_truncation, reason = "the bits are masked")]
fn half(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let exponent = ((bits >> 23) & 0xFF) as i32 - 127 + 15;
    let mantissa = (bits >> 13) & 0x3FF;
    let magnitude = match exponent {
        // Subnormal: the leading one becomes visible.
        -9..=0 => (mantissa | 0x400) >> (1 - exponent),
        1..=30 => (exponent as u32) << 10 | mantissa,
        31.. => 30 << 10 | 0x3FF,
        _ => 0,
    };
    ((sign | magnitude) as u16).to_le_bytes()
}
