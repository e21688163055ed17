//! What a model weighs, component by component and layer by layer: its tensor directory, added up.

use std::collections::BTreeMap;

use serde::Serialize;

use super::sliding;
use crate::gguf::{Geometry, Gguf, GgufError, SsmGeometry, TensorInfo};

/// Part of a model that is placed as a whole. The order is that of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    Attention,
    RecurrentLayers,
    Routers,
    SharedExperts,
    RoutedExperts,
    FeedForward,
    Norms,
    Output,
    Embeddings,
    Mtp,
    Other,
}

impl Component {
    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::RecurrentLayers => "recurrent layers",
            Self::Routers => "routers",
            Self::SharedExperts => "shared experts",
            Self::RoutedExperts => "routed experts",
            Self::FeedForward => "feed-forward",
            Self::Norms => "norms and other",
            Self::Output => "output",
            Self::Embeddings => "embeddings",
            Self::Mtp => "MTP",
            Self::Other => "other",
        }
    }

    /// The part that a tensor belongs to, by llama.cpp's names (`src/llama-arch.cpp`).
    #[must_use]
    pub fn of(tensor: &TensorInfo, geometry: &Geometry) -> Self {
        let name = tensor.name.as_str();
        let Some((number, rest)) = block(name) else {
            return match name {
                _ if name.starts_with("token_embd") => Self::Embeddings,
                _ if name.starts_with("output.") => Self::Output,
                _ => Self::Other,
            };
        };
        if number >= geometry.layers {
            return Self::Mtp;
        }
        Self::within(rest, geometry)
    }

    /// The part of a layer that a tensor belongs to.
    fn within(rest: &str, geometry: &Geometry) -> Self {
        match rest {
            _ if rest.contains("_exps") => Self::RoutedExperts,
            _ if rest.contains("shexp") => Self::SharedExperts,
            _ if rest.starts_with("ffn_gate_inp") => Self::Routers,
            _ if rest.starts_with("ssm_") || rest.starts_with("attn_qkv") || rest.starts_with("attn_gate") => {
                if geometry.ssm.is_some() {
                    Self::RecurrentLayers
                } else {
                    Self::Attention
                }
            }
            _ if rest.starts_with("attn_") && !rest.contains("norm.") => Self::Attention,
            _ if rest.starts_with("ffn_") && !rest.contains("norm.") => Self::FeedForward,
            _ => Self::Norms,
        }
    }
}

/// The layer of a tensor and the rest of its name.
fn block(name: &str) -> Option<(u32, &str)> {
    let (number, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// Wider than the rows of any model; arithmetic on it stays far from overflow.
const MAX_WIDTH: u64 = 1 << 24;

/// All that a plan needs to know of a model. Amounts are bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelShape {
    pub architecture: String,
    /// Layers that every token passes.
    pub layers: Vec<LayerShape>,
    /// Blocks for multi-token prediction; llama.cpp leaves them in the file where they are not used.
    pub mtp_layers: u32,
    /// The first of them.
    #[serde(skip)]
    pub head: Option<LayerShape>,
    /// Weights outside of the layers, those of prediction blocks among them.
    pub outer: BTreeMap<Component, u64>,
    /// The output's weights are the embeddings'.
    pub tied: bool,
    /// Width of the residual stream.
    pub width: u64,
    pub vocabulary: u64,
    /// Elements of a head of keys and of one of values; quantised ones are made of whole blocks of them.
    pub key_length: u64,
    pub value_length: u64,
    pub experts: u32,
    /// Experts that compute a token.
    pub experts_per_token: u32,
    /// State of a recurrent layer.
    pub ssm: Option<SsmGeometry>,
    /// Tokens that a layer with a sliding window looks back, if there are any.
    pub sliding_window: Option<u32>,
}

/// One layer of a [`ModelShape`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LayerShape {
    /// Bytes of its weights.
    pub weights: BTreeMap<Component, u64>,
    /// Bytes of the largest tensor of its routed experts, and of the largest of all.
    pub largest_experts: u64,
    pub largest: u64,
    /// Bytes of one routed expert; 0 in a layer without.
    pub expert: u64,
    /// Elements of one token's keys and values; 0 in a layer without attention.
    pub keys: u64,
    pub values: u64,
    /// Attention sees only a window.
    pub sliding: bool,
    /// Has a recurrent state.
    pub recurrent: bool,
    /// Widest hidden values of one token: queries, feed-forward network, one expert.
    pub queries: u64,
    pub feed_forward: u64,
    pub expert_feed_forward: u64,
}

impl LayerShape {
    /// Bytes of all weights.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.weights.values().sum()
    }

    /// Bytes of the routed experts.
    #[must_use]
    pub fn experts(&self) -> u64 {
        self.weights.get(&Component::RoutedExperts).copied().unwrap_or(0)
    }

    fn add(&mut self, rest: &str, tensor: &TensorInfo, component: Component, geometry: &Geometry) {
        *self.weights.entry(component).or_default() += tensor.bytes;
        self.largest = self.largest.max(tensor.bytes);
        // A matrix has its inputs in the first dimension and its outputs in the second.
        let outputs = tensor.shape[1].min(MAX_WIDTH);
        match component {
            Component::RoutedExperts => {
                self.largest_experts = self.largest_experts.max(tensor.bytes);
                self.expert += tensor.bytes / u64::from(geometry.experts.max(1));
                if tensor.dimensions == 3 && !rest.contains("down") {
                    self.expert_feed_forward = self.expert_feed_forward.max(outputs);
                }
            }
            Component::FeedForward if tensor.dimensions == 2 && !rest.contains("down") => {
                self.feed_forward = self.feed_forward.max(outputs);
            }
            Component::RecurrentLayers if rest.starts_with("ssm_") => self.recurrent = true,
            _ => {}
        }
        match rest {
            "attn_q.weight" | "attn_q_b.weight" => self.queries = outputs,
            "attn_k.weight" => self.keys = outputs,
            "attn_v.weight" => self.values = outputs,
            // Latent attention keeps the compressed keys alone, which serve as values too.
            "attn_kv_a_mqa.weight" => self.keys = outputs,
            _ => {}
        }
    }

    /// Attention whose queries, keys and values come from one matrix.
    fn add_fused(&mut self, geometry: &Geometry) {
        if self.keys == 0 && !self.recurrent && self.weights.contains_key(&Component::Attention) {
            let row = |heads: u32, length: u32| (u64::from(heads) * u64::from(length)).min(MAX_WIDTH);
            self.queries = row(geometry.heads, geometry.key_length);
            self.keys = row(geometry.kv_heads, geometry.key_length);
            self.values = row(geometry.kv_heads, geometry.value_length);
        }
    }
}

impl ModelShape {
    /// Adds up the tensor directory of a file. Only its header is read.
    ///
    /// # Errors
    /// [`GgufError::Model`] when the header does not describe a model.
    pub fn read(gguf: &Gguf) -> Result<Self, GgufError> {
        Ok(Self::with_tensors(gguf, &gguf.geometry()?, gguf.tensors()))
    }

    /// As if the tensors of a file with this geometry were these: the same ones, of other data types.
    #[must_use]
    pub fn with_tensors(gguf: &Gguf, geometry: &Geometry, tensors: &[TensorInfo]) -> Self {
        let mut layers = vec![LayerShape::default(); geometry.layers as usize];
        let mut outer = BTreeMap::new();
        let mut head = (geometry.mtp_layers > 0).then(LayerShape::default);
        for tensor in tensors {
            let component = Component::of(tensor, geometry);
            if let (Some(head), Some((number, rest))) = (&mut head, block(&tensor.name))
                && number == geometry.layers
            {
                head.add(rest, tensor, Component::within(rest, geometry), geometry);
            }
            let layer = block(&tensor.name)
                .and_then(|(number, rest)| Some((layers.get_mut(usize::try_from(number).ok()?)?, rest)));
            match layer {
                Some((layer, rest)) => layer.add(rest, tensor, component, geometry),
                None => *outer.entry(component).or_default() += tensor.bytes,
            }
        }
        let window = sliding::layers(gguf, geometry);
        for (number, layer) in layers.iter_mut().enumerate() {
            layer.add_fused(geometry);
            layer.sliding = window.get(number).copied().unwrap_or(false);
        }
        Self {
            layers,
            mtp_layers: geometry.mtp_layers,
            head,
            tied: !outer.contains_key(&Component::Output),
            outer,
            width: geometry.embedding.into(),
            vocabulary: geometry.tokenizer.vocabulary.into(),
            key_length: geometry.key_length.into(),
            value_length: geometry.value_length.into(),
            experts: geometry.experts,
            experts_per_token: geometry.experts_per_token,
            ssm: geometry.ssm,
            sliding_window: geometry.sliding_window.filter(|_| window.contains(&true)),
            architecture: geometry.architecture.clone(),
        }
    }

    fn outer(&self, component: Component) -> u64 {
        self.outer.get(&component).copied().unwrap_or(0)
    }

    /// Bytes of the token embeddings, which llama.cpp keeps in main memory.
    #[must_use]
    pub fn embeddings(&self) -> u64 {
        self.outer(Component::Embeddings)
    }

    /// Bytes of the output and what belongs to it; with tied weights a second copy of the embeddings where the output is
    /// on a GPU.
    #[must_use]
    pub fn output(&self) -> u64 {
        let own = if self.tied {
            Component::Embeddings
        } else {
            Component::Output
        };
        self.outer(own) + self.outer(Component::Other)
    }

    /// Bytes of all routed experts.
    #[must_use]
    pub fn routed_experts(&self) -> u64 {
        self.layers.iter().map(LayerShape::experts).sum()
    }

    /// Bytes of one cache entry in every layer that has experts.
    #[must_use]
    pub fn cache_entry(&self) -> u64 {
        self.layers.iter().map(|layer| layer.expert).sum()
    }

    /// Bytes of all weights, with those of the prediction blocks: llama.cpp maps them though it does not use them.
    #[must_use]
    pub fn weights(&self) -> u64 {
        let outer: u64 = self.outer.values().sum();
        outer + self.layers.iter().map(LayerShape::bytes).sum::<u64>()
    }
}
