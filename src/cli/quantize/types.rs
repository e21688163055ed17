//! What files can be quantized to.

use crate::gguf::TensorType;

/// A mix of data types that llama.cpp makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: &'static str,
    /// llama.cpp's number (`enum llama_ftype`) of what is written into the file.
    pub(super) file_type: u32,
    /// The type of most weights.
    pub(super) base: &'static str,
    /// llama.cpp refuses to make it without an importance matrix.
    pub(super) needs_importance: bool,
    pub(super) about: &'static str,
}

const fn target(name: &'static str, file_type: u32, base: &'static str, about: &'static str) -> Target {
    Target {
        name,
        file_type,
        base,
        needs_importance: false,
        about,
    }
}

const fn important(name: &'static str, file_type: u32, base: &'static str, about: &'static str) -> Target {
    Target {
        needs_importance: true,
        ..target(name, file_type, base, about)
    }
}

/// All types, the most exact first.
pub(super) const TARGETS: &[Target] = &[
    target("f32", 0, "F32", "exact, for converting"),
    target("bf16", 32, "BF16", "as most models are trained"),
    target("f16", 1, "F16", "hardly less exact; a good start for quantizing"),
    target("q8_0", 7, "Q8_0", "no loss that can be noticed; like FP8 in size"),
    target("q6_k", 18, "Q6_K", "very small loss"),
    target("q5_1", 9, "Q5_1", "old; q5_k_m is better"),
    target("q5_k_m", 17, "Q5_K", "small loss"),
    target("q5_k_s", 16, "Q5_K", "small loss"),
    target("q5_0", 8, "Q5_0", "old; q5_k_m is better"),
    target("q4_1", 3, "Q4_1", "old; q4_k_m is better"),
    target("q4_k_m", 15, "Q4_K", "the usual choice: like INT4 in size, small loss"),
    target("q4_k_s", 14, "Q4_K", "a little smaller"),
    target("q4_0", 2, "Q4_0", "old, and fast on some processors"),
    target(
        "nvfp4",
        39,
        "NVFP4",
        "experts in NVIDIA's 4-bit floats, the rest in q8_0",
    ),
    target("iq4_nl", 25, "IQ4_NL", "for odd row lengths"),
    target(
        "mxfp4",
        38,
        "MXFP4",
        "experts in 4-bit floats as gpt-oss has them, the rest in q8_0",
    ),
    target("iq4_xs", 30, "IQ4_XS", "smaller than q4_k_s, about as good"),
    target("q3_k_l", 13, "Q3_K", "noticeable loss"),
    target("q3_k_m", 12, "Q3_K", "noticeable loss"),
    target("q3_k_s", 11, "Q3_K", "large loss"),
    target("iq3_m", 27, "IQ3_S", "better than q3_k_m"),
    target("iq3_s", 26, "IQ3_S", "noticeable loss"),
    important("iq3_xs", 22, "IQ3_S", "noticeable loss"),
    important("iq3_xxs", 23, "IQ3_XXS", "large loss"),
    target("q2_k", 10, "Q2_K", "large loss"),
    important("q2_k_s", 21, "Q2_K", "large loss"),
    important("iq2_m", 29, "IQ2_S", "large loss"),
    important("iq2_s", 28, "IQ2_XS", "large loss"),
    important("iq2_xs", 20, "IQ2_XS", "very large loss"),
    important("iq2_xxs", 19, "IQ2_XXS", "very large loss"),
    important("iq1_m", 31, "IQ1_M", "for trying"),
    important("iq1_s", 24, "IQ1_S", "for trying"),
    target("tq2_0", 37, "TQ2_0", "only for models with ternary weights"),
    target("tq1_0", 36, "TQ1_0", "only for models with ternary weights"),
];

impl Target {
    /// The type with this name, in any case and with dashes or underscores.
    pub(super) fn from_name(name: &str) -> Option<&'static Self> {
        let name = name.to_lowercase().replace('-', "_");
        let name = match name.as_str() {
            "q3_k" => "q3_k_m",
            "q4_k" => "q4_k_m",
            "q5_k" => "q5_k_m",
            "mxfp4_moe" => "mxfp4",
            name => name,
        };
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Bits of most weights.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    pub(super) fn bits(&self) -> f64 {
        TensorType::from_name(self.base).map_or(0.0, |kind| kind.bytes as f64 * 8.0 / kind.block as f64)
    }

    /// The mix that llama.cpp is asked for: for the 4-bit floats it is q8_0, in which experts get their own type.
    pub(super) fn asked(&self) -> u32 {
        const Q8_0: u32 = 7;
        if self.own_type().is_some() {
            Q8_0
        } else {
            self.file_type
        }
    }

    /// ggml's number of the type that only the large tensors get: llama.cpp makes no file of NVFP4 by itself, and one of MXFP4
    /// only of models with experts.
    pub(super) fn own_type(&self) -> Option<u32> {
        let own = ["MXFP4", "NVFP4"].contains(&self.base);
        own.then(|| TensorType::from_name(self.base).map(|kind| kind.id))
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::file_type_name;

    #[test]
    fn all_types_are_known_by_ggml_and_have_llama_cpps_numbers() {
        for target in TARGETS {
            assert!(target.bits() > 0.5, "{}", target.name);
            assert_eq!(
                file_type_name(u64::from(target.file_type)),
                Some(target.name.to_uppercase().as_str())
            );
            assert_eq!(Target::from_name(&target.name.to_uppercase()), Some(target));
        }
        assert_eq!(Target::from_name("Q4-K").unwrap().name, "q4_k_m");
        assert_eq!(Target::from_name("q9"), None);
        assert!(TARGETS.is_sorted_by(|a, b| a.bits() >= b.bits() || a.bits() + 0.6 > b.bits()));
    }

    #[test]
    fn four_bit_floats_are_for_the_large_tensors() {
        let nvfp4 = Target::from_name("nvfp4").unwrap();
        assert_eq!((nvfp4.asked(), nvfp4.own_type()), (7, Some(40)));
        let usual = Target::from_name("q4_k_m").unwrap();
        assert_eq!((usual.asked(), usual.own_type()), (15, None));
    }
}
