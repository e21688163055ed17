//! The numbers that the estimates of speed rest on, in one place, each with its source: what is measured on a GPU goes here.
//!
//! docs/planning.md says how to get them from a run of `scripts/gpu-campaign`.

/// What a machine reaches, and what it costs that two devices work on one layer. Times are seconds, rates bytes or operations per
/// second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calibration {
    pub ram_bandwidth: f64,
    /// Of a GPU that is not in the list, and of one in unified memory.
    pub gpu_bandwidth: f64,
    pub unified_bandwidth: f64,
    /// The share of a bandwidth that decoding reaches.
    pub reached: f64,
    /// From main memory to a GPU of its own.
    pub bus_bandwidth: f64,
    /// The same where files are mapped: such memory is not pinned, and copied once more on its way.
    pub mapped_bandwidth: f64,
    /// What a prompt reaches, on a GPU and on a CPU.
    pub gpu_operations: f64,
    pub cpu_operations: f64,
    pub hand_over: HandOver,
    /// The share of selected experts that have a copy, by the share of experts that have one, joined by straight lines.
    pub hits: [(f64, f64); 5],
    /// How often a guess of the head is right, if those before it were.
    pub right_guesses: f64,
}

/// What it costs that the GPU hands a layer's experts to the CPU and takes the result back, beside the weights that both read:
/// waiting for each other, copies of activations, launches. Of each layer on the GPU, once in a pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct HandOver {
    /// Some of the layer's experts have copies on the GPU.
    pub copies: f64,
    /// None has: llama.cpp's own split.
    pub no_copies: f64,
    /// Each selected expert that the CPU computes, for each token.
    pub cold_expert: f64,
}

/// No GPU has been measured yet: of the numbers below only the bandwidth of main memory is a measurement.
pub(super) const CALIBRATION: Calibration = Calibration {
    // Measured with dual-channel DDR5.
    ram_bandwidth: 62e9,
    // A guess.
    gpu_bandwidth: 500e9,
    // GB10, by its data sheet.
    unified_bandwidth: 273e9,
    // A guess.
    reached: 0.7,
    // PCIe 4.0 with 16 lanes, by its specification.
    bus_bandwidth: 25e9,
    // A guess.
    mapped_bandwidth: 10e9,
    // Guesses, which only say what else there is to a prompt than the bytes it needs.
    gpu_operations: 30e12,
    cpu_operations: 0.5e12,
    // Estimates of a desk review of this code and llama.cpp's (November 2026): six waits, three launches and copies through pageable
    // memory took about 125 us of a layer; about 32 us are left with a single wait in llama.cpp's own queue.
    hand_over: HandOver {
        copies: 32e-6,
        // An estimate: two waits, at 32 us each.
        no_copies: 64e-6,
        // An estimate: a row of 8 KiB is added to the others of its token.
        cold_expert: 1e-6,
    },
    // Published for models of 512 experts with short traces: 51 % at 18 %, 73 % at 36 %.
    hits: [(0.0, 0.0), (0.18, 0.51), (0.36, 0.73), (0.7, 0.93), (1.0, 1.0)],
    // A guess.
    right_guesses: 0.8,
};

/// Bytes per second that dual-channel DDR5 reached in a measurement.
pub const RAM_BANDWIDTH: f64 = CALIBRATION.ram_bandwidth;

impl Calibration {
    pub fn hit_rate(&self, share: f64) -> f64 {
        let after = self.hits.iter().position(|(at, _)| share <= *at);
        let after = after.unwrap_or(self.hits.len() - 1);
        let ((x0, y0), (x1, y1)) = (self.hits[after.saturating_sub(1)], self.hits[after]);
        if x1 > x0 {
            y0 + (y1 - y0) * (share - x0) / (x1 - x0)
        } else {
            y1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hit_rates_rise_with_the_share() {
        for (share, rate) in [(0.0, 0.0), (0.18, 0.51), (0.27, 0.62), (1.0, 1.0)] {
            assert!((CALIBRATION.hit_rate(share) - rate).abs() < 1e-9, "{share}");
        }
    }
}
