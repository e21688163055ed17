//! A profile as data: what `--json` prints.

use serde::Serialize;

use crate::cli::machine::Machine;
use crate::experts::entropy;
use crate::experts::policy::{LayerCounts, PolicyKind};
use crate::experts::simulate::{Row, SimulationConfig, Start, second_half, simulate};
use crate::experts::trace::{Phase, Trace};

/// Decoded tokens that are not counted of the run itself, or a quarter of all if that is less.
pub(super) const WARM_UP: usize = 256;
/// How many experts of a layer are named.
const TOP: usize = 8;

/// Everything about one profile.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Version of hearth.
    pub(super) hearth: &'static str,
    /// When it was made, in UTC.
    pub(super) date: String,
    pub(super) command: String,
    pub(super) machine: Machine,
    /// The model, or the trace that was replayed.
    pub(super) source: String,
    pub(super) geometry: Geometry,
    pub(super) layers: Vec<LayerReport>,
    /// How the simulation worked.
    pub(super) simulation: SimulationConfig,
    /// What each policy would have done, over all layers.
    pub(super) rows: Vec<Row>,
    /// What the cache did while the trace was recorded.
    pub(super) measured: Option<Measured>,
}

/// The trace in numbers.
#[derive(Debug, Serialize)]
pub(super) struct Geometry {
    /// With experts.
    pub(super) layers: usize,
    pub(super) experts: usize,
    /// Of a layer.
    #[serde(flatten, serialize_with = "crate::renamed::active")]
    pub(super) experts_per_token: usize,
    pub(super) prompt_tokens: usize,
    pub(super) decoded_tokens: usize,
    /// Decoded tokens in the second half of the conversations, which the simulation counts.
    pub(super) counted_tokens: usize,
}

/// How one layer used its experts, prompts included.
#[derive(Debug, Serialize)]
pub(super) struct LayerReport {
    /// Its number in the model.
    pub(super) layer: u32,
    /// Experts that were selected at least once.
    pub(super) distinct: usize,
    /// In bits.
    pub(super) entropy: f64,
    /// The busiest ones.
    pub(super) top: Vec<TopExpert>,
    /// By expert.
    pub(super) selections: Vec<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct TopExpert {
    pub(super) expert: usize,
    /// Of all selections of the layer.
    pub(super) share: f64,
}

/// The cache of the run beside its simulation.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) policy: PolicyKind,
    /// Copies per layer.
    #[serde(flatten, serialize_with = "crate::renamed::capacity")]
    pub(super) capacity: usize,
    /// Decoded tokens that are not counted, of the cache nor of the simulation.
    pub(super) warm_up: usize,
    #[serde(flatten)]
    pub(super) counts: LayerCounts,
    pub(super) hit_rate: f64,
    /// The same tokens, policy and capacity in the simulator.
    pub(super) simulated: Option<f64>,
}

impl Geometry {
    pub(super) fn of(trace: &Trace) -> Self {
        let decoded = |phases: &[Phase]| phases.iter().filter(|phase| **phase == Phase::Decode).count();
        let phases = trace.phases();
        Self {
            layers: trace.layers().len(),
            experts: trace.experts(),
            experts_per_token: trace.experts_per_token(),
            prompt_tokens: phases.len() - decoded(phases),
            decoded_tokens: decoded(phases),
            counted_tokens: decoded(&phases[second_half(trace)..]),
        }
    }
}

impl LayerReport {
    /// All layers of a trace.
    pub(super) fn all(trace: &Trace) -> Vec<Self> {
        let layers = trace.layers().iter().enumerate();
        layers.map(|(index, number)| Self::of(trace, index, *number)).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "a statistic")]
    fn of(trace: &Trace, index: usize, number: u32) -> Self {
        let mut selections = vec![0u64; trace.experts()];
        for token in 0..trace.phases().len() {
            for id in trace.selection(token, index) {
                selections[usize::from(*id)] += 1;
            }
        }
        let total: u64 = selections.iter().sum();
        let mut top: Vec<(usize, u64)> = selections.iter().copied().enumerate().collect();
        top.retain(|(_, count)| *count > 0);
        let distinct = top.len();
        top.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        top.truncate(TOP);
        Self {
            layer: number,
            distinct,
            entropy: entropy(&selections),
            top: top
                .into_iter()
                .map(|(expert, count)| TopExpert {
                    expert,
                    share: count as f64 / total as f64,
                })
                .collect(),
            selections,
        }
    }
}

/// How to replay a trace.
pub(super) fn simulation(capacities: Vec<f64>) -> SimulationConfig {
    SimulationConfig {
        capacities,
        ..SimulationConfig::default()
    }
}

/// Rows over all layers.
pub(super) fn rows(trace: &Trace, config: &SimulationConfig) -> Vec<Row> {
    let mut rows = simulate(trace, config);
    rows.retain(|row| row.layer.is_none());
    rows
}

impl Measured {
    /// Replays the same tokens with the same policy and capacity, from the beginning as the run did.
    #[expect(clippy::cast_precision_loss, reason = "a share of a small number")]
    pub(super) fn compare(&mut self, trace: &Trace, config: &SimulationConfig) {
        let config = SimulationConfig {
            policies: vec![self.policy],
            capacities: vec![self.capacity as f64 / trace.experts() as f64],
            start: Start::Empty { warm_up: self.warm_up },
            ..config.clone()
        };
        self.simulated = rows(trace, &config).first().map(|row| row.hit_rate);
    }
}
