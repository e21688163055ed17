//! How fast a model may decode: the bytes that a token needs, over the bandwidths they come through.
//!
//! An estimate, no measurement: with one stream at the start of its context, and every number that it assumes beside it.

use super::calibration::{CALIBRATION, Calibration};
use super::demand::Layout;
use super::memory::Context;
use super::outcome::{Estimate, Experts};
use super::shape::{LayerShape, ModelShape};
use crate::acceptance::expected;
use crate::host::Gpu;
use crate::memory::Tier;

/// The prompt whose first token is estimated.
const PROMPT: u32 = 2048;
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

/// What a pass takes: bytes that it reads from the GPU's memory and from main memory, once and for each of its tokens, and layers of
/// which the GPU hands the experts to the CPU.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    once: [u64; 2],
    each: [u64; 2],
    /// Of `each`, of experts that have a copy: read while the others are computed on the CPU.
    hot: u64,
    cold: u64,
    /// Layers that are handed over, those with copies first.
    handed: [u32; 2],
    /// Experts of a token, in layers that are handed over, without a copy.
    cold_experts: f64,
}

impl Pass {
    /// A pass through all layers; `hits` is the share of selected experts that have a copy.
    fn of(shape: &ModelShape, layout: Layout, hits: Option<f64>) -> Self {
        let mut pass = Self::default();
        Self::add(&mut pass.once, layout.output(), shape.output());
        for (number, layer) in shape.layers.iter().enumerate() {
            pass.layer(shape, layout, number, layer, hits);
        }
        pass
    }

    /// A pass through the head behind the last layer.
    fn of_head(shape: &ModelShape, layout: Layout, head: &LayerShape, hits: Option<f64>) -> Self {
        let mut pass = Self::default();
        Self::add(&mut pass.once, layout.output(), shape.output());
        pass.layer(shape, layout, shape.layers.len(), head, hits);
        pass
    }

    fn add(of: &mut [u64; 2], tier: Tier, bytes: u64) {
        of[usize::from(tier == Tier::Ram)] += bytes;
    }

    /// What one more layer takes.
    fn layer(&mut self, shape: &ModelShape, layout: Layout, number: usize, layer: &LayerShape, hits: Option<f64>) {
        let (tier, of_experts) = (layout.tier(shape, number), layout.experts(shape, number));
        Self::add(&mut self.once, tier, layer.bytes() - layer.experts());
        let selected = layer.expert * u64::from(shape.experts_per_token);
        if layer.expert > 0 && tier == Tier::Gpu && of_experts == Tier::Ram {
            self.handed[usize::from(hits.is_none())] += 1;
            self.cold_experts += f64::from(shape.experts_per_token) * (1.0 - hits.unwrap_or(0.0));
        }
        let Some(hits) = hits else {
            return Self::add(&mut self.each, of_experts, selected);
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
    fn bytes(&self, tokens: u32) -> [u64; 2] {
        [0, 1].map(|tier| self.once[tier] + self.each[tier] * u64::from(tokens))
    }

    /// Seconds of such a pass. Hot and cold experts are computed at the same time.
    #[expect(clippy::cast_precision_loss, reason = "an estimate of two digits")]
    fn seconds(&self, tokens: u32, gpu: f64, with: &Calibration) -> f64 {
        let [of_gpu, of_ram] = self.bytes(tokens).map(|bytes| bytes as f64 / with.reached);
        let [hot, cold] = [self.hot, self.cold].map(|bytes| (bytes * u64::from(tokens)) as f64 / with.reached);
        let (ram, together) = (with.ram_bandwidth, (hot / gpu).min(cold / with.ram_bandwidth));
        of_gpu / gpu + of_ram / ram - together + self.hand_overs(tokens, with)
    }

    /// Seconds of it in which GPU and CPU hand over.
    fn hand_overs(&self, tokens: u32, with: &Calibration) -> f64 {
        let [copies, no_copies] = self.handed.map(f64::from);
        let price = &with.hand_over;
        copies * price.copies + no_copies * price.no_copies + self.cold_experts * f64::from(tokens) * price.cold_expert
    }
}

/// The estimate for a model that is laid out in this way, and whose head makes drafts, if it is given.
pub(super) fn estimate(
    shape: &ModelShape,
    head: Option<&LayerShape>,
    layout: Layout,
    device: Option<&Gpu>,
) -> Estimate {
    estimate_with(&CALIBRATION, shape, head, layout, device)
}

fn estimate_with(
    with: &Calibration,
    shape: &ModelShape,
    head: Option<&LayerShape>,
    layout: Layout,
    device: Option<&Gpu>,
) -> Estimate {
    let (bandwidth, source) = gpu_bandwidth(with, device);
    let share = match layout.experts {
        Experts::Cache {
            device: Tier::Gpu,
            capacity,
            of,
        } => Some(with.hit_rate(f64::from(capacity) / f64::from(of.max(1)))),
        _ => None,
    };
    let seconds = |hits| Pass::of(shape, layout, hits).seconds(1, bandwidth, with);
    // Copies that cost more than they save are switched off.
    let hits = share.filter(|_| seconds(share) <= seconds(None));
    let trunk = Pass::of(shape, layout, hits);
    let plain = seconds(hits);
    let drafted = head.and_then(|head| {
        let guess = Pass::of_head(shape, layout, head, hits).seconds(1, bandwidth, with);
        let chances = [with.right_guesses; DRAFTED as usize];
        let widths = (1..=DRAFTED).map(|guesses| {
            let tokens = expected(guesses as usize + 1, &chances, shape.ssm.is_some());
            let pass = trunk.seconds(guesses + 1, bandwidth, with);
            (pass + f64::from(guesses) * guess) / tokens
        });
        widths.min_by(f64::total_cmp).filter(|time| *time < plain)
    });
    let rate = |time: f64| if time > 0.0 { (10.0 / time).round() / 10.0 } else { 0.0 };
    let [gpu_bytes, ram_bytes] = trunk.bytes(1);
    let mut assumptions = Vec::new();
    if gpu_bytes > 0 {
        assumptions.push(source);
    }
    if ram_bytes > 0 {
        assumptions.push(format!(
            "RAM {:.0} GB/s (measured with dual-channel DDR5)",
            with.ram_bandwidth / 1e9
        ));
    }
    assumptions.push(format!("{:.0} % of that reached", with.reached * 100.0));
    assumptions.extend(trunk.assumed(with));
    if share.is_some() && hits.is_none() {
        assumptions.push("so few copies would cost more than they save, and are switched off".to_owned());
    }
    if let Some(rate) = hits {
        assumptions.push(format!(
            "{:.0} % of selected experts have a copy (published traces)",
            rate * 100.0
        ));
    }
    if drafted.is_some() {
        assumptions.push(format!(
            "drafts by the head, {:.0} % of which are right (a guess; {:.0} tokens/s without)",
            with.right_guesses * 100.0,
            rate(plain)
        ));
    }
    Estimate {
        tokens_per_second: rate(drafted.unwrap_or(plain)),
        without_drafts: rate(plain),
        gpu_bytes,
        ram_bytes,
        hand_over_ms: (trunk.hand_overs(1, with) * 1e5).round() / 1e2,
        hit_rate: hits,
        assumptions,
    }
}

impl Pass {
    /// What its hand-overs take for granted, if there are any.
    fn assumed(&self, with: &Calibration) -> Option<String> {
        let [copies, no_copies] = self.handed;
        let price = match (copies, no_copies) {
            (0, 0) => return (self.once[0] > 0 && self.bytes(1)[1] > 0).then(|| NOT_COUNTED.to_owned()),
            (0, _) => with.hand_over.no_copies,
            _ => with.hand_over.copies,
        };
        Some(format!(
            "{:.1} ms for {} hand-overs between GPU and CPU, {:.0} us each and {:.0} us for each expert on the CPU (an estimate)",
            self.hand_overs(1, with) * 1e3,
            copies + no_copies,
            price * 1e6,
            with.hand_over.cold_expert * 1e6
        ))
    }
}

/// Of a model whose first layers are in main memory: there is one for each pass.
const NOT_COUNTED: &str = "the hand-over between the layers in RAM and those on the GPU is not counted";

/// Seconds to the first token of a prompt of [`PROMPT`] tokens that nothing else delays. In each of its passes a GPU reads its own
/// weights, and fetches those that lie in main memory, but for experts that have a copy.
#[expect(clippy::cast_precision_loss, reason = "an estimate of two digits")]
pub(super) fn first_token(
    shape: &ModelShape,
    context: Context,
    layout: Layout,
    device: Option<&Gpu>,
    mapped: bool,
) -> f64 {
    let with = &CALIBRATION;
    let (mut own, mut fetched, mut used) = (shape.output(), 0, shape.output());
    for (number, layer) in shape.layers.iter().enumerate() {
        let dense = layer.bytes() - layer.experts();
        used += dense + layer.expert * u64::from(shape.experts_per_token);
        let mut add = |tier: Tier, bytes: u64| match tier {
            Tier::Gpu => own += bytes,
            Tier::Ram => fetched += bytes,
        };
        add(layout.tier(shape, number), dense);
        let copied = match layout.experts {
            Experts::Cache {
                device: Tier::Gpu,
                capacity,
                ..
            } => layer.expert * u64::from(capacity),
            _ => 0,
        };
        add(Tier::Gpu, copied);
        add(layout.experts(shape, number), layer.experts().saturating_sub(copied));
    }
    let passes = f64::from(PROMPT.div_ceil(context.batch.max(1)));
    // A weight is about half a byte, and takes two operations.
    let operations = 4.0 * used as f64 * f64::from(PROMPT);
    match device {
        Some(device) => {
            let (bandwidth, _) = gpu_bandwidth(with, Some(device));
            let bus = match mapped {
                true => with.mapped_bandwidth,
                false => with.bus_bandwidth,
            };
            let bytes = own as f64 / (bandwidth * with.reached) + fetched as f64 / bus;
            passes * bytes + operations / with.gpu_operations
        }
        None => {
            passes * (own + fetched) as f64 / (with.ram_bandwidth * with.reached) + operations / with.cpu_operations
        }
    }
}

fn gpu_bandwidth(with: &Calibration, device: Option<&Gpu>) -> (f64, String) {
    let Some(device) = device else {
        return (with.gpu_bandwidth, String::new());
    };
    let known = GPUS.iter().find(|(name, _)| device.name.contains(name));
    match known {
        Some((name, rate)) => (rate * 1e9, format!("GPU {rate} GB/s (data sheet of {name})")),
        None if device.unified => (
            with.unified_bandwidth,
            format!("GPU {:.0} GB/s (as GB10)", with.unified_bandwidth / 1e9),
        ),
        None => (
            with.gpu_bandwidth,
            format!("GPU {:.0} GB/s (a guess)", with.gpu_bandwidth / 1e9),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::shape;
    use super::*;
    use crate::plan::calibration::HandOver;
    use crate::synthetic::Arch;

    const FREE: HandOver = HandOver {
        copies: 0.0,
        no_copies: 0.0,
        cold_expert: 0.0,
    };

    fn priced(hand_over: HandOver) -> Calibration {
        Calibration {
            hand_over,
            ..CALIBRATION
        }
    }

    /// All layers on the GPU, and copies of so many experts.
    fn cached(capacity: u32) -> Layout {
        Layout {
            gpu_layers: 9999,
            experts: Experts::Cache {
                device: Tier::Gpu,
                capacity,
                of: 512,
            },
        }
    }

    #[test]
    fn hand_overs_are_counted_where_two_devices_compute_a_layer() {
        let mixture = shape(Arch::Qwen3next, "80b-a3b", true);
        let price = HandOver {
            copies: 100e-6,
            no_copies: 50e-6,
            cold_expert: 2e-6,
        };
        let milliseconds = |layout: Layout, hits: Option<f64>| {
            let pass = Pass::of(&mixture, layout, hits);
            (pass.seconds(1, 5e11, &priced(price)) - pass.seconds(1, 5e11, &priced(FREE))) * 1e3
        };
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found} ms, not {expected}");
        // 48 layers with 10 experts per token, of which 4 have a copy.
        near(milliseconds(cached(100), Some(0.4)), 48.0 * (0.1 + 6.0 * 0.002));
        let ram = Layout {
            experts: Experts::Ram,
            ..cached(0)
        };
        near(milliseconds(ram, None), 48.0 * (0.05 + 10.0 * 0.002));
        // The last 9 layers and the output are on the GPU: nothing of the others is handed over.
        near(
            milliseconds(Layout { gpu_layers: 11, ..ram }, None),
            9.0 * (0.05 + 10.0 * 0.002),
        );
        near(
            milliseconds(
                Layout {
                    experts: Experts::Layers,
                    ..ram
                },
                None,
            ),
            0.0,
        );
        // A pass of three tokens waits as often as one of a single token.
        let pass = Pass::of(&mixture, cached(100), Some(0.4));
        near(pass.hand_overs(3, &priced(price)) * 1e3, 48.0 * (0.1 + 18.0 * 0.002));
    }

    #[test]
    fn an_estimate_says_what_it_takes_for_hand_overs() {
        let mixture = shape(Arch::Qwen3next, "80b-a3b", true);
        let of = |with: &Calibration| estimate_with(with, &mixture, None, cached(100), None);
        let (counted, free) = (of(&CALIBRATION), of(&priced(FREE)));
        assert!(
            counted.tokens_per_second < free.tokens_per_second,
            "{counted:?} {free:?}"
        );
        let difference = 1e3 / counted.tokens_per_second - 1e3 / free.tokens_per_second;
        assert!((difference - counted.hand_over_ms).abs() < 0.1, "{counted:?} {free:?}");
        assert!(
            counted.assumptions.iter().any(|line| line.contains("48 hand-overs")),
            "{counted:?}"
        );
        // Copies that cost more than they save are as none.
        let dear = priced(HandOver { copies: 1.0, ..FREE });
        let layout = Layout {
            experts: Experts::Ram,
            ..cached(100)
        };
        let without = estimate_with(&dear, &mixture, None, layout, None);
        let off = of(&dear);
        assert_eq!(off.tokens_per_second, without.tokens_per_second);
        assert_eq!(off.hit_rate, None);
        assert!(
            off.assumptions.iter().any(|line| line.contains("switched off")),
            "{off:?}"
        );
    }

    #[test]
    fn drafts_share_the_hand_overs_of_a_pass() {
        let mixture = shape(Arch::Qwen3next, "80b-a3b", true);
        let gain = |hand_over: HandOver| {
            let estimate = estimate_with(&priced(hand_over), &mixture, mixture.head.as_ref(), cached(200), None);
            estimate.tokens_per_second / estimate.without_drafts
        };
        let dear = HandOver {
            copies: 500e-6,
            no_copies: 500e-6,
            cold_expert: 0.0,
        };
        assert!(gain(dear) > gain(FREE), "{} {}", gain(dear), gain(FREE));
    }
}
