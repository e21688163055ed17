//! The tensors of each architecture, as llama.cpp's `src/models/*.cpp` load them.

use super::SyntheticError;
use super::mix::{Mix, Use};
use super::shape::{Arch, CONVOLUTION, Shape};
use crate::gguf::TensorType;

/// A tensor to write.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) kind: TensorType,
    /// The fastest dimension first.
    pub(super) dims: Vec<u64>,
    pub(super) values: Values,
}

/// The distribution of a tensor's values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Values {
    /// Constant.
    Constant(f32),
    /// Uniform between two numbers.
    Between(f32, f32),
    /// Normal around zero, with this standard deviation.
    Spread(f32),
    /// One row per expert; see [`super::Synthetic::skew`].
    Router(f32),
}

struct Planner<'a> {
    shape: &'a Shape,
    mix: &'a Mix,
    layer: u32,
    out: Vec<Planned>,
}

pub(super) fn plan(shape: &Shape, mix: &Mix) -> Result<Vec<Planned>, SyntheticError> {
    let mut planner = Planner {
        shape,
        mix,
        layer: 0,
        out: Vec::new(),
    };
    let (width, vocabulary) = (shape.width, shape.vocabulary);
    planner.push(
        "token_embd.weight",
        Use::Weight,
        &[width, vocabulary],
        Values::Spread(0.5),
    )?;
    planner.constant("output_norm.weight", width, 1.0)?;
    // Large enough that rounding does not decide which token is most likely.
    let spread = Values::Spread(over_root(4.0, width));
    planner.push("output.weight", Use::Output, &[width, vocabulary], spread)?;
    for layer in 0..shape.layers + u32::from(shape.mtp) {
        planner.layer = layer;
        planner.block()?;
    }
    Ok(planner.out)
}

/// The standard deviation of weights for which a sum over `inputs` values of magnitude 1 has the magnitude `gain`.
#[expect(clippy::cast_possible_truncation, reason = "an F32 is wanted")]
fn over_root(gain: f64, inputs: u32) -> f32 {
    (gain / f64::from(inputs).sqrt()) as f32
}

impl Planner<'_> {
    fn push(&mut self, name: &str, purpose: Use, dims: &[u32], values: Values) -> Result<(), SyntheticError> {
        let dims: Vec<u64> = dims.iter().map(|size| u64::from(*size)).collect();
        let kind = self.mix.choose(purpose, self.layer, self.shape.layers, dims[0])?;
        if dims.contains(&0) {
            return Err(SyntheticError::Shape(format!("{name} would be empty")));
        }
        self.out.push(Planned {
            name: name.to_owned(),
            kind,
            dims,
            values,
        });
        Ok(())
    }

    /// A small constant tensor.
    fn constant(&mut self, name: &str, size: u32, value: f32) -> Result<(), SyntheticError> {
        self.push(name, Use::Exact, &[size], Values::Constant(value))
    }

    fn name(&self, name: &str) -> String {
        format!("blk.{}.{name}", self.layer)
    }

    /// A projection from `dims[0]` values; outputs have about the magnitude of the inputs.
    fn project(&mut self, name: &str, purpose: Use, dims: &[u32]) -> Result<(), SyntheticError> {
        let spread = Values::Spread(over_root(1.0, dims[0]));
        let name = self.name(&format!("{name}.weight"));
        self.push(&name, purpose, dims, spread)
    }

    /// The weights of all routed experts; with NVFP4 also a scale for each expert.
    fn routed(&mut self, name: &str, purpose: Use, dims: &[u32; 3]) -> Result<(), SyntheticError> {
        self.project(name, purpose, dims)?;
        if self.out.last().is_some_and(|tensor| tensor.kind.name == "NVFP4") {
            let name = self.name(&format!("{name}.scale"));
            self.push(&name, Use::Exact, &[dims[2]], Values::Between(0.8, 1.25))?;
        }
        Ok(())
    }

    fn norm(&mut self, name: &str, size: u32) -> Result<(), SyntheticError> {
        let name = self.name(&format!("{name}.weight"));
        self.constant(&name, size, 1.0)
    }

    fn bias(&mut self, name: &str, dims: &[u32]) -> Result<(), SyntheticError> {
        let name = self.name(&format!("{name}.bias"));
        self.push(&name, Use::Exact, dims, Values::Spread(0.1))
    }

    fn block(&mut self) -> Result<(), SyntheticError> {
        let s = self.shape;
        self.norm("attn_norm", s.width)?;
        if s.has_attention(self.layer) {
            self.attention()?;
        } else {
            self.recurrent()?;
        }
        self.norm(
            match s.arch {
                Arch::Qwen3next | Arch::GptOss => "post_attention_norm",
                Arch::Qwen3moe | Arch::Llama => "ffn_norm",
            },
            s.width,
        )?;
        if s.experts > 0 {
            self.experts()?;
        } else {
            self.project("ffn_gate", Use::Weight, &[s.width, s.feed_forward])?;
            self.project("ffn_up", Use::Weight, &[s.width, s.feed_forward])?;
            self.project("ffn_down", Use::Sensitive, &[s.feed_forward, s.width])?;
        }
        if self.layer >= s.layers {
            self.project("nextn.eh_proj", Use::Weight, &[2 * s.width, s.width])?;
            self.norm("nextn.enorm", s.width)?;
            self.norm("nextn.hnorm", s.width)?;
            self.norm("nextn.shared_head_norm", s.width)?;
        }
        Ok(())
    }

    fn attention(&mut self) -> Result<(), SyntheticError> {
        let s = self.shape;
        // Qwen3-Next's query projection includes a gate.
        let queries = s.heads * s.head * if s.arch == Arch::Qwen3next { 2 } else { 1 };
        self.project("attn_q", Use::Weight, &[s.width, queries])?;
        self.project("attn_k", Use::Weight, &[s.width, s.kv_heads * s.head])?;
        self.project("attn_v", Use::Sensitive, &[s.width, s.kv_heads * s.head])?;
        self.project("attn_output", Use::Weight, &[s.heads * s.head, s.width])?;
        match s.arch {
            Arch::Qwen3next | Arch::Qwen3moe => {
                self.norm("attn_q_norm", s.head)?;
                self.norm("attn_k_norm", s.head)?;
            }
            Arch::GptOss => {
                self.bias("attn_q", &[queries])?;
                self.bias("attn_k", &[s.kv_heads * s.head])?;
                self.bias("attn_v", &[s.kv_heads * s.head])?;
                self.bias("attn_output", &[s.width])?;
                let name = self.name("attn_sinks.weight");
                self.push(&name, Use::Exact, &[s.heads], Values::Spread(0.5))?;
            }
            Arch::Llama => {}
        }
        Ok(())
    }

    /// A Gated DeltaNet layer.
    fn recurrent(&mut self) -> Result<(), SyntheticError> {
        let s = self.shape;
        let (keys, values) = (s.state * s.state_key_heads, s.state * s.state_value_heads);
        self.project("attn_qkv", Use::Weight, &[s.width, 2 * keys + values])?;
        self.project("attn_gate", Use::Weight, &[s.width, values])?;
        self.project("ssm_ba", Use::Weight, &[s.width, 2 * s.state_value_heads])?;
        self.project("ssm_out", Use::Weight, &[values, s.width])?;
        self.norm("ssm_norm", s.state)?;
        let name = self.name("ssm_conv1d.weight");
        self.push(
            &name,
            Use::Exact,
            &[CONVOLUTION, 2 * keys + values],
            Values::Spread(0.5),
        )?;
        // Decay rates from slow to fast.
        let name = self.name("ssm_a");
        self.push(&name, Use::Exact, &[s.state_value_heads], Values::Between(-4.0, -0.05))?;
        let name = self.name("ssm_dt.bias");
        self.push(&name, Use::Exact, &[s.state_value_heads], Values::Between(-4.0, 1.0))
    }

    fn experts(&mut self) -> Result<(), SyntheticError> {
        let s = self.shape;
        let (width, hidden, count) = (s.width, s.expert_feed_forward, s.experts);
        let router = Values::Router(over_root(2.0, width));
        let name = self.name("ffn_gate_inp.weight");
        self.push(&name, Use::Exact, &[width, count], router)?;
        if s.fused_gate_up {
            self.routed("ffn_gate_up_exps", Use::Expert, &[width, 2 * hidden, count])?;
        } else {
            self.routed("ffn_gate_exps", Use::Expert, &[width, hidden, count])?;
            self.routed("ffn_up_exps", Use::Expert, &[width, hidden, count])?;
        }
        self.routed("ffn_down_exps", Use::ExpertDown, &[hidden, width, count])?;
        if s.arch == Arch::GptOss {
            self.bias("ffn_gate_inp", &[count])?;
            self.bias("ffn_gate_exps", &[hidden, count])?;
            self.bias("ffn_up_exps", &[hidden, count])?;
            self.bias("ffn_down_exps", &[width, count])?;
        }
        if s.shared_feed_forward > 0 {
            let name = self.name("ffn_gate_inp_shexp.weight");
            self.push(&name, Use::Exact, &[width], Values::Spread(over_root(1.0, width)))?;
            self.project("ffn_gate_shexp", Use::Weight, &[width, s.shared_feed_forward])?;
            self.project("ffn_up_shexp", Use::Weight, &[width, s.shared_feed_forward])?;
            self.project("ffn_down_shexp", Use::Sensitive, &[s.shared_feed_forward, width])?;
        }
        Ok(())
    }
}
