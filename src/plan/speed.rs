//! How fast a model may decode: the bytes that a token needs, over the bandwidths they come through.
//!
//! An estimate, no measurement: with one stream at the start of its context, and every number that it assumes beside it.

use super::demand::Layout;
use super::memory::Context;
use super::outcome::{Estimate, Experts};
use super::shape::{LayerShape, ModelShape};
use crate::acceptance::expected;
use crate::host::Gpu;
use crate::memory::Tier;

/// Bytes per second that dual-channel DDR5 reached in a measurement (62 GB/s).
pub const RAM_BANDWIDTH: f64 = 62e9;
/// The bandwidth of a GPU that is not in the list, and of one in unified memory.
const GPU_BANDWIDTH: f64 = 500e9;
const UNIFIED_BANDWIDTH: f64 = 273e9;
/// What decoding reaches of a bandwidth.
const REACHED: f64 = 0.7;
/// Bytes per second from main memory to a GPU of its own: PCIe 4.0 with 16 lanes.
const BUS_BANDWIDTH: f64 = 25e9;
/// Operations per second that a prompt reaches, on a GPU and on a CPU: guesses, which only say what else there is to a prompt than
/// the bytes it needs.
const GPU_OPERATIONS: f64 = 30e12;
const CPU_OPERATIONS: f64 = 0.5e12;
/// The prompt whose first token is estimated.
const PROMPT: u32 = 2048;

/// How often a guess of the head is right, if those before it were: a guess itself.
const GUESSED: f64 = 0.8;
/// Guesses in a row at most, as `draft.max` has it.
const DRAFTED: u32 = 2;

/// Bandwidths in GB/s from the makers' data sheets; the first name that a device's name contains counts.
const GPUS: [(&str, f64); 22] = [
    ("5090", 1792.0),
    ("5080", 960.0),
    ("5070 Ti", 896.0),
    ("5070", 672.0),
    ("5060 Ti", 448.0),
    ("4090", 1008.0),
    ("4080", 717.0),
    ("4070 Ti SUPER", 672.0),
    ("4070", 504.0),
    ("4060 Ti", 288.0),
    ("4060", 272.0),
    ("3090", 936.0),
    ("3080", 760.0),
    ("3060", 360.0),
    ("7900 XTX", 960.0),
    ("7900 XT", 800.0),
    ("GB10", 273.0),
    ("H200", 4800.0),
    ("H100", 3350.0),
    ("A100", 1935.0),
    ("L40S", 864.0),
    ("L4", 300.0),
];

/// Share of selected experts that have a copy, by the share of experts that have one: measurements published for models of
/// 512 experts with short traces (51 % at 18 %, 73 % at 36 %), joined by straight lines.
const HITS: [(f64, f64); 5] = [(0.0, 0.0), (0.18, 0.51), (0.36, 0.73), (0.7, 0.93), (1.0, 1.0)];

fn hit_rate(share: f64) -> f64 {
    let after = HITS.iter().position(|(at, _)| share <= *at).unwrap_or(HITS.len() - 1);
    let ((x0, y0), (x1, y1)) = (HITS[after.saturating_sub(1)], HITS[after]);
    if x1 > x0 {
        y0 + (y1 - y0) * (share - x0) / (x1 - x0)
    } else {
        y1
    }
}

/// Bytes that a pass reads from the GPU's memory and from main memory: once, and for each of its tokens.
#[derive(Debug, Clone, Copy, Default)]
struct Reads {
    once: [u64; 2],
    each: [u64; 2],
    /// Of `each`, of experts that have a copy: read while the others are computed on the CPU.
    hot: u64,
    cold: u64,
}

impl Reads {
    fn add(of: &mut [u64; 2], tier: Tier, bytes: u64) {
        of[usize::from(tier == Tier::Ram)] += bytes;
    }

    /// What one more layer reads.
    fn layer(&mut self, shape: &ModelShape, layout: Layout, number: usize, layer: &LayerShape, hits: Option<f64>) {
        Self::add(
            &mut self.once,
            layout.tier(shape, number),
            layer.bytes() - layer.experts(),
        );
        let selected = layer.expert * u64::from(shape.experts_per_token);
        let Some(hits) = hits else {
            return Self::add(&mut self.each, layout.experts(shape, number), selected);
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a number of bytes"
        )]
        let hot = (selected as f64 * hits) as u64;
        Self::add(&mut self.each, Tier::Gpu, hot);
        Self::add(&mut self.each, Tier::Ram, selected - hot);
        self.hot += hot;
        self.cold += selected - hot;
    }

    /// Bytes of a pass of so many tokens, each of which selects experts of its own.
    fn bytes(&self, tokens: u64) -> [u64; 2] {
        [0, 1].map(|tier| self.once[tier] + self.each[tier] * tokens)
    }

    /// Seconds of such a pass. Hot and cold experts are computed at the same time.
    #[expect(clippy::cast_precision_loss, reason = "an estimate of two digits")]
    fn seconds(&self, tokens: u64, gpu: f64) -> f64 {
        let [of_gpu, of_ram] = self.bytes(tokens).map(|bytes| bytes as f64 / REACHED);
        let [hot, cold] = [self.hot, self.cold].map(|bytes| (bytes * tokens) as f64 / REACHED);
        of_gpu / gpu + of_ram / RAM_BANDWIDTH - (hot / gpu).min(cold / RAM_BANDWIDTH)
    }
}

/// The estimate for a model that is laid out in this way, and whose head makes drafts, if it is given.
pub(super) fn estimate(
    shape: &ModelShape,
    head: Option<&LayerShape>,
    layout: Layout,
    device: Option<&Gpu>,
) -> Estimate {
    let hits = match layout.experts {
        Experts::Cache {
            device: Tier::Gpu,
            capacity,
            of,
        } => Some(hit_rate(f64::from(capacity) / f64::from(of.max(1)))),
        _ => None,
    };
    let mut trunk = Reads::default();
    Reads::add(&mut trunk.once, layout.output(), shape.output());
    for (number, layer) in shape.layers.iter().enumerate() {
        trunk.layer(shape, layout, number, layer, hits);
    }
    let (bandwidth, source) = gpu_bandwidth(device);
    let plain = trunk.seconds(1, bandwidth);
    let drafted = head.and_then(|head| {
        let mut of_head = Reads::default();
        Reads::add(&mut of_head.once, layout.output(), shape.output());
        of_head.layer(shape, layout, shape.layers.len(), head, hits);
        let guess = of_head.seconds(1, bandwidth);
        let chances = [GUESSED; DRAFTED as usize];
        let widths = (1..=DRAFTED).map(|guesses| {
            let tokens = expected(guesses as usize + 1, &chances, shape.ssm.is_some());
            let pass = trunk.seconds(u64::from(guesses) + 1, bandwidth);
            (pass + f64::from(guesses) * guess) / tokens
        });
        widths.min_by(f64::total_cmp).filter(|time| *time < plain)
    });
    let [gpu_bytes, ram_bytes] = trunk.bytes(1);
    let mut assumptions = Vec::new();
    if gpu_bytes > 0 {
        assumptions.push(source);
    }
    if ram_bytes > 0 {
        assumptions.push(format!(
            "RAM {:.0} GB/s (measured with dual-channel DDR5)",
            RAM_BANDWIDTH / 1e9
        ));
    }
    let transfers = if gpu_bytes > 0 && ram_bytes > 0 {
        ", transfers between GPU and CPU not counted"
    } else {
        ""
    };
    assumptions.push(format!("{:.0} % of that reached{transfers}", REACHED * 100.0));
    if let Some(rate) = hits {
        assumptions.push(format!(
            "{:.0} % of selected experts have a copy (published traces)",
            rate * 100.0
        ));
    }
    let rate = |time: f64| if time > 0.0 { (10.0 / time).round() / 10.0 } else { 0.0 };
    if drafted.is_some() {
        assumptions.push(format!(
            "drafts by the head, {:.0} % of which are right (a guess; {:.0} tokens/s without)",
            GUESSED * 100.0,
            rate(plain)
        ));
    }
    Estimate {
        tokens_per_second: rate(drafted.unwrap_or(plain)),
        without_drafts: rate(plain),
        gpu_bytes,
        ram_bytes,
        hit_rate: hits,
        assumptions,
    }
}

/// Seconds to the first token of a prompt of [`PROMPT`] tokens that nothing else delays. In each of its passes a GPU reads its own
/// weights, and fetches those that lie in main memory.
#[expect(clippy::cast_precision_loss, reason = "an estimate of two digits")]
pub(super) fn first_token(shape: &ModelShape, context: Context, layout: Layout, device: Option<&Gpu>) -> f64 {
    let (mut own, mut fetched, mut used) = (shape.output(), 0, shape.output());
    for (number, layer) in shape.layers.iter().enumerate() {
        let dense = layer.bytes() - layer.experts();
        used += dense + layer.expert * u64::from(shape.experts_per_token);
        let mut add = |tier: Tier, bytes: u64| match tier {
            Tier::Gpu => own += bytes,
            Tier::Ram => fetched += bytes,
        };
        add(layout.tier(shape, number), dense);
        add(layout.experts(shape, number), layer.experts());
    }
    let passes = f64::from(PROMPT.div_ceil(context.batch.max(1)));
    // A weight is about half a byte, and takes two operations.
    let operations = 4.0 * used as f64 * f64::from(PROMPT);
    match device {
        Some(device) => {
            let (bandwidth, _) = gpu_bandwidth(Some(device));
            let bytes = own as f64 / (bandwidth * REACHED) + fetched as f64 / BUS_BANDWIDTH;
            passes * bytes + operations / GPU_OPERATIONS
        }
        None => passes * (own + fetched) as f64 / (RAM_BANDWIDTH * REACHED) + operations / CPU_OPERATIONS,
    }
}

fn gpu_bandwidth(device: Option<&Gpu>) -> (f64, String) {
    let Some(device) = device else {
        return (GPU_BANDWIDTH, String::new());
    };
    let known = GPUS.iter().find(|(name, _)| device.name.contains(name));
    match known {
        Some((name, rate)) => (rate * 1e9, format!("GPU {rate} GB/s (data sheet of {name})")),
        None if device.unified => (
            UNIFIED_BANDWIDTH,
            format!("GPU {:.0} GB/s (as GB10)", UNIFIED_BANDWIDTH / 1e9),
        ),
        None => (GPU_BANDWIDTH, format!("GPU {:.0} GB/s (a guess)", GPU_BANDWIDTH / 1e9)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hit_rates_rise_with_the_share() {
        assert!((hit_rate(0.0) - 0.0).abs() < 1e-9);
        assert!((hit_rate(0.18) - 0.51).abs() < 1e-9);
        assert!((hit_rate(0.27) - 0.62).abs() < 1e-9);
        assert!((hit_rate(1.0) - 1.0).abs() < 1e-9);
    }
}
