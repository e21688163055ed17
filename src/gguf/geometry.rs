//! The shape of a model: what its metadata says about layers, heads, experts, state and vocabulary.
//!
//! Keys are those of llama.cpp (`src/llama-arch.cpp`).

use serde::Serialize;

use super::error::model;
use super::keys::Keys;
use super::limits::{self, Heads, MAX_EXPERTS, MAX_LAYERS, MAX_SIZE};
use super::ssm::SsmGeometry;
use super::{Gguf, GgufError, Tokenizer, Value};

/// The shape of a model. What an architecture does not have is zero or `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Geometry {
    /// llama.cpp's name of the architecture.
    pub architecture: String,
    /// The model's name for people.
    pub name: Option<String>,
    /// Layers that every token passes, without prediction blocks.
    pub layers: u32,
    /// Multi-token prediction (nextn) blocks behind the trunk.
    pub mtp_layers: u32,
    /// Width of the residual stream.
    pub embedding: u32,
    /// Tokens of context that the model was trained for.
    pub context: u32,
    /// Width of the dense feed-forward network; the largest one where layers differ.
    pub feed_forward: u32,
    /// Query heads; the largest number where layers differ.
    pub heads: u32,
    /// Key and value heads; the largest number where layers differ.
    pub kv_heads: u32,
    /// Elements of a key head.
    pub key_length: u32,
    /// Elements of a value head.
    pub value_length: u32,
    /// Routed experts per layer.
    pub experts: u32,
    /// Routed experts that compute a token.
    #[serde(flatten, serialize_with = "crate::renamed::experts_used")]
    pub experts_per_token: u32,
    /// Width of a routed expert.
    pub expert_feed_forward: u32,
    /// Shared experts, which compute every token; files with only the width of one do not count it.
    pub shared_experts: u32,
    /// Width of the shared expert.
    pub shared_feed_forward: u32,
    /// First layers with a dense feed-forward network instead of experts.
    pub dense_layers: u32,
    /// Base of the rotary position embedding.
    pub rope_base: Option<f64>,
    /// Elements of a head that are rotated; 0 where the file leaves it to llama.cpp.
    pub rope_dimensions: u32,
    /// Number of the quantisation mix, see [`super::file_type_name`].
    pub file_type: Option<u64>,
    /// Every n-th layer has full attention, the others are recurrent; `None` where all are alike.
    pub full_attention_interval: Option<u32>,
    /// Recurrent state.
    pub ssm: Option<SsmGeometry>,
    /// Sliding window, in tokens.
    pub sliding_window: Option<u32>,
    pub tokenizer: Tokenizer,
}

impl Geometry {
    pub(super) fn read(gguf: &Gguf) -> Result<Self, GgufError> {
        let architecture = match gguf.get("general.architecture") {
            Some(Value::String(name)) if !name.is_empty() => name.to_owned(),
            _ => {
                return Err(model(
                    gguf,
                    "general.architecture",
                    "is missing: this file does not hold a language model",
                ));
            }
        };
        let keys = Keys {
            gguf,
            prefix: &architecture,
        };
        let blocks = keys.required("block_count", MAX_LAYERS)?;
        let mtp_layers = keys.number("nextn_predict_layers", MAX_LAYERS)?;
        let Some(layers) = blocks.checked_sub(mtp_layers).filter(|layers| *layers > 0) else {
            let problem = format!("is {mtp_layers}, but the model has only {blocks} blocks");
            return Err(model(gguf, &keys.key("nextn_predict_layers"), &problem));
        };
        let embedding = keys.required("embedding_length", MAX_SIZE)?;
        limits::check_lengths(&keys, blocks)?;
        limits::check_finite(&keys)?;
        let heads = keys.number("attention.head_count", MAX_SIZE)?;
        let kv_heads = match keys.number("attention.head_count_kv", MAX_SIZE)? {
            0 => heads,
            kv_heads => kv_heads,
        };
        limits::check_heads(&keys, blocks)?;
        let head_length = embedding.checked_div(heads).unwrap_or(0);
        let or_head = |length: u32| if length == 0 { head_length } else { length };
        let key_length = or_head(keys.number("attention.key_length", MAX_SIZE)?);
        let value_length = or_head(keys.number("attention.value_length", MAX_SIZE)?);
        let rope_dimensions = keys.number("rope.dimension_count", MAX_SIZE)?;
        let lengths = Heads {
            key: key_length,
            value: value_length,
            rope: rope_dimensions,
        };
        limits::check_rope(&keys, lengths)?;
        let (experts, experts_per_token) = limits::experts(&keys)?;
        let conv_kernel = keys.number("ssm.conv_kernel", MAX_SIZE)?;
        let ssm = SsmGeometry {
            conv_kernel,
            inner_size: keys.number("ssm.inner_size", MAX_SIZE)?,
            state_size: keys.number("ssm.state_size", MAX_SIZE)?,
            time_step_rank: keys.number("ssm.time_step_rank", MAX_SIZE)?,
            group_count: keys.number("ssm.group_count", MAX_SIZE)?,
        };
        limits::check_state(&keys, ssm)?;
        Ok(Self {
            name: gguf
                .get("general.name")
                .and_then(|name| name.as_str())
                .map(str::to_owned),
            layers,
            mtp_layers,
            embedding,
            context: keys.required("context_length", MAX_SIZE)?,
            feed_forward: keys.number("feed_forward_length", MAX_SIZE)?,
            heads,
            kv_heads,
            key_length,
            value_length,
            experts,
            experts_per_token,
            expert_feed_forward: keys.number("expert_feed_forward_length", MAX_SIZE)?,
            shared_experts: keys.number("expert_shared_count", MAX_EXPERTS)?,
            shared_feed_forward: keys.number("expert_shared_feed_forward_length", MAX_SIZE)?,
            dense_layers: keys.number("leading_dense_block_count", MAX_LAYERS)?,
            rope_base: keys
                .gguf
                .get(&keys.key("rope.freq_base"))
                .and_then(|base| base.as_f64()),
            rope_dimensions,
            file_type: gguf.get("general.file_type").and_then(|number| number.as_u64()),
            full_attention_interval: limits::interval(&keys)?,
            ssm: (conv_kernel > 0).then_some(ssm),
            sliding_window: limits::window(&keys)?,
            tokenizer: Tokenizer::read(gguf)?,
            architecture,
        })
    }
}
