//! What a scenario showed: as JSON, on the terminal, and as a page.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::{ServerFacts, Target};
use super::{Part, Scenario};
use crate::cli::benchmark::case::Case;
use crate::cli::benchmark::render::spread_text;
use crate::cli::benchmark::statistics::Spread;
use crate::cli::machine::Machine;
use crate::cli::output;
use crate::report::{Page, Section, Table};

/// By case, by server, by round: the parts.
pub(super) type Measurements = Vec<Vec<Vec<Vec<Part>>>>;

const CONVERSATION_NOTE: &str = "A chat with a system prompt and two tools that nobody saw before, its second turn, the same \
    again, the same with another last message, and another chat with the same system prompt and tools. First token: from the \
    request to the first text, by this client's clock. Prompt tokens and cached ones are the server's own counts.";
const MIXED_NOTE: &str = "Streams with short prompts decode; when each has a quarter of its tokens, a long prompt arrives. \
    Decode: tokens of all streams before that, and from then to the first token of the long prompt. Longest pause: the longest \
    time in which a stream that had begun received nothing.";

/// One call of `hearth benchmark --conversation` or `--mixed`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Version of hearth.
    pub(super) hearth: &'static str,
    /// When it began, in UTC.
    pub(super) date: String,
    pub(super) command: String,
    /// Where the client ran.
    pub(super) machine: Machine,
    pub(super) scenario: Scenario,
    pub(super) servers: Vec<ServerFacts>,
    /// Counted rounds.
    pub(super) repeat: u32,
    /// `--seed` with which the texts are the same.
    pub(super) seed: u32,
    pub(super) parts: Vec<Compared>,
}

/// One part of the scenario, with the numbers of one case, on all servers.
#[derive(Debug, Serialize)]
pub(super) struct Compared {
    #[serde(flatten)]
    case: Case,
    name: &'static str,
    /// In the order of the command line.
    servers: Vec<Values>,
}

#[derive(Debug, Serialize)]
struct Values {
    name: String,
    /// By the column's name.
    #[serde(flatten)]
    values: Map<String, Value>,
    /// How many times a value is that of the first server in the same round; `None` for the first server.
    ratio_to_first: Option<Map<String, Value>>,
    /// The values and ratios again, in the order of the columns.
    #[serde(skip)]
    spreads: Vec<[Option<Spread>; 2]>,
}

/// Summaries of each part of each case.
pub(super) fn compare(
    scenario: Scenario,
    cases: &[Case],
    targets: &[Target],
    measured: &Measurements,
) -> Vec<Compared> {
    let mut compared = Vec::new();
    for (case, servers) in cases.iter().zip(measured) {
        let parts = servers[0].first().map_or(0, Vec::len);
        for part in 0..parts {
            let of_server = |rounds: &[Vec<Part>], column: usize| -> Vec<Option<f64>> {
                rounds.iter().map(|parts| parts[part].values[column]).collect()
            };
            let servers_of_part = targets
                .iter()
                .zip(servers)
                .enumerate()
                .map(|(index, (target, rounds))| {
                    let columns = 0..scenario.columns().len();
                    let spreads = columns.map(|column| {
                        let (own, first) = (of_server(rounds, column), of_server(&servers[0], column));
                        [spread(own.iter().copied()), spread(ratios(&own, &first))]
                    });
                    Values::new(scenario, target.facts.name.clone(), spreads.collect(), index > 0)
                });
            compared.push(Compared {
                case: *case,
                name: servers[0][0][part].name,
                servers: servers_of_part.collect(),
            });
        }
    }
    compared
}

fn spread(values: impl Iterator<Item = Option<f64>>) -> Option<Spread> {
    Spread::of(&values.flatten().collect::<Vec<_>>())
}

fn ratios<'v>(values: &'v [Option<f64>], base: &'v [Option<f64>]) -> impl Iterator<Item = Option<f64>> + 'v {
    let pairs = values.iter().zip(base);
    pairs.map(|(value, base)| Some((*value)? / (*base).filter(|base| *base > 0.0)?))
}

impl Values {
    fn new(scenario: Scenario, name: String, spreads: Vec<[Option<Spread>; 2]>, compared: bool) -> Self {
        let object = |which: usize| -> Map<String, Value> {
            let columns = scenario.columns().iter().zip(&spreads);
            columns
                .map(|((key, _), spreads)| ((*key).to_owned(), json!(spreads[which])))
                .collect()
        };
        Self {
            name,
            values: object(0),
            ratio_to_first: compared.then(|| object(1)),
            spreads,
        }
    }
}

/// The report as text.
pub(super) fn terminal(report: &Report) -> String {
    let mut out = String::new();
    for (name, value) in facts(report) {
        out.push_str(&format!("{name:<12} {value}\n"));
    }
    out.push_str(&format!("\n{}\n", output::table(table(report, 0))));
    if let [first, _, ..] = report.servers.as_slice() {
        let ratios = output::table(table(report, 1));
        out.push_str(&format!("\nRatios to {}, by round:\n\n{ratios}\n", first.name));
    }
    out
}

/// The report as a page.
pub(super) fn page(report: &Report) -> Page {
    let (title, note) = match report.scenario {
        Scenario::Conversation => ("the turns of a conversation", CONVERSATION_NOTE),
        Scenario::Mixed => ("a long prompt beside streams", MIXED_NOTE),
    };
    let mut sections = vec![Section {
        heading: "Results".into(),
        text: Some(format!(
            "{note} Medians over the rounds, with the least and the largest in brackets."
        )),
        table: Some(table(report, 0)),
        figures: Vec::new(),
    }];
    if let [first, _, ..] = report.servers.as_slice() {
        sections.push(Section {
            heading: format!("Ratios to {}", first.name),
            text: Some("Medians over the rounds of the ratio within a round.".into()),
            table: Some(table(report, 1)),
            figures: Vec::new(),
        });
    }
    Page {
        title: format!("hearth benchmark: {title}"),
        facts: facts(report),
        sections,
    }
}

fn facts(report: &Report) -> Vec<(String, String)> {
    let mut facts: Vec<(String, String)> = report.servers.iter().flat_map(ServerFacts::lines).collect();
    let others = [
        ("load", format!("{} rounds, seed {}", report.repeat, report.seed)),
        ("client on", report.machine.to_string()),
        ("hearth", format!("{}, {}", report.hearth, report.date)),
        ("command", report.command.clone()),
    ];
    facts.extend(others.map(|(name, value)| (name.to_owned(), value)));
    facts
}

/// A row for each part and server: values, or their ratios to the first server.
fn table(report: &Report, which: usize) -> Table {
    let columns = report.scenario.columns().iter().map(|(_, header)| *header);
    let case: &[&str] = match report.scenario {
        Scenario::Conversation => &["system prompt", "what", "server"],
        Scenario::Mixed => &["long prompt", "streams", "server"],
    };
    let mut rows = Vec::new();
    for part in &report.parts {
        for server in part.servers.iter().skip(which) {
            let what = match report.scenario {
                Scenario::Conversation => part.name.to_owned(),
                Scenario::Mixed => format!("{} x {} tokens", part.case.concurrency, part.case.generate),
            };
            let mut row = vec![part.case.prompt_tokens.to_string(), what, server.name.clone()];
            row.extend(server.spreads.iter().map(|spreads| spread_text(spreads[which])));
            rows.push(row);
        }
    }
    Table {
        header: case.iter().copied().chain(columns).map(str::to_owned).collect(),
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_rounds_that_both_have() {
        let own = [Some(2.0), None, Some(9.0), Some(1.0)];
        let base = [Some(4.0), Some(1.0), Some(3.0), Some(0.0)];
        let spread = spread(ratios(&own, &base)).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (1.75, 0.5, 3.0));
    }
}
