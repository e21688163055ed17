//! The shape of a model: what its metadata says about layers, heads, experts, state and vocabulary.
//!
//! Keys are those of llama.cpp (`src/llama-arch.cpp`).

use serde::Serialize;

use super::error::printable;
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
    pub experts_used: u32,
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

/// Recurrent state of a layer (Gated DeltaNet, Mamba).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SsmGeometry {
    /// Taps of the causal convolution.
    pub conv_kernel: u32,
    /// Width of all value heads together.
    pub inner_size: u32,
    /// Elements of a key head.
    pub state_size: u32,
    /// Value heads.
    pub time_step_rank: u32,
    /// Key heads.
    pub group_count: u32,
}

/// Larger numbers than any model's; arithmetic on them stays far from overflow.
const MAX_SIZE: u64 = 1 << 30;
/// llama.cpp aborts above these (`src/llama-hparams.h`).
const MAX_LAYERS: u64 = 512;
const MAX_EXPERTS: u64 = 1024;
/// The kinds of rope scaling that llama.cpp knows; it aborts on others.
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];

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
        for name in [
            "attention.head_count",
            "attention.head_count_kv",
            "feed_forward_length",
            "expert_used_count",
        ] {
            keys.check_length(name, blocks)?;
        }
        let heads = keys.number("attention.head_count", MAX_SIZE)?;
        let kv_heads = match keys.number("attention.head_count_kv", MAX_SIZE)? {
            0 => heads,
            kv_heads => kv_heads,
        };
        keys.check_heads(blocks)?;
        let head_length = embedding.checked_div(heads).unwrap_or(0);
        let or_head = |length: u32| if length == 0 { head_length } else { length };
        let key_length = or_head(keys.number("attention.key_length", MAX_SIZE)?);
        let rope_dimensions = keys.number("rope.dimension_count", MAX_SIZE)?;
        keys.check_rope(rope_dimensions, key_length)?;
        let (experts, experts_used) = keys.experts()?;
        let positive = |number: u32| (number > 0).then_some(number);
        let conv_kernel = keys.number("ssm.conv_kernel", MAX_SIZE)?;
        let ssm = SsmGeometry {
            conv_kernel,
            inner_size: keys.number("ssm.inner_size", MAX_SIZE)?,
            state_size: keys.number("ssm.state_size", MAX_SIZE)?,
            time_step_rank: keys.number("ssm.time_step_rank", MAX_SIZE)?,
            group_count: keys.number("ssm.group_count", MAX_SIZE)?,
        };
        keys.check_state(ssm)?;
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
            value_length: or_head(keys.number("attention.value_length", MAX_SIZE)?),
            experts,
            experts_used,
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
            full_attention_interval: keys.interval()?,
            ssm: (conv_kernel > 0).then_some(ssm),
            sliding_window: positive(keys.number("attention.sliding_window", MAX_SIZE)?),
            tokenizer: Tokenizer::read(gguf)?,
            architecture,
        })
    }
}

/// Reads the keys of one architecture.
struct Keys<'a> {
    gguf: &'a Gguf,
    prefix: &'a str,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// A number that may be missing (0); of an array with one number per layer, the largest.
    fn number(&self, name: &str, limit: u64) -> Result<u32, GgufError> {
        let key = self.key(name);
        let number = match self.gguf.get(&key) {
            None => Some(0),
            Some(Value::Array(array)) => array
                .iter()
                .map(|value| value.as_u64())
                .try_fold(0, |largest, value| Some(value?.max(largest))),
            Some(value) => value.as_u64(),
        };
        match number.filter(|number| *number <= limit).map(u32::try_from) {
            Some(Ok(number)) => Ok(number),
            _ => Err(model(self.gguf, &key, &format!("is not a number from 0 to {limit}"))),
        }
    }

    /// A value for each block, if the file has an array of them.
    fn check_length(&self, name: &str, blocks: u32) -> Result<(), GgufError> {
        match self.gguf.get(&self.key(name)) {
            Some(Value::Array(array)) if array.len != blocks as usize => {
                let problem = format!("has {} entries, but the model has {blocks} blocks", array.len);
                Err(model(self.gguf, &self.key(name), &problem))
            }
            _ => Ok(()),
        }
    }

    /// In each block the query heads are shared out evenly over the key-value heads: llama.cpp's attention aborts where
    /// they are not.
    fn check_heads(&self, blocks: u32) -> Result<(), GgufError> {
        let key = self.key("attention.head_count_kv");
        let (Some(heads), Some(kv_heads)) = (self.gguf.get(&self.key("attention.head_count")), self.gguf.get(&key))
        else {
            return Ok(());
        };
        let each = |value: Value<'_>| -> Vec<u64> {
            match value {
                Value::Array(array) => array.iter().filter_map(|value| value.as_u64()).collect(),
                value => vec![value.as_u64().unwrap_or(0); blocks as usize],
            }
        };
        for (block, (heads, kv_heads)) in each(heads).into_iter().zip(each(kv_heads)).enumerate() {
            // Blocks without attention have zeros.
            if heads > 0 && kv_heads > 0 && !heads.is_multiple_of(kv_heads) {
                let problem = format!("is {kv_heads} in block {block}, which does not divide its {heads} heads");
                return Err(model(self.gguf, &key, &problem));
            }
        }
        Ok(())
    }

    /// What llama.cpp asserts of rotary positions.
    fn check_rope(&self, dimensions: u32, key_length: u32) -> Result<(), GgufError> {
        let key = self.key("rope.dimension_count");
        if !dimensions.is_multiple_of(2) {
            return Err(model(self.gguf, &key, &format!("is {dimensions}, not an even number")));
        }
        if key_length > 0 && dimensions > key_length {
            let problem = format!("is {dimensions}, more than the {key_length} elements of a head");
            return Err(model(self.gguf, &key, &problem));
        }
        let key = self.key("rope.scaling.type");
        match self.gguf.get(&key) {
            Some(Value::String(kind)) if !ROPE_SCALINGS.contains(&kind) => {
                let problem = format!("is `{kind}`, but llama.cpp knows only {}", ROPE_SCALINGS.join(", "));
                Err(model(self.gguf, &key, &problem))
            }
            _ => Ok(()),
        }
    }

    /// Experts, and those of them that compute a token, with what llama.cpp asserts of them and their groups.
    fn experts(&self) -> Result<(u32, u32), GgufError> {
        let experts = self.number("expert_count", MAX_EXPERTS)?;
        let used = self.number("expert_used_count", MAX_SIZE)?;
        if used > experts || (experts > 0 && used == 0) {
            let problem = format!("is {used}, but the model has {experts} experts");
            return Err(model(self.gguf, &self.key("expert_used_count"), &problem));
        }
        let groups = self.number("expert_group_count", MAX_SIZE)?;
        let even = groups <= 1 || experts.is_multiple_of(groups);
        if groups > 0 && (groups >= experts || !even) {
            let problem = format!("is {groups}, which does not divide {experts} experts into groups");
            return Err(model(self.gguf, &self.key("expert_group_count"), &problem));
        }
        let used_groups = self.number("expert_group_used_count", MAX_SIZE)?;
        if groups > 1 && (used_groups == 0 || used_groups >= groups) {
            let problem = format!("is {used_groups}, but the experts have {groups} groups");
            return Err(model(self.gguf, &self.key("expert_group_used_count"), &problem));
        }
        Ok((experts, used))
    }

    /// Heads of the recurrent state divide evenly. A file without groups (Mamba) has no heads.
    fn check_state(&self, ssm: SsmGeometry) -> Result<(), GgufError> {
        if ssm.group_count == 0 {
            return Ok(());
        }
        if !ssm.time_step_rank.is_multiple_of(ssm.group_count) {
            let problem = format!(
                "is {}, which {} groups do not divide",
                ssm.time_step_rank, ssm.group_count
            );
            return Err(model(self.gguf, &self.key("ssm.time_step_rank"), &problem));
        }
        if ssm.time_step_rank > 0 && !ssm.inner_size.is_multiple_of(ssm.time_step_rank) {
            let problem = format!(
                "is {}, which {} heads do not divide",
                ssm.inner_size, ssm.time_step_rank
            );
            return Err(model(self.gguf, &self.key("ssm.inner_size"), &problem));
        }
        Ok(())
    }

    /// llama.cpp divides by the interval.
    fn interval(&self) -> Result<Option<u32>, GgufError> {
        let name = "full_attention_interval";
        match self.gguf.get(&self.key(name)) {
            None => Ok(None),
            Some(_) => self.required(name, MAX_LAYERS).map(Some),
        }
    }

    fn required(&self, name: &str, limit: u64) -> Result<u32, GgufError> {
        match self.number(name, limit)? {
            0 => Err(model(self.gguf, &self.key(name), "is missing or zero")),
            number => Ok(number),
        }
    }
}

/// The error of a key that makes no sense.
pub(super) fn model(gguf: &Gguf, key: &str, problem: &str) -> GgufError {
    GgufError::Model {
        path: gguf.path().to_owned(),
        key: printable(key),
        problem: printable(problem),
    }
}
