//! Names of the tensors that hold routed experts.

use std::ffi::CString;

/// A pattern for the names of the experts in the first `layers` layers (all, if `None`), which stay in main memory; gate and
/// up may be one tensor. It is a regular expression as `std::regex` reads them.
///
/// Without a cache it is llama.cpp's own (`--n-cpu-moe`). With one, the scales of experts, a number each (NVFP4), are left
/// out: they are multiplied with on the GPU. In main memory they would be inputs of our part of the graph, and llama.cpp's
/// scheduler waits for what was computed before only where a part has no inputs.
#[must_use]
pub fn in_main_memory(layers: Option<u32>, cached: bool) -> Option<CString> {
    let numbers = match layers {
        Some(0) => return None,
        None => "\\d+".to_owned(),
        Some(layers) => (0..layers).map(|layer| layer.to_string()).collect::<Vec<_>>().join("|"),
    };
    let parts = if cached { "\\.(weight|bias)$" } else { "" };
    CString::new(format!(
        "^blk\\.({numbers})\\.ffn_(up|down|gate|gate_up)_(ch|)exps{parts}"
    ))
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(layers: Option<u32>, cached: bool) -> String {
        in_main_memory(layers, cached).unwrap().into_string().unwrap()
    }

    /// With a cache, scales go where their layer is: the pattern ends before them.
    #[test]
    fn scales_stay_with_the_layer_of_a_cache() {
        let cached = pattern(None, true);
        assert_eq!(
            cached,
            r"^blk\.(\d+)\.ffn_(up|down|gate|gate_up)_(ch|)exps\.(weight|bias)$"
        );
        // As llama.cpp's `--n-cpu-moe` has it: whatever belongs to the experts.
        assert_eq!(
            pattern(Some(3), false),
            r"^blk\.(0|1|2)\.ffn_(up|down|gate|gate_up)_(ch|)exps"
        );
        assert_eq!(in_main_memory(Some(0), false), None);
    }
}
