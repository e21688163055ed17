//! The processor's features, and which of them llama.cpp uses.

use std::sync::OnceLock;

use serde::Serialize;
use utoipa::ToSchema;

use crate::llama;

/// Never built, on purpose: `.cargo/config.toml` says why.
const SWITCHED_OFF: &str = "AMX_INT8";

/// Which features of the processor llama.cpp's code on the CPU uses. Names are llama.cpp's: `AVX2`, `AVX512_VNNI`,
/// `DOTPROD`, `MATMUL_INT8` (i8mm), and so on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Cpu {
    /// The features that the processor has, of those for which llama.cpp has code.
    pub features: Vec<String>,
    /// What llama.cpp was built with: features, and options such as `OPENMP` and `REPACK`.
    pub llama_cpp: Vec<String>,
    /// Features that the processor has and llama.cpp was not built for. AMX is not among them: hearth leaves it out on
    /// purpose (`.cargo/config.toml`).
    pub unused: Vec<String>,
}

impl Cpu {
    /// This processor. llama.cpp's backends must be loaded.
    pub fn this() -> &'static Self {
        static THIS: OnceLock<Cpu> = OnceLock::new();
        THIS.get_or_init(|| Self::new(llama::cpu::features(), &llama::cpu::build()))
    }

    fn new(features: Vec<String>, build: &str) -> Self {
        let llama_cpp = built_with(build);
        let unused = features
            .iter()
            .filter(|feature| !llama_cpp.contains(feature) && !feature.starts_with("AMX"))
            .cloned()
            .collect();
        Self {
            features,
            llama_cpp,
            unused,
        }
    }

    /// Says in the log what llama.cpp uses, and warns of what it leaves unused without need.
    pub fn log(&self) {
        tracing::info!(
            "llama.cpp is built with {}; the processor has {}",
            self.llama_cpp.join(" "),
            self.features.join(" ")
        );
        let unused: Vec<&str> = self
            .unused
            .iter()
            .map(String::as_str)
            .filter(|feature| *feature != SWITCHED_OFF)
            .collect();
        if !unused.is_empty() {
            tracing::warn!(
                "llama.cpp was built for less than this processor has and does not use {}: models compute slower than they \
                 could; scripts/serve builds for the machine it runs on",
                unused.join(" ")
            );
        }
    }
}

/// The words of the CPU in llama.cpp's line of `BACKEND : NAME = VALUE | NAME = VALUE | BACKEND : ...`.
fn built_with(line: &str) -> Vec<String> {
    let mut backend = "";
    let mut words = Vec::new();
    for part in line.split('|') {
        let setting = match part.split_once(" : ") {
            Some((name, setting)) => {
                backend = name.trim();
                setting
            }
            None => part,
        };
        if let ("CPU", Some((name, value))) = (backend, setting.split_once('=')) {
            // Most are switches; a few, such as the width of SVE's registers, are numbers.
            match value.trim() {
                "1" => words.push(name.trim().to_owned()),
                value => words.push(format!("{}={value}", name.trim())),
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{Cpu, built_with};

    const LINE: &str =
        "CUDA : ARCHS = 890 | USE_GRAPHS = 1 | CPU : SSE3 = 1 | AVX2 = 1 | SVE_CNT = 32 | OPENMP = 1 | BLAS : X = 1 | ";

    #[test]
    fn only_the_words_of_the_cpu_count() {
        assert_eq!(built_with(LINE), ["SSE3", "AVX2", "SVE_CNT=32", "OPENMP"]);
        assert!(built_with("").is_empty());
    }

    #[test]
    fn what_llama_cpp_was_not_built_for_is_unused() {
        let features = ["SSE3", "AVX2", "AVX512", "AMX_INT8"].map(str::to_owned);
        let cpu = Cpu::new(features.to_vec(), LINE);
        assert_eq!(cpu.unused, ["AVX512"]);
        let cpu = Cpu::new(features[..2].to_vec(), LINE);
        assert!(cpu.unused.is_empty());
    }
}
