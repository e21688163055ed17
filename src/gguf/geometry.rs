//! The shape of a model: what its metadata says about layers, heads, experts, state and vocabulary.
//!
//! Keys are those of llama.cpp (`src/llama-arch.cpp`).

use serde::Serialize;

use super::{Gguf, GgufError, Value, ValueType};

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
    /// Width of the shared expert.
    pub shared_feed_forward: u32,
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

/// What the file says about its vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tokenizer {
    /// llama.cpp's tokenizer model, such as `gpt2`.
    pub model: String,
    /// The pre-tokenizer, such as `qwen2`.
    pub pre: Option<String>,
    /// Number of tokens.
    pub vocabulary: u32,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    /// Texts of the two; empty if there is none.
    pub bos_text: String,
    pub eos_text: String,
    /// Jinja source of the chat template.
    #[serde(skip)]
    pub chat_template: Option<String>,
}

/// Larger numbers than any model's; arithmetic on them stays far from overflow.
const MAX_SIZE: u64 = 1 << 30;
const MAX_LAYERS: u64 = 4096;

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
        let heads = keys.number("attention.head_count", MAX_SIZE)?;
        let kv_heads = match keys.number("attention.head_count_kv", MAX_SIZE)? {
            0 => heads,
            kv_heads => kv_heads,
        };
        let head_length = embedding.checked_div(heads).unwrap_or(0);
        let or_head = |length: u32| if length == 0 { head_length } else { length };
        let experts = keys.number("expert_count", MAX_SIZE)?;
        let experts_used = keys.number("expert_used_count", MAX_SIZE)?;
        if experts_used > experts || (experts > 0 && experts_used == 0) {
            let problem = format!("is {experts_used}, but the model has {experts} experts");
            return Err(model(gguf, &keys.key("expert_used_count"), &problem));
        }
        let positive = |number: u32| (number > 0).then_some(number);
        let conv_kernel = keys.number("ssm.conv_kernel", MAX_SIZE)?;
        let ssm = SsmGeometry {
            conv_kernel,
            inner_size: keys.number("ssm.inner_size", MAX_SIZE)?,
            state_size: keys.number("ssm.state_size", MAX_SIZE)?,
            time_step_rank: keys.number("ssm.time_step_rank", MAX_SIZE)?,
            group_count: keys.number("ssm.group_count", MAX_SIZE)?,
        };
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
            key_length: or_head(keys.number("attention.key_length", MAX_SIZE)?),
            value_length: or_head(keys.number("attention.value_length", MAX_SIZE)?),
            experts,
            experts_used,
            expert_feed_forward: keys.number("expert_feed_forward_length", MAX_SIZE)?,
            shared_feed_forward: keys.number("expert_shared_feed_forward_length", MAX_SIZE)?,
            full_attention_interval: positive(keys.number("full_attention_interval", MAX_LAYERS)?),
            ssm: (conv_kernel > 0).then_some(ssm),
            sliding_window: positive(keys.number("attention.sliding_window", MAX_SIZE)?),
            tokenizer: Tokenizer::read(gguf)?,
            architecture,
        })
    }
}

impl Tokenizer {
    fn read(gguf: &Gguf) -> Result<Self, GgufError> {
        let key = "tokenizer.ggml.model";
        let Some(tokenizer) = gguf.get(key).and_then(|value| value.as_str()) else {
            return Err(model(gguf, key, "is missing: the file has no vocabulary"));
        };
        let key = "tokenizer.ggml.tokens";
        let Some(tokens) = gguf
            .get(key)
            .and_then(|value| value.as_array())
            .filter(|tokens| tokens.element == ValueType::String && tokens.len > 0)
        else {
            return Err(model(gguf, key, "is missing: the file has no vocabulary"));
        };
        for key in ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
            if let Some(other) = gguf.get(key).and_then(|value| value.as_array())
                && other.len != tokens.len
            {
                let problem = format!("has {} entries, but there are {} tokens", other.len, tokens.len);
                return Err(model(gguf, key, &problem));
            }
        }
        if let Some(embedding) = gguf.tensors().iter().find(|tensor| tensor.name == "token_embd.weight")
            && embedding.shape[1] != tokens.len as u64
        {
            let problem = format!(
                "has {} tokens, but the embedding has {} rows",
                tokens.len, embedding.shape[1]
            );
            return Err(model(gguf, key, &problem));
        }
        let special = |name: &str| -> Result<Option<u32>, GgufError> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let Some(value) = gguf.get(&key) else { return Ok(None) };
            match value.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) if (id as usize) < tokens.len => Ok(Some(id)),
                _ => Err(model(
                    gguf,
                    &key,
                    &format!("is {value:?}, not one of the {} tokens", tokens.len),
                )),
            }
        };
        let token_text = |id: Option<u32>| {
            id.and_then(|id| tokens.strings().nth(id as usize))
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .unwrap_or_default()
        };
        for name in ["eot", "eom", "unknown", "seperator", "padding", "mask"] {
            special(name)?;
        }
        let (bos, eos) = (special("bos")?, special("eos")?);
        Ok(Self {
            model: tokenizer.to_owned(),
            pre: gguf
                .get("tokenizer.ggml.pre")
                .and_then(|value| value.as_str())
                .map(str::to_owned),
            vocabulary: u32::try_from(tokens.len).unwrap_or(u32::MAX),
            bos,
            eos,
            bos_text: token_text(bos),
            eos_text: token_text(eos),
            chat_template: gguf
                .get("tokenizer.chat_template")
                .and_then(|value| value.as_str())
                .map(str::to_owned),
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

    fn required(&self, name: &str, limit: u64) -> Result<u32, GgufError> {
        match self.number(name, limit)? {
            0 => Err(model(self.gguf, &self.key(name), "is missing or zero")),
            number => Ok(number),
        }
    }
}

fn model(gguf: &Gguf, key: &str, problem: &str) -> GgufError {
    GgufError::Model {
        path: gguf.path().to_owned(),
        key: key.to_owned(),
        problem: problem.to_owned(),
    }
}
