//! The sizes of a recurrent state.

use serde::Serialize;

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
