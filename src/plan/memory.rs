//! What a context takes beside the weights: keys and values, recurrent state, and the buffers that llama.cpp computes in.
//!
//! Sizes of the caches follow `src/llama-kv-cache*.cpp` and `src/llama-memory-recurrent.cpp` and are exact. The compute
//! buffer is what ggml's allocator finds for the largest graph; [`Context::compute`] estimates it from the tensors that live
//! at the same time where most do. Held against llama.cpp on the CPU (docs/planning.md), it is -3 to +1 % off for models
//! of real size. It can be too large for models of very few layers, where memory that a layer alone used is used again.

use serde::Serialize;

use super::shape::{LayerShape, ModelShape};
use crate::gguf::TensorType;
use crate::memory::{KvType, KvTypes};

/// Tokens that are computed in one pass at most where nothing else is said, llama.cpp's default: it reserves its buffers for as
/// many, and a batch of the engine is one pass over the weights.
pub const BATCH: u32 = 512;
/// Bytes of an F32, the type of all that is computed.
const F32: u64 = 4;
/// Bytes of an element of the attention mask (F16: flash attention).
const MASK: u64 = 2;
/// The length of a sequence is rounded up to a multiple.
const CELLS: u64 = 256;

/// The context of a model, as hearth creates it: a KV stream for each sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Context {
    /// Tokens per sequence.
    pub tokens: u32,
    /// Sequences.
    pub parallel: u32,
    pub kv_type: KvTypes,
    /// The sequences share one memory of `tokens`.
    pub pool: bool,
    /// Tokens that are computed in one pass at most.
    pub batch: u32,
    /// Of these, guesses for each stream at most: they have logits, as the last token of each stream has.
    pub guesses: u32,
}

/// What a model takes, by kind, in bytes: all of it in one place, as on a machine without a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Prediction {
    /// The sum of the tensors, exact. llama.cpp maps the file, and repacks some tensors on the CPU: the pages of their
    /// originals are given up when memory gets scarce.
    pub weights: u64,
    /// Keys and values, exact.
    pub kv: u64,
    /// Recurrent state of all sequences, exact.
    pub recurrent: u64,
    /// Buffers of the largest graph, an estimate.
    pub compute: u64,
    /// Logits that are handed out, exact.
    pub output: u64,
}

impl Prediction {
    /// Bytes of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights + self.kv + self.recurrent + self.compute + self.output
    }
}

/// What llama.cpp will allocate for a model on the CPU.
#[must_use]
pub fn predict(shape: &ModelShape, context: Context) -> Prediction {
    Prediction {
        weights: shape.weights(),
        kv: shape.layers.iter().map(|layer| context.kv(layer)).sum(),
        recurrent: shape.layers.iter().map(|layer| context.state(shape, layer)).sum(),
        compute: context.compute(shape, &shape.layers, true, 0),
        output: context.logits(shape),
    }
}

/// Bytes, of which no machine has as many: a header may ask for anything, and sums of these do not overflow.
fn bounded(bytes: u128) -> u64 {
    const MAX: u64 = 1 << 50;
    u64::try_from(bytes).unwrap_or(MAX).min(MAX)
}

/// The data type as ggml describes it.
fn tensor_type(kind: KvType) -> Option<TensorType> {
    TensorType::from_name(kind.name())
}

/// Tokens of a text that becomes a vector at most, unless the context is shorter: llama.cpp computes it in one pass. Beside a
/// context for generation, which has most of the memory, it is less.
const EMBEDDED: u32 = 8192;
const EMBEDDED_BESIDE: u32 = 2048;

/// Tokens of a pass that have logits at most: the last one of each stream, and guesses behind it.
#[must_use]
pub fn outputs(streams: u32, guesses: u32, batch: u32) -> u32 {
    let of_streams = guesses.saturating_add(1).saturating_mul(streams);
    of_streams.min(batch).max(streams)
}

impl Context {
    /// The context in which a model with this one makes vectors of texts, `only` that or beside it.
    #[must_use]
    pub fn of_embeddings(self, only: bool) -> Self {
        let tokens = self.tokens.min(if only { EMBEDDED } else { EMBEDDED_BESIDE });
        Self {
            tokens,
            parallel: 1,
            kv_type: KvTypes::default(),
            pool: false,
            batch: tokens,
            // Nothing tells llama.cpp that no logits are wanted.
            guesses: tokens,
        }
    }

    /// Tokens of a pass that have logits at most.
    #[must_use]
    pub fn outputs(&self) -> u32 {
        outputs(self.parallel, self.guesses, self.batch)
    }

    /// Tokens that all streams together may hold.
    #[must_use]
    pub fn cells(&self) -> u64 {
        match self.pool {
            true => self.stream(),
            false => self.stream() * u64::from(self.parallel),
        }
    }

    /// Tokens that a stream may hold.
    fn stream(&self) -> u64 {
        u64::from(self.tokens).next_multiple_of(CELLS)
    }

    /// Bytes of one token's keys and values in a layer.
    #[must_use]
    pub fn kv_per_token(&self, layer: &LayerShape) -> u64 {
        let bytes = |elements: u64, kind: KvType| {
            tensor_type(kind).map_or(0, |kind| elements.div_ceil(kind.block) * kind.bytes)
        };
        bytes(layer.keys, self.kv_type.keys) + bytes(layer.values, self.kv_type.values)
    }

    /// Bytes of the keys and values of a layer. With a sliding window too: hearth asks for the whole context, so that
    /// sequences can be continued from any of their tokens.
    #[must_use]
    pub fn kv(&self, layer: &LayerShape) -> u64 {
        bounded(u128::from(self.kv_per_token(layer)) * u128::from(self.cells()))
    }

    /// Bytes of the recurrent state of a layer, for all sequences: the last inputs of the convolution and the state.
    #[must_use]
    pub fn state(&self, shape: &ModelShape, layer: &LayerShape) -> u64 {
        match shape.ssm {
            Some(ssm) if layer.recurrent => {
                let (inner, groups, state) = (
                    u128::from(ssm.inner_size),
                    u128::from(ssm.group_count),
                    u128::from(ssm.state_size),
                );
                let convolution = u128::from(ssm.conv_kernel.saturating_sub(1)) * (inner + 2 * groups * state);
                bounded((convolution + state * inner) * u128::from(F32) * u128::from(self.parallel))
            }
            _ => 0,
        }
    }

    /// Bytes of the logits that are handed out: one row per sequence.
    #[must_use]
    pub fn logits(&self, shape: &ModelShape) -> u64 {
        shape.vocabulary * F32 * u64::from(self.parallel)
    }

    /// Tokens of the largest batch.
    fn batch(&self) -> u64 {
        let tokens = u64::from(self.batch).min(self.cells());
        match self.pool {
            true => tokens,
            false => tokens.next_multiple_of(u64::from(self.parallel.max(1))),
        }
    }

    /// Bytes of the attention masks, in which each token sees the cells of its own stream; one more where layers have a
    /// sliding window.
    #[must_use]
    pub fn masks(&self, shape: &ModelShape) -> u64 {
        let masks = 1 + u64::from(shape.sliding_window.is_some());
        masks * self.stream() * self.batch() * MASK
    }

    /// Bytes of what a GPU is given from main memory: the masks, and so many rows of the residual stream's width per token.
    #[must_use]
    pub fn inputs(&self, shape: &ModelShape, rows: u64) -> u64 {
        self.masks(shape) + rows * shape.width * u64::from(self.batch) * F32
    }

    /// Bytes of the buffer in which `layers` are computed, and the output with them if `output`. `copied` bytes of weights
    /// are copied there for a while: those of the largest tensor in main memory, where a GPU computes long prompts.
    ///
    /// Five rows of the residual stream's width are always there. On top of them comes what is largest: logits, a feed-forward
    /// network, an expert block, a recurrent layer, or attention.
    #[must_use]
    pub fn compute<'a>(
        &self,
        shape: &ModelShape,
        layers: impl IntoIterator<Item = &'a LayerShape>,
        output: bool,
        copied: u64,
    ) -> u64 {
        self.largest(shape, layers, output, copied, |layer| layer.row(shape))
    }

    /// The same of all layers on a GPU, where embeddings come from main memory: beside a dense network two rows are there.
    #[must_use]
    pub fn compute_on_gpu(&self, shape: &ModelShape, output: bool, copied: u64) -> u64 {
        let dense = shape.experts_per_token == 0;
        let elsewhere = if dense { self.rows(3 * shape.width) } else { 0 };
        self.compute(shape, &shape.layers, output, copied) - elsewhere
    }

    /// The same where the blocks of routed experts are computed in a buffer of their own, and with it all three: that one, and
    /// the one in which the largest tensor of experts is put together for long prompts.
    #[must_use]
    pub fn compute_with_copies(&self, shape: &ModelShape) -> u64 {
        let rest = |layer: &LayerShape| layer.attention_row().max(3 * layer.feed_forward);
        let put_together = shape
            .layers
            .iter()
            .map(|layer| layer.largest_experts)
            .max()
            .unwrap_or(0);
        self.largest(shape, &shape.layers, true, 0, rest) + self.apart(shape) + put_together
    }

    /// Bytes of the buffer in which a GPU computes the blocks of routed experts apart from all else. What goes into a block and
    /// comes out of it lies there too.
    #[must_use]
    pub fn apart(&self, shape: &ModelShape) -> u64 {
        self.blocks(shape) + self.rows(2 * shape.width)
    }

    fn largest<'a>(
        &self,
        shape: &ModelShape,
        layers: impl IntoIterator<Item = &'a LayerShape>,
        output: bool,
        copied: u64,
        of_layer: impl Fn(&LayerShape) -> u64,
    ) -> u64 {
        let (mut row, mut states) = (0, 0);
        for layer in layers {
            row = row.max(of_layer(layer));
            if layer.recurrent {
                states = self.recurrent(shape);
            }
        }
        let logits = match output {
            true => shape.vocabulary * F32 * u64::from(self.outputs()),
            false => 0,
        };
        let within = (row * self.batch() * F32).max(states) + copied;
        self.masks(shape) + self.rows(5 * shape.width) + logits.max(within)
    }

    /// Bytes of the buffer in which a single layer and the output are computed: attention, the feed-forward network and the logits
    /// of one token per sequence have the same memory, one after the other, beside three rows of the residual stream's width.
    #[must_use]
    pub fn compute_alone(&self, shape: &ModelShape, layer: &LayerShape) -> u64 {
        let attention = self.masks(shape) + self.rows(layer.attention_row());
        // For the tokens that have logits.
        let network = layer.network_row(shape) * u64::from(self.parallel) * F32;
        self.rows(3 * shape.width) + self.logits(shape).max(attention).max(network)
    }

    /// Bytes of so many elements for each token of a batch.
    fn rows(&self, elements: u64) -> u64 {
        elements * self.batch() * F32
    }

    /// Bytes of the buffer in which the blocks of routed experts are computed apart from all else.
    #[must_use]
    pub fn blocks(&self, shape: &ModelShape) -> u64 {
        let rows = shape.layers.iter().map(|layer| layer.experts_row(shape));
        self.rows(rows.max().unwrap_or(0))
    }

    /// Bytes that live at the same time in a recurrent layer: the inputs of the convolution, four times all value heads
    /// (gate, repeated queries and keys, result), and the states, which are gathered and written anew.
    fn recurrent(&self, shape: &ModelShape) -> u64 {
        shape.ssm.map_or(0, |ssm| {
            let (inner, state) = (u128::from(ssm.inner_size), u128::from(ssm.state_size));
            let row = inner + 2 * u128::from(ssm.group_count) * state + 4 * inner;
            let states = 2 * state * inner * u128::from(self.parallel);
            bounded((row * u128::from(self.batch()) + states) * u128::from(F32))
        })
    }
}

impl LayerShape {
    /// Elements that live at the same time for one token, beside the residual stream.
    fn row(&self, shape: &ModelShape) -> u64 {
        self.network_row(shape).max(self.attention_row())
    }

    fn attention_row(&self) -> u64 {
        2 * self.queries + self.keys + self.values
    }

    fn network_row(&self, shape: &ModelShape) -> u64 {
        self.experts_row(shape).max(3 * self.feed_forward)
    }

    /// Gate, up and their product for each expert of a token, and the results.
    fn experts_row(&self, shape: &ModelShape) -> u64 {
        let used = u64::from(shape.experts_per_token);
        let hidden = self.expert_feed_forward * used;
        // The results fit where gate and up were, or need memory of their own.
        let results = shape.width * used;
        match hidden {
            0 => 0,
            _ if 2 * hidden >= results => 3 * hidden,
            _ => 3 * hidden + results,
        }
    }
}
