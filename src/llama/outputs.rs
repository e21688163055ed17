//! How many tokens of a pass have logits at most, which llama-cpp-2 cannot say.
//!
//! llama.cpp reserves memory for the logits of all tokens of a pass otherwise: 1.2 GiB with 2,048 tokens and a vocabulary of
//! 152,000, where one row for each stream is used.
#![expect(unsafe_code, reason = "llama-cpp-2 keeps llama.cpp's parameters to itself")]

use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_sys_2 as sys;

// The crate's parameters are llama.cpp's and nothing else: its version is pinned, and the test below looks.
const _: () = assert!(
    size_of::<LlamaContextParams>() == size_of::<sys::llama_context_params>()
        && align_of::<LlamaContextParams>() == align_of::<sys::llama_context_params>()
);

/// Parameters of a context in whose passes at most so many tokens have logits; no fewer than sequences. llama.cpp ends the
/// process when a pass has more.
#[must_use]
pub fn with_outputs(mut params: LlamaContextParams, outputs: u32) -> LlamaContextParams {
    // SAFETY: a struct of one field has its layout: size and alignment were compared.
    let raw = unsafe { &mut *(&raw mut params).cast::<sys::llama_context_params>() };
    raw.n_outputs_max = outputs.max(raw.n_seq_max);
    params
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn nothing_else_changes() {
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(12_345))
            .with_n_batch(678)
            .with_n_seq_max(9)
            .with_n_threads(10)
            .with_no_perf(true);
        let told = with_outputs(params.clone(), 20);
        // SAFETY: as in `with_outputs`.
        let raw = unsafe { &*(&raw const told).cast::<sys::llama_context_params>() };
        assert_eq!((raw.n_ctx, raw.n_batch, raw.n_seq_max), (12_345, 678, 9));
        assert_eq!((raw.n_threads, raw.no_perf, raw.n_outputs_max), (10, true, 20));
        let before = format!("{params:?}").replace("n_outputs_max: 0", "n_outputs_max: 20");
        assert_eq!(format!("{told:?}"), before);
        let least = with_outputs(params, 1);
        assert!(format!("{least:?}").contains("n_outputs_max: 9"));
    }
}
