//! How fast a model may decode: the bytes that a token needs, over the bandwidths they come through.
//!
//! An estimate, no measurement: with one stream at the start of its context, and every number that it assumes beside it.

use super::demand::Layout;
use super::memory::Context;
use super::outcome::{Estimate, Experts};
use super::shape::ModelShape;
use crate::host::Gpu;
use crate::memory::Tier;

/// Bytes per second that dual-channel DDR5 reached in a measurement (62 GB/s).
const RAM_BANDWIDTH: f64 = 62e9;
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

/// The estimate for a model that is laid out in this way.
#[expect(clippy::cast_precision_loss, reason = "an estimate of two digits")]
pub(super) fn estimate(shape: &ModelShape, layout: Layout, device: Option<&Gpu>) -> Estimate {
    let mut read = [0_u64; 2];
    let mut cold = 0;
    let mut add = |tier: Tier, bytes: u64| read[usize::from(tier == Tier::Ram)] += bytes;
    add(layout.output(), shape.output());
    for (number, layer) in shape.layers.iter().enumerate() {
        add(layout.tier(shape, number), layer.bytes() - layer.experts());
        let selected = layer.expert * u64::from(shape.experts_per_token);
        match layout.experts {
            Experts::Cache { device: Tier::Gpu, .. } => cold += selected,
            _ => add(layout.experts(shape, number), selected),
        }
    }
    let [mut gpu, mut ram] = read;
    let hit_rate = match layout.experts {
        Experts::Cache {
            device: Tier::Gpu,
            capacity,
            of,
        } => Some(hit_rate(f64::from(capacity) / f64::from(of.max(1)))),
        _ => None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of bytes"
    )]
    let hot = (cold as f64 * hit_rate.unwrap_or(0.0)) as u64;
    gpu += hot;
    ram += cold - hot;
    let (bandwidth, source) = gpu_bandwidth(device);
    let (gpu_time, ram_time) = (
        gpu as f64 / (bandwidth * REACHED),
        ram as f64 / (RAM_BANDWIDTH * REACHED),
    );
    let hot_time = hot as f64 / (bandwidth * REACHED);
    // Hot and cold experts are computed at the same time.
    let time = gpu_time + ram_time - hot_time.min((cold - hot) as f64 / (RAM_BANDWIDTH * REACHED));
    let mut assumptions = Vec::new();
    if gpu > 0 {
        assumptions.push(source);
    }
    if ram > 0 {
        assumptions.push(format!(
            "RAM {:.0} GB/s (measured with dual-channel DDR5)",
            RAM_BANDWIDTH / 1e9
        ));
    }
    let transfers = if gpu > 0 && ram > 0 {
        ", transfers between GPU and CPU not counted"
    } else {
        ""
    };
    assumptions.push(format!("{:.0} % of that reached{transfers}", REACHED * 100.0));
    if let Some(rate) = hit_rate {
        assumptions.push(format!(
            "{:.0} % of selected experts have a copy (published traces)",
            rate * 100.0
        ));
    }
    Estimate {
        tokens_per_second: if time > 0.0 { (10.0 / time).round() / 10.0 } else { 0.0 },
        gpu_bytes: gpu,
        ram_bytes: ram,
        hit_rate,
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
