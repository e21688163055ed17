//! The report as plain data: what `--json` prints.

use serde::Serialize;
use serde_json::Value;

use super::case::Case;
use super::statistics::{Percentiles, Spread, mean, worst};
use super::streams::{Drafts, Measured};
use crate::cli::machine::Machine;
use crate::engine::{MemoryUse, ModelInfo};
use crate::gguf::{self, Gguf, file_type_name};

/// The report of one invocation of `hearth benchmark`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Version of hearth.
    pub(super) hearth: &'static str,
    /// Start of the measurement, in UTC.
    pub(super) date: String,
    pub(super) command: String,
    pub(super) machine: Machine,
    pub(super) model: ModelFacts,
    /// Memory by device and kind, planned and allocated.
    pub(super) memory: Option<MemoryUse>,
    /// Counted runs of each case.
    pub(super) repeat: u32,
    /// Time between the starts of two streams.
    pub(super) stagger_ms: u128,
    pub(super) cases: Vec<CaseReport>,
}

/// The measured model.
#[derive(Debug, Serialize)]
pub(super) struct ModelFacts {
    pub(super) name: String,
    /// File name without the folder.
    pub(super) file: String,
    pub(super) architecture: String,
    /// Quantization mix, if the file names it.
    pub(super) file_type: Option<&'static str>,
    pub(super) bytes: u64,
    pub(super) parameters: u64,
    /// Tokens per slot.
    pub(super) context: u32,
    pub(super) slots: u32,
    pub(super) threads: u32,
    /// The effective keys of `experts`.
    pub(super) experts: Value,
}

/// The results of one case.
#[derive(Debug, Serialize)]
pub(super) struct CaseReport {
    #[serde(flatten)]
    pub(super) case: Case,
    #[serde(flatten)]
    pub(super) rates: Rates,
    pub(super) experts: Option<ExpertsReport>,
    /// The largest over the runs.
    pub(super) resident_bytes: Option<u64>,
}

/// Rates and latencies of some runs. Rates are tokens per second; a [`Spread`] is over the runs (over all streams and runs
/// for the rate per stream), percentiles are over all streams and runs.
#[derive(Debug, Serialize)]
pub(super) struct Rates {
    pub(super) prefill_per_second: Option<Spread>,
    /// Of all streams together.
    pub(super) decode_per_second: Option<Spread>,
    pub(super) decode_per_second_per_stream: Option<Spread>,
    /// Generated tokens over the whole run, prefill included.
    pub(super) total_per_second: Option<Spread>,
    pub(super) first_token_ms: Option<Percentiles>,
    /// The mean over the streams of a run.
    pub(super) first_token_mean_ms: Option<Spread>,
    /// Of the stream of a run that waited longest.
    pub(super) first_token_worst_ms: Option<Spread>,
    pub(super) inter_token_ms: Option<Percentiles>,
    pub(super) longest_pause_ms: Option<Spread>,
    /// Guesses of all streams and runs.
    pub(super) drafts: Drafts,
}

/// What the expert cache did in the counted runs.
#[derive(Debug, Serialize)]
pub(super) struct ExpertsReport {
    /// Over the runs; `None` if no run used the cache.
    pub(super) hit_rate: Option<Spread>,
    pub(super) selections: u64,
    pub(super) hits: u64,
    pub(super) uploads: u64,
}

impl ModelFacts {
    pub(super) fn new(info: &ModelInfo, file: &Gguf, threads: u32, experts: Value) -> Self {
        let file_type = file.get("general.file_type").and_then(|number| number.as_u64());
        let name = file.path().file_name().unwrap_or(file.path().as_os_str());
        Self {
            name: info.name.clone(),
            file: gguf::printable(&name.to_string_lossy()),
            architecture: info.architecture.clone(),
            file_type: file_type.and_then(file_type_name),
            bytes: info.size_bytes,
            parameters: info.parameters,
            context: info.context,
            slots: info.parallel,
            threads,
            experts,
        }
    }
}

impl CaseReport {
    pub(super) fn new(case: Case, runs: &[Measured]) -> Self {
        Self {
            case,
            rates: Rates::new(runs),
            experts: ExpertsReport::new(runs),
            resident_bytes: runs.iter().filter_map(|run| run.resident_bytes).max(),
        }
    }
}

impl Rates {
    pub(super) fn new(runs: &[Measured]) -> Self {
        let spread =
            |value: fn(&Measured) -> Option<f64>| Spread::of(&runs.iter().filter_map(value).collect::<Vec<_>>());
        let pooled = |values: fn(&Measured) -> &[f64]| -> Vec<f64> { runs.iter().flat_map(values).copied().collect() };
        let milliseconds = |values: fn(&Measured) -> &[f64]| {
            Percentiles::of(&pooled(values).iter().map(|seconds| seconds * 1e3).collect::<Vec<_>>())
        };
        Self {
            prefill_per_second: spread(|run| Some(run.prefill_per_second)),
            decode_per_second: spread(|run| run.decode_per_second),
            decode_per_second_per_stream: Spread::of(&pooled(|run| &run.stream_per_second)),
            total_per_second: spread(|run| Some(run.total_per_second)),
            first_token_ms: milliseconds(|run| &run.first_token),
            first_token_mean_ms: spread(|run| Some(mean(&run.first_token)? * 1e3)),
            first_token_worst_ms: spread(|run| Some(worst(&run.first_token)? * 1e3)),
            inter_token_ms: milliseconds(|run| &run.between_tokens),
            longest_pause_ms: spread(|run| Some(run.longest_pause? * 1e3)),
            drafts: runs.iter().map(|run| run.drafts).fold(Drafts::default(), Drafts::plus),
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
            first_token: vec![0.001 * rate, 0.003 * rate],
            between_tokens: vec![0.002, 0.004],
            longest_pause: Some(0.005 * rate),
            experts: Some(LayerCounts {
                selections: 10,
                hits,
                ..LayerCounts::default()
            }),
            resident_bytes: Some(7),
            ..Measured::default()
        };
        let report = CaseReport::new(case, &[run(10.0, 5), run(30.0, 9), run(20.0, 7)]);
        let prefill = report.rates.prefill_per_second.unwrap();
        assert_eq!((prefill.median, prefill.min, prefill.max), (20.0, 10.0, 30.0));
        let between = report.rates.inter_token_ms.unwrap();
        assert_eq!((between.p50, between.p99, between.samples), (2.0, 4.0, 6));
        let medians = [
            report.rates.first_token_mean_ms,
            report.rates.first_token_worst_ms,
            report.rates.longest_pause_ms,
        ]
        .map(|spread| spread.unwrap().median.round());
        assert_eq!(medians, [40.0, 60.0, 100.0]);
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
