//! What `hearth benchmark --url` tells: as JSON, on the terminal, and as a page with charts.

use serde::Serialize;

use super::Target;
use super::client::Endpoint;
use super::fit::Count;
use crate::cli::benchmark::case::Case;
use crate::cli::benchmark::charts::{Across, Value, spread_value};
use crate::cli::benchmark::render::{acceptance_text, digits, spread_text};
use crate::cli::benchmark::results::Rates;
use crate::cli::benchmark::statistics::{Percentiles, Spread, mean, median, worst};
use crate::cli::benchmark::streams::Measured;
use crate::cli::machine::Machine;
use crate::cli::output;
use crate::report::{Figure, Page, Section, Series, Table};

/// What the numbers mean, below the table of a page.
const NOTE: &str = "Medians over the runs, with the least and the largest in brackets. Decode: tokens of all streams while \
    all of them decode, from the latest first token to the earliest end. Total: generated tokens over the whole run, prefill \
    included. Prefill: prompt tokens of all streams over the time in which a stream waits for its first token. First token: \
    from the request to the first text, mean and worst stream. Longest pause: the longest time in which a stream that had \
    begun received nothing. All by this client's clock. Prompts are different sentences for each stream and run.";
const RATIO_NOTE: &str = "Medians over the rounds of the ratio within a round, with the least and the largest in brackets. For \
    rates more is better, for times less.";

/// One call of `hearth benchmark --url`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Version of hearth.
    pub(super) hearth: &'static str,
    /// When it began, in UTC.
    pub(super) date: String,
    pub(super) command: String,
    /// Where the client ran.
    pub(super) machine: Machine,
    pub(super) servers: Vec<ServerFacts>,
    pub(super) endpoint: Endpoint,
    /// Counted runs of each case on each server.
    pub(super) repeat: u32,
    /// Time between the starts of two streams.
    pub(super) stagger_ms: u128,
    /// `--seed` with which the prompts are the same.
    pub(super) seed: u32,
    pub(super) cases: Vec<Compared>,
}

/// A server that was measured.
#[derive(Debug, Serialize)]
pub(super) struct ServerFacts {
    pub(super) name: String,
    pub(super) url: String,
    pub(super) model: String,
    /// Its `Server` header.
    pub(super) software: Option<String>,
    /// How the length of prompts was counted.
    pub(super) prompt_length: Count,
    /// What makes its numbers less comparable.
    pub(super) notes: Vec<String>,
}

impl ServerFacts {
    /// What a report says about the server, with its name before each line.
    pub(super) fn lines(&self) -> Vec<(String, String)> {
        let software = self.software.as_ref().map_or(String::new(), |name| format!(", {name}"));
        let counted = match self.prompt_length {
            Count::Tokenize => "/tokenize",
            Count::Usage => "the usage of probes",
        };
        let about = format!("{} ({}{software}), prompt lengths by {counted}", self.model, self.url);
        let lines = std::iter::once(&about).chain(&self.notes);
        lines.map(|line| (self.name.clone(), line.clone())).collect()
    }
}

/// One case on all servers.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    #[serde(flatten)]
    case: Case,
    /// In the order of the command line.
    servers: Vec<ServerRates>,
}

#[derive(Debug, Serialize)]
struct ServerRates {
    name: String,
    #[serde(flatten)]
    rates: Rates,
    /// `None` for the first server.
    ratio_to_first: Option<Ratios>,
}

/// How many times a server's value is that of the first server in the same round.
#[derive(Debug, Serialize)]
struct Ratios {
    decode_per_second: Option<Spread>,
    /// Of the medians over the streams.
    decode_per_second_per_stream: Option<Spread>,
    total_per_second: Option<Spread>,
    prefill_per_second: Option<Spread>,
    first_token_mean_ms: Option<Spread>,
    first_token_worst_ms: Option<Spread>,
    inter_token_p50_ms: Option<Spread>,
    inter_token_p99_ms: Option<Spread>,
    longest_pause_ms: Option<Spread>,
}

impl Compared {
    /// `runs` by server; each list has one run per round.
    pub(super) fn new(case: Case, targets: &[Target], runs: &[Vec<Measured>]) -> Self {
        let servers = targets
            .iter()
            .zip(runs)
            .enumerate()
            .map(|(index, (target, of_server))| ServerRates {
                name: target.facts.name.clone(),
                rates: Rates::new(of_server),
                ratio_to_first: (index > 0).then(|| Ratios::new(of_server, &runs[0])),
            });
        Self {
            case,
            servers: servers.collect(),
        }
    }
}

impl Ratios {
    fn new(runs: &[Measured], base: &[Measured]) -> Self {
        let ratio = |value: fn(&Measured) -> Option<f64>| {
            let pairs = runs.iter().zip(base);
            let ratios = pairs.filter_map(|(run, base)| {
                let base = value(base).filter(|base| *base > 0.0)?;
                Some(value(run)? / base)
            });
            Spread::of(&ratios.collect::<Vec<_>>())
        };
        Self {
            decode_per_second: ratio(|run| run.decode_per_second),
            decode_per_second_per_stream: ratio(|run| {
                Some(median(run.stream_per_second.clone())).filter(|rate| !rate.is_nan())
            }),
            total_per_second: ratio(|run| Some(run.total_per_second)),
            prefill_per_second: ratio(|run| Some(run.prefill_per_second)),
            first_token_mean_ms: ratio(|run| mean(&run.first_token)),
            first_token_worst_ms: ratio(|run| worst(&run.first_token)),
            inter_token_p50_ms: ratio(|run| Some(Percentiles::of(&run.between_tokens)?.p50)),
            inter_token_p99_ms: ratio(|run| Some(Percentiles::of(&run.between_tokens)?.p99)),
            longest_pause_ms: ratio(|run| run.longest_pause),
        }
    }
}

/// The report as text.
pub(super) fn terminal(report: &Report) -> String {
    let mut out = String::new();
    for (name, value) in facts(report) {
        out.push_str(&format!("{name:<12} {value}\n"));
    }
    out.push_str(&format!("\n{}\n", output::table(results(report))));
    if let [first, _, ..] = report.servers.as_slice() {
        let ratios = output::table(ratios(report));
        out.push_str(&format!("\nRatios to {}, by round:\n\n{ratios}\n", first.name));
    }
    out
}

/// The report as a page.
pub(super) fn page(report: &Report) -> Page {
    let names: Vec<&str> = report.servers.iter().map(|server| server.name.as_str()).collect();
    let mut sections = vec![Section {
        heading: "Results".into(),
        text: Some(NOTE.into()),
        table: Some(results(report)),
        figures: Vec::new(),
    }];
    if names.len() > 1 {
        sections.push(Section {
            heading: format!("Ratios to {}", names[0]),
            text: Some(RATIO_NOTE.into()),
            table: Some(ratios(report)),
            figures: Vec::new(),
        });
    }
    sections.push(Section {
        heading: "Charts".into(),
        figures: figures(report),
        ..Section::default()
    });
    Page {
        title: format!("hearth benchmark: {}", names.join(", ")),
        facts: facts(report),
        sections,
    }
}

fn facts(report: &Report) -> Vec<(String, String)> {
    let mut facts: Vec<(String, String)> = report.servers.iter().flat_map(ServerFacts::lines).collect();
    let arrival = match report.stagger_ms {
        0 => "all streams at once".to_owned(),
        ms => format!("a stream every {ms} ms"),
    };
    let endpoint = match report.endpoint {
        Endpoint::Completions => "/v1/completions",
        Endpoint::Chat => "/v1/chat/completions",
    };
    let load = format!(
        "{endpoint}, {arrival}, {} runs each, seed {}",
        report.repeat, report.seed
    );
    let others = [
        ("load", load),
        ("client on", report.machine.to_string()),
        ("hearth", format!("{}, {}", report.hearth, report.date)),
        ("command", report.command.clone()),
    ];
    facts.extend(others.map(|(name, value)| (name.to_owned(), value)));
    facts
}

/// The first columns of a row.
fn case_columns(case: Case, name: &str) -> Vec<String> {
    vec![
        case.prompt_tokens.to_string(),
        case.generate.to_string(),
        case.concurrency.to_string(),
        name.to_owned(),
    ]
}

fn header(columns: &[&str]) -> Vec<String> {
    let case = ["prompt", "generate", "streams", "server"];
    case.iter().chain(columns).map(ToString::to_string).collect()
}

fn results(report: &Report) -> Table {
    let mut rows = Vec::new();
    for compared in &report.cases {
        for server in &compared.servers {
            let rates = &server.rates;
            let mut row = case_columns(compared.case, &server.name);
            row.extend([
                spread_text(rates.decode_per_second),
                spread_text(rates.decode_per_second_per_stream),
                spread_text(rates.total_per_second),
                spread_text(rates.prefill_per_second),
                spread_text(rates.first_token_mean_ms),
                spread_text(rates.first_token_worst_ms),
                rates.inter_token_ms.map_or("-".to_owned(), |all| {
                    format!("{} / {}", digits(all.p50), digits(all.p99))
                }),
                spread_text(rates.longest_pause_ms),
                acceptance_text(rates.drafts),
            ]);
            rows.push(row);
        }
    }
    Table {
        header: header(&[
            "decode tokens/s",
            "per stream",
            "total tokens/s",
            "prefill tokens/s",
            "first token ms, mean",
            "first token ms, worst",
            "inter-token ms p50/p99",
            "longest pause ms",
            "drafts accepted",
        ]),
        rows,
    }
}

fn ratios(report: &Report) -> Table {
    let mut rows = Vec::new();
    for compared in &report.cases {
        for server in &compared.servers {
            let Some(ratios) = &server.ratio_to_first else { continue };
            let mut row = case_columns(compared.case, &server.name);
            row.extend(
                [
                    ratios.decode_per_second,
                    ratios.decode_per_second_per_stream,
                    ratios.total_per_second,
                    ratios.prefill_per_second,
                    ratios.first_token_mean_ms,
                    ratios.first_token_worst_ms,
                    ratios.inter_token_p50_ms,
                    ratios.longest_pause_ms,
                ]
                .map(spread_text),
            );
            rows.push(row);
        }
    }
    Table {
        header: header(&[
            "decode",
            "per stream",
            "total",
            "prefill",
            "first token, mean",
            "first token, worst",
            "inter-token p50",
            "longest pause",
        ]),
        rows,
    }
}

fn figures(report: &Report) -> Vec<Figure> {
    let across = Across::of(report.cases.iter().map(|compared| compared.case).collect());
    let lines = |value: fn(&Rates) -> Option<Value>| -> Vec<Series> {
        let servers = report.servers.iter().enumerate();
        servers
            .flat_map(|(index, server)| {
                across.lines(&server.name, |case| value(&report.cases[case].servers[index].rates))
            })
            .collect()
    };
    let charts = [
        (
            "decode",
            "Decode, all streams",
            "tokens/s",
            lines(|rates| rates.decode_per_second.map(spread_value)),
        ),
        (
            "total",
            "Generated tokens over the whole run",
            "tokens/s",
            lines(|rates| rates.total_per_second.map(spread_value)),
        ),
        (
            "prefill",
            "Prefill",
            "tokens/s",
            lines(|rates| rates.prefill_per_second.map(spread_value)),
        ),
        (
            "first-token",
            "Time to the first token, mean of the streams",
            "ms",
            lines(|rates| rates.first_token_mean_ms.map(spread_value)),
        ),
        (
            "longest-pause",
            "Longest pause of a stream",
            "ms",
            lines(|rates| rates.longest_pause_ms.map(spread_value)),
        ),
    ];
    charts
        .into_iter()
        .filter_map(|(name, title, unit, series)| across.figure(name, title.to_owned(), unit, series))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_formed_within_a_round() {
        let run = |rate: f64, first: f64| Measured {
            decode_per_second: Some(rate),
            first_token: vec![first, 3.0 * first],
            ..Measured::default()
        };
        // The machine became twice as fast: each round says the same.
        let base = [run(10.0, 4.0), run(20.0, 2.0), run(20.0, 2.0)];
        let runs = [run(15.0, 2.0), run(30.0, 1.0), run(10.0, 1.0)];
        let ratios = Ratios::new(&runs, &base);
        let decode = ratios.decode_per_second.unwrap();
        assert_eq!((decode.median, decode.min, decode.max), (1.5, 0.5, 1.5));
        let first = ratios.first_token_worst_ms.unwrap();
        assert_eq!((first.median, first.min, first.max), (0.5, 0.5, 0.5));
        // Nothing was decoded in streams, and nobody paused.
        assert!(ratios.decode_per_second_per_stream.is_none() && ratios.longest_pause_ms.is_none());
    }
}
