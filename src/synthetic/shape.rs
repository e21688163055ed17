//! Shapes of model families, and the metadata that describes them.

use clap::ValueEnum;

use super::SyntheticError;
use crate::gguf::{self, GgufWriter, MAX_EXPERTS};

/// The supported architectures, by llama.cpp's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    Qwen3next,
    Qwen3moe,
    GptOss,
    Llama,
}

/// Everything that determines a model's size. Fields that an architecture does not use are zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    pub arch: Arch,
    pub name: String,
    /// Layers, without the MTP block.
    pub layers: u32,
    pub width: u32,
    pub heads: u32,
    pub kv_heads: u32,
    /// Elements of a head.
    pub head: u32,
    /// Elements of a head with rotary position embedding.
    pub rope: u32,
    pub rope_base: f32,
    /// Width of a dense feed-forward network.
    pub feed_forward: u32,
    pub experts: u32,
    pub experts_per_token: u32,
    pub expert_feed_forward: u32,
    pub shared_feed_forward: u32,
    pub vocabulary: u32,
    pub context: u32,
    /// Every n-th layer has attention, the others have a recurrent state.
    pub attention_interval: u32,
    /// Key and value heads of the recurrent state, and the elements of one.
    pub state_key_heads: u32,
    pub state_value_heads: u32,
    pub state: u32,
    pub sliding_window: u32,
    /// Adds a block for multi-token prediction after the layers.
    pub mtp: bool,
    /// The gate and up projections of the experts are one tensor (qwen3next).
    pub fused_gate_up: bool,
}

/// One token for each byte, and three control tokens.
pub(super) const MIN_VOCABULARY: u32 = 256 + 3;
/// Limit for each size: far beyond any model, and products of three stay below 2^63.
const MAX_SIZE: u32 = 1 << 20;
/// One block less than llama.cpp's limit: the one for multi-token prediction is a block too.
const MAX_LAYERS: u32 = gguf::MAX_LAYERS - 1;

/// Kernel size of the convolution in recurrent layers, in tokens.
pub(super) const CONVOLUTION: u32 = 4;

impl Shape {
    /// A preset of an architecture, by its name.
    #[must_use]
    pub fn preset(arch: Arch, name: &str) -> Option<Self> {
        let mut presets = Self::presets(arch).into_iter();
        presets.find_map(|(preset, shape)| (preset == name).then_some(shape))
    }

    /// The presets of an architecture, from its published configuration (`config.json` of the named model); `tiny` is for
    /// tests.
    #[must_use]
    pub fn presets(arch: Arch) -> Vec<(&'static str, Self)> {
        match arch {
            Arch::Qwen3next => {
                let real = Self {
                    arch,
                    name: "Qwen3-Next-80B-A3B shape, random weights".into(),
                    layers: 48,
                    width: 2048,
                    heads: 16,
                    kv_heads: 2,
                    head: 256,
                    rope: 64,
                    rope_base: 1e7,
                    feed_forward: 5120,
                    experts: 512,
                    experts_per_token: 10,
                    expert_feed_forward: 512,
                    shared_feed_forward: 512,
                    vocabulary: 151_936,
                    context: 262_144,
                    attention_interval: 4,
                    state_key_heads: 16,
                    state_value_heads: 32,
                    state: 128,
                    sliding_window: 0,
                    mtp: false,
                    fused_gate_up: false,
                };
                let tiny = Self {
                    layers: 4,
                    width: 256,
                    heads: 4,
                    kv_heads: 2,
                    head: 64,
                    rope: 16,
                    feed_forward: 256,
                    experts: 32,
                    experts_per_token: 4,
                    expert_feed_forward: 256,
                    shared_feed_forward: 256,
                    state_key_heads: 2,
                    state_value_heads: 4,
                    state: 32,
                    ..real.tiny()
                };
                vec![("80b-a3b", real), ("tiny", tiny)]
            }
            Arch::Qwen3moe => {
                let real = Self {
                    arch,
                    name: "Qwen3-30B-A3B shape, random weights".into(),
                    layers: 48,
                    width: 2048,
                    heads: 32,
                    kv_heads: 4,
                    head: 128,
                    rope: 128,
                    rope_base: 1e6,
                    feed_forward: 6144,
                    experts: 128,
                    experts_per_token: 8,
                    expert_feed_forward: 768,
                    vocabulary: 151_936,
                    context: 40_960,
                    ..Self::nothing(arch)
                };
                let tiny = Self {
                    layers: 3,
                    width: 256,
                    heads: 4,
                    kv_heads: 2,
                    head: 64,
                    rope: 64,
                    feed_forward: 512,
                    experts: 32,
                    experts_per_token: 4,
                    expert_feed_forward: 256,
                    ..real.tiny()
                };
                vec![("30b-a3b", real), ("tiny", tiny)]
            }
            Arch::GptOss => {
                let small = Self {
                    arch,
                    name: "gpt-oss-20b shape, random weights".into(),
                    layers: 24,
                    width: 2880,
                    heads: 64,
                    kv_heads: 8,
                    head: 64,
                    rope: 64,
                    rope_base: 150_000.0,
                    feed_forward: 2880,
                    experts: 32,
                    experts_per_token: 4,
                    expert_feed_forward: 2880,
                    vocabulary: 201_088,
                    context: 131_072,
                    sliding_window: 128,
                    ..Self::nothing(arch)
                };
                let large = Self {
                    name: "gpt-oss-120b shape, random weights".into(),
                    layers: 36,
                    experts: 128,
                    ..small
                };
                let tiny = Self {
                    layers: 4,
                    width: 256,
                    heads: 4,
                    kv_heads: 2,
                    head: 64,
                    feed_forward: 256,
                    experts: 32,
                    experts_per_token: 4,
                    expert_feed_forward: 256,
                    ..small.tiny()
                };
                vec![("20b", small), ("120b", large), ("tiny", tiny)]
            }
            Arch::Llama => {
                let real = Self {
                    arch,
                    name: "Mag-Mell-12B shape, random weights".into(),
                    layers: 40,
                    width: 5120,
                    heads: 32,
                    kv_heads: 8,
                    head: 128,
                    rope: 128,
                    rope_base: 1e6,
                    feed_forward: 14_336,
                    vocabulary: 131_072,
                    context: 131_072,
                    ..Self::nothing(arch)
                };
                let tiny = Self {
                    layers: 3,
                    width: 256,
                    heads: 4,
                    kv_heads: 2,
                    head: 64,
                    rope: 64,
                    feed_forward: 512,
                    ..real.tiny()
                };
                vec![("mag-mell-12b", real), ("tiny", tiny)]
            }
        }
    }

    fn nothing(arch: Arch) -> Self {
        Self {
            arch,
            name: String::new(),
            layers: 0,
            width: 0,
            heads: 0,
            kv_heads: 0,
            head: 0,
            rope: 0,
            rope_base: 0.0,
            feed_forward: 0,
            experts: 0,
            experts_per_token: 0,
            expert_feed_forward: 0,
            shared_feed_forward: 0,
            vocabulary: 0,
            context: 0,
            attention_interval: 0,
            state_key_heads: 0,
            state_value_heads: 0,
            state: 0,
            sliding_window: 0,
            mtp: false,
            fused_gate_up: false,
        }
    }

    /// The common part of all tiny presets.
    fn tiny(&self) -> Self {
        Self {
            name: format!("tiny {}, random weights", self.arch.as_str()),
            vocabulary: 512,
            context: 4096,
            ..*self
        }
    }

    /// Whether a layer has attention. The MTP block is the layer after the last.
    pub(super) fn has_attention(&self, layer: u32) -> bool {
        self.attention_interval == 0 || layer >= self.layers || (layer + 1).is_multiple_of(self.attention_interval)
    }

    /// Refuses shapes that llama.cpp would abort on or that no file can hold.
    pub(super) fn check(&self) -> Result<(), SyntheticError> {
        let wrong = |problem: String| Err(SyntheticError::Shape(problem));
        if self.layers == 0 || self.layers > MAX_LAYERS {
            return wrong(format!("layers must be 1 to {MAX_LAYERS}, not {}", self.layers));
        }
        if self.vocabulary < MIN_VOCABULARY || self.vocabulary > MAX_SIZE {
            return wrong(format!(
                "the vocabulary must have {MIN_VOCABULARY} to {MAX_SIZE} tokens, not {}",
                self.vocabulary
            ));
        }
        if self.context == 0 {
            return wrong("the context must not be 0".into());
        }
        if self.experts == 0 && self.arch != Arch::Llama {
            return wrong(format!("{} needs experts", self.arch.as_str()));
        }
        if self.experts > MAX_EXPERTS {
            return wrong(format!(
                "llama.cpp has at most {MAX_EXPERTS} experts, not {}",
                self.experts
            ));
        }
        if self.experts > 0 && (self.experts_per_token == 0 || self.experts_per_token > self.experts) {
            return wrong(format!(
                "{} of {} experts cannot be active",
                self.experts_per_token, self.experts
            ));
        }
        if self.mtp && self.arch != Arch::Qwen3next {
            return wrong(format!("{} has no MTP block", self.arch.as_str()));
        }
        if self.fused_gate_up && self.arch != Arch::Qwen3next {
            return wrong(format!("{} has gate and up apart", self.arch.as_str()));
        }
        Ok(())
    }

    /// Writes the metadata that llama.cpp reads.
    pub(super) fn metadata(&self, out: &mut GgufWriter, file_type: u32) {
        let arch = self.arch.as_str();
        let key = |name: &str| format!("{arch}.{name}");
        out.str("general.architecture", arch)
            .str("general.name", &self.name)
            .u32("general.file_type", file_type)
            .u32("general.quantization_version", 2);
        out.u32(&key("block_count"), self.layers + u32::from(self.mtp))
            .u32(&key("context_length"), self.context)
            .u32(&key("embedding_length"), self.width)
            .u32(&key("feed_forward_length"), self.feed_forward)
            .u32(&key("attention.head_count"), self.heads)
            .u32(&key("attention.head_count_kv"), self.kv_heads)
            .u32(&key("attention.key_length"), self.head)
            .u32(&key("attention.value_length"), self.head)
            .f32(&key("attention.layer_norm_rms_epsilon"), 1e-6)
            .u32(&key("rope.dimension_count"), self.rope)
            .f32(&key("rope.freq_base"), self.rope_base);
        if self.experts > 0 {
            out.u32(&key("expert_count"), self.experts)
                .u32(&key("expert_used_count"), self.experts_per_token)
                .u32(&key("expert_feed_forward_length"), self.expert_feed_forward);
        }
        if self.shared_feed_forward > 0 {
            out.u32(&key("expert_shared_feed_forward_length"), self.shared_feed_forward);
        }
        if self.sliding_window > 0 {
            out.u32(&key("attention.sliding_window"), self.sliding_window);
        }
        if self.arch == Arch::GptOss {
            // As published: trained for 4096 tokens, then stretched.
            out.str(&key("rope.scaling.type"), "yarn")
                .f32(&key("rope.scaling.factor"), 32.0)
                .u32(&key("rope.scaling.original_context_length"), 4096);
        }
        if self.attention_interval > 0 {
            out.u32(&key("full_attention_interval"), self.attention_interval)
                .u32(&key("ssm.conv_kernel"), CONVOLUTION)
                .u32(&key("ssm.state_size"), self.state)
                .u32(&key("ssm.group_count"), self.state_key_heads)
                .u32(&key("ssm.time_step_rank"), self.state_value_heads)
                .u32(&key("ssm.inner_size"), self.state * self.state_value_heads);
        }
        if self.mtp {
            out.u32(&key("nextn_predict_layers"), 1);
        }
        self.vocabulary(out);
    }

    /// A byte-level vocabulary: it can encode every text, and all other tokens have distinct texts.
    fn vocabulary(&self, out: &mut GgufWriter) {
        const NORMAL: i32 = 1;
        const CONTROL: i32 = 3;
        let filler = self.vocabulary - MIN_VOCABULARY;
        let mut tokens: Vec<String> = (0..=255).map(|byte| letter(byte).to_string()).collect();
        // `Ġ` stands for a space, as in every byte-level vocabulary.
        tokens.extend((0..filler).map(|number| format!("Ġw{number}")));
        tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned));
        let mut types = vec![NORMAL; tokens.len() - 3];
        types.extend([CONTROL; 3]);
        out.str("tokenizer.ggml.model", "gpt2")
            .str("tokenizer.ggml.pre", self.arch.pre_tokenizer())
            .strings("tokenizer.ggml.tokens", &tokens)
            .i32s("tokenizer.ggml.token_type", &types)
            .strings("tokenizer.ggml.merges", &["Ġ w"])
            .u32("tokenizer.ggml.bos_token_id", self.vocabulary - 3)
            .u32("tokenizer.ggml.padding_token_id", self.vocabulary - 3)
            .u32("tokenizer.ggml.eos_token_id", self.vocabulary - 1)
            .bool("tokenizer.ggml.add_bos_token", false);
    }
}

impl Arch {
    /// llama.cpp's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qwen3next => "qwen3next",
            Self::Qwen3moe => "qwen3moe",
            Self::GptOss => "gpt-oss",
            Self::Llama => "llama",
        }
    }
}

impl Arch {
    /// The pre-tokenizer of the real models, by llama.cpp's name.
    fn pre_tokenizer(self) -> &'static str {
        match self {
            Self::Qwen3next | Self::Qwen3moe => "qwen2",
            Self::GptOss => "gpt-4o",
            Self::Llama => "tekken",
        }
    }
}

/// The character for a byte in byte-level vocabularies (GPT-2): printable bytes map to themselves, the others to U+0100 and
/// the following ones, in order.
fn letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|other| !printable(*other)).count();
    u32::try_from(before)
        .ok()
        .and_then(|before| char::from_u32(0x100 + before))
        .unwrap_or('?')
}
