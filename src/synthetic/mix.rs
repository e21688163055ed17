//! Data types by tensor: simplified versions of the mixes of `llama-quantize`.

use super::SyntheticError;
use crate::gguf::{TensorInfo, TensorType};

/// A mix of data types.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// llama.cpp's number of the mix (`enum llama_ftype`).
    pub file_type: u32,
    /// Most weights.
    base: TensorType,
    /// Value and down projections of some layers, which lose most by quantization.
    better: TensorType,
    /// The output head, and the embedding if it is tied to it.
    output: TensorType,
    /// Routed experts, where they differ.
    experts: Option<TensorType>,
}

/// name, file type, base, better, output, experts
type Row = (
    &'static str,
    u32,
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
);

const MIXES: &[Row] = &[
    ("f32", 0, "F32", "F32", "F32", None),
    ("f16", 1, "F16", "F16", "F16", None),
    ("bf16", 32, "BF16", "BF16", "BF16", None),
    ("q8_0", 7, "Q8_0", "Q8_0", "Q8_0", None),
    ("q4_0", 2, "Q4_0", "Q4_0", "Q6_K", None),
    ("q5_0", 8, "Q5_0", "Q5_0", "Q6_K", None),
    ("q2_k", 10, "Q2_K", "Q3_K", "Q6_K", None),
    ("q3_k_m", 12, "Q3_K", "Q4_K", "Q6_K", None),
    ("q4_k_s", 14, "Q4_K", "Q4_K", "Q6_K", None),
    ("q4_k_m", 15, "Q4_K", "Q6_K", "Q6_K", None),
    ("q5_k_m", 17, "Q5_K", "Q6_K", "Q6_K", None),
    ("q6_k", 18, "Q6_K", "Q6_K", "Q6_K", None),
    ("iq2_xxs", 19, "IQ2_XXS", "IQ2_XXS", "Q6_K", None),
    ("iq3_xxs", 23, "IQ3_XXS", "IQ3_XXS", "Q6_K", None),
    ("iq4_nl", 25, "IQ4_NL", "IQ4_NL", "Q6_K", None),
    ("iq4_xs", 30, "IQ4_XS", "IQ4_XS", "Q6_K", None),
    ("mxfp4", 38, "Q8_0", "Q8_0", "Q8_0", Some("MXFP4")),
    ("nvfp4", 39, "Q8_0", "Q8_0", "Q8_0", Some("NVFP4")),
];

/// The names of all mixes.
pub fn mix_names() -> impl Iterator<Item = &'static str> {
    MIXES.iter().map(|row| row.0)
}

/// The role of a tensor, as far as its type depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Always F32: norms, routers, small recurrent parameters, biases.
    Exact,
    Weight,
    /// Values and down projections.
    Sensitive,
    Expert,
    ExpertDown,
    Output,
}

impl Mix {
    /// The mix with this name, in any case.
    ///
    /// # Errors
    /// An unknown name, with the known ones.
    pub fn from_name(name: &str) -> Result<Self, SyntheticError> {
        let found = MIXES.iter().find(|row| row.0.eq_ignore_ascii_case(name));
        let kind = |name: &str| {
            TensorType::from_name(name).ok_or_else(|| SyntheticError::Shape(format!("there is no data type {name}")))
        };
        let Some((_, file_type, base, better, output, experts)) = found else {
            let known: Vec<_> = mix_names().collect();
            let problem = format!("there is no type `{name}`; known are {}", known.join(", "));
            return Err(SyntheticError::Shape(problem));
        };
        Ok(Self {
            file_type: *file_type,
            base: kind(base)?,
            better: kind(better)?,
            output: kind(output)?,
            experts: experts.map(kind).transpose()?,
        })
    }

    /// The tensors of a model with so many layers, as they would be in a file of this mix. Offsets are those of the file that they
    /// are from.
    ///
    /// # Errors
    /// Rows that fit no data type.
    pub fn retype(&self, tensors: &[TensorInfo], layers: u32) -> Result<Vec<TensorInfo>, SyntheticError> {
        let tied = !tensors.iter().any(|tensor| tensor.name == "output.weight");
        let retyped = tensors.iter().map(|tensor| {
            let (purpose, layer) = purpose(tensor, tied);
            let kind = match purpose {
                // As it is: llama-quantize leaves these alone.
                Use::Exact => tensor.kind,
                purpose => self.choose(purpose, layer, layers, tensor.shape[0])?,
            };
            let bytes = tensor.elements() / kind.block * kind.bytes;
            Ok(TensorInfo {
                kind,
                bytes,
                ..tensor.clone()
            })
        });
        retyped.collect()
    }

    /// The type of a tensor in a layer with rows of `row` weights.
    pub(super) fn choose(&self, purpose: Use, layer: u32, layers: u32, row: u64) -> Result<TensorType, SyntheticError> {
        let sensitive = |base| if precise(layer, layers) { self.better } else { base };
        let wanted = match purpose {
            Use::Exact => TensorType::from_name("F32").unwrap_or(self.base),
            Use::Weight => self.base,
            Use::Sensitive => sensitive(self.base),
            Use::Expert => self.experts.unwrap_or(self.base),
            Use::ExpertDown => self.experts.unwrap_or_else(|| sensitive(self.base)),
            Use::Output => self.output,
        };
        fitting(wanted, row)
    }
}

/// What a tensor is for, by its name, and its layer.
fn purpose(tensor: &TensorInfo, tied: bool) -> (Use, u32) {
    let name = tensor.name.as_str();
    let layer = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split('.').next()?.parse().ok());
    let exact = tensor.dimensions < 2
        || !name.ends_with(".weight")
        || ["_norm.", "ffn_gate_inp", "ssm_conv1d"]
            .iter()
            .any(|part| name.contains(part));
    let purpose = match name {
        _ if exact => Use::Exact,
        "output.weight" => Use::Output,
        "token_embd.weight" if tied => Use::Output,
        _ if name.contains("ffn_down_exps") => Use::ExpertDown,
        _ if name.contains("_exps") => Use::Expert,
        _ if name.contains("attn_v.") || name.contains("ffn_down") => Use::Sensitive,
        _ => Use::Weight,
    };
    (purpose, layer.unwrap_or(0))
}

/// The layers whose sensitive tensors `llama-quantize` keeps more precise: the first and last eighth, and every third
/// between (`use_more_bits` in `src/llama-quant.cpp`).
fn precise(layer: u32, layers: u32) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// Falls back to a type with smaller blocks when rows are not whole blocks, as `llama-quantize` does.
fn fitting(wanted: TensorType, row: u64) -> Result<TensorType, SyntheticError> {
    let mut kind = wanted;
    loop {
        if row.is_multiple_of(kind.block) {
            return Ok(kind);
        }
        let next = match kind.name {
            "Q2_K" | "Q3_K" | "IQ4_XS" | "IQ2_XXS" | "IQ3_XXS" => "IQ4_NL",
            "Q4_K" => "Q5_0",
            "Q5_K" | "Q6_K" => "Q8_0",
            _ => "F16",
        };
        kind = TensorType::from_name(next)
            .filter(|next| next.block < kind.block)
            .ok_or_else(|| SyntheticError::Shape(format!("rows of {row} weights fit no data type")))?;
    }
}
