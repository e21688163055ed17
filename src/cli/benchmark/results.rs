//! The report as plain data: what `--json` prints.

use serde::Serialize;
use serde_json::Value;

use super::case::Case;
use super::measure::Measured;
use super::statistics::{Percentiles, Spread};
use crate::cli::machine::Machine;
use crate::engine::{MemoryUse, ModelCard};
use crate::gguf::{self, Gguf, file_type_name};

/// Everything about one call of `hearth benchmark`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Version of hearth.
    pub(super) hearth: &'static str,
    /// When it began, in UTC.
    pub(super) date: String,
    pub(super) command: String,
    pub(super) machine: Machine,
    pub(super) model: ModelFacts,
    /// Where the plan put what, and what was allocated.
    pub(super) memory: Option<MemoryUse>,
    /// Counted runs of each case.
    pub(super) repeat: u32,
    pub(super) cases: Vec<CaseReport>,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct ModelFacts {
    pub(super) name: String,
    /// Without its folder.
    pub(super) file: String,
    pub(super) architecture: String,
    /// Mix of data types, if the file names it.
    pub(super) file_type: Option<&'static str>,
    pub(super) bytes: u64,
    pub(super) parameters: u64,
    /// Tokens per slot.
    pub(super) context: u32,
    pub(super) slots: u32,
    pub(super) threads: u32,
    /// Configuration of the experts: keys and values in effect.
    pub(super) experts: Value,
}

/// What came out for one case. Rates are tokens per second.
#[derive(Debug, Serialize)]
pub(super) struct CaseReport {
    #[serde(flatten)]
    pub(super) case: Case,
    pub(super) prefill_per_second: Option<Spread>,
    /// Of all streams together.
    pub(super) decode_per_second: Option<Spread>,
    pub(super) decode_per_second_per_stream: Option<Spread>,
    pub(super) first_token_ms: Option<Percentiles>,
    pub(super) inter_token_ms: Option<Percentiles>,
    pub(super) experts: Option<ExpertsReport>,
    /// The largest over the runs.
    pub(super) resident_bytes: Option<u64>,
}

/// What the cache of experts did in the counted runs.
#[derive(Debug, Serialize)]
pub(super) struct ExpertsReport {
    /// Per run; `None` if no run asked the cache.
    pub(super) hit_rate: Option<Spread>,
    pub(super) selections: u64,
    pub(super) hits: u64,
    pub(super) uploads: u64,
}

impl ModelFacts {
    pub(super) fn new(card: &ModelCard, file: &Gguf, threads: u32, experts: Value) -> Self {
        let file_type = file.get("general.file_type").and_then(|number| number.as_u64());
        let name = file.path().file_name().unwrap_or(file.path().as_os_str());
        Self {
            name: card.name.clone(),
            file: gguf::printable(&name.to_string_lossy()),
            architecture: card.architecture.clone(),
            file_type: file_type.and_then(file_type_name),
            bytes: card.size_bytes,
            parameters: card.parameters,
            context: card.context,
            slots: card.parallel,
            threads,
            experts,
        }
    }
}

impl CaseReport {
    pub(super) fn new(case: Case, runs: &[Measured]) -> Self {
        let spread =
            |value: fn(&Measured) -> Option<f64>| Spread::of(&runs.iter().filter_map(value).collect::<Vec<_>>());
        let pooled = |values: fn(&Measured) -> &[f64]| -> Vec<f64> { runs.iter().flat_map(values).copied().collect() };
        let milliseconds = |values: fn(&Measured) -> &[f64]| {
            Percentiles::of(&pooled(values).iter().map(|seconds| seconds * 1e3).collect::<Vec<_>>())
        };
        Self {
            case,
            prefill_per_second: spread(|run| Some(run.prefill_per_second)),
            decode_per_second: spread(|run| run.decode_per_second),
            decode_per_second_per_stream: Spread::of(&pooled(|run| &run.stream_per_second)),
            first_token_ms: milliseconds(|run| &run.first_token),
            inter_token_ms: milliseconds(|run| &run.between_tokens),
            experts: ExpertsReport::new(runs),
            resident_bytes: runs.iter().filter_map(|run| run.resident_bytes).max(),
        }
    }
}

impl ExpertsReport {
    fn new(runs: &[Measured]) -> Option<Self> {
        let counts: Vec<_> = runs.iter().filter_map(|run| run.experts).collect();
        if counts.is_empty() {
            return None;
        }
        let rates: Vec<f64> = counts.iter().filter_map(|counts| counts.hit_rate()).collect();
        Some(Self {
            hit_rate: Spread::of(&rates),
            selections: counts.iter().map(|counts| counts.selections).sum(),
            hits: counts.iter().map(|counts| counts.hits).sum(),
            uploads: counts.iter().map(|counts| counts.uploads).sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experts::policy::LayerCounts;

    #[test]
    fn streams_and_runs_are_pooled() {
        let case = Case {
            prompt_tokens: 8,
            generate: 4,
            concurrency: 1,
        };
        let run = |rate: f64, hits: u64| Measured {
            prefill_per_second: rate,
            decode_per_second: Some(rate / 2.0),
            stream_per_second: vec![rate / 2.0],
            first_token: vec![0.001 * rate],
            between_tokens: vec![0.002, 0.004],
            experts: Some(LayerCounts {
                selections: 10,
                hits,
                ..LayerCounts::default()
            }),
            resident_bytes: Some(7),
        };
        let report = CaseReport::new(case, &[run(10.0, 5), run(30.0, 9), run(20.0, 7)]);
        let prefill = report.prefill_per_second.unwrap();
        assert_eq!((prefill.median, prefill.min, prefill.max), (20.0, 10.0, 30.0));
        let between = report.inter_token_ms.unwrap();
        assert_eq!((between.p50, between.p99, between.samples), (2.0, 4.0, 6));
        let experts = report.experts.unwrap();
        assert_eq!((experts.selections, experts.hits), (30, 21));
        assert!((experts.hit_rate.unwrap().median - 0.7).abs() < 1e-9);
        let without = CaseReport::new(
            case,
            &[Measured {
                experts: None,
                ..run(1.0, 0)
            }],
        );
        assert!(without.experts.is_none());
    }
}
