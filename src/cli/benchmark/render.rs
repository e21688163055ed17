//! The report for people: on the terminal, and as a page with charts.

use std::collections::BTreeMap;

use super::results::{CaseReport, Report};
use super::statistics::{Percentiles, Spread};
use crate::cli::output;
use crate::engine::MemoryUse;
use crate::memory::{Kind, Tier};
use crate::report::{Axis, Figure, LineChart, Page, Point, Section, Series, Table};

/// What the numbers mean, below the table of a page.
const NOTE: &str = "Rates are medians over the runs, with the least and the largest. Prefill: prompt tokens of all \
    streams over the time until the last of them had its first token. Decode: tokens of all streams after each one's \
    first, from the earliest first token to the last token. Percentiles are over all streams and runs. Prompts are text \
    in random order, none is reused, decoding is greedy and does not stop.";

/// More lines than this are hard to tell apart.
const MOST_LINES: usize = 8;

/// The report as text.
pub(super) fn terminal(report: &Report) -> String {
    let mut out = String::new();
    for (name, value) in facts(report) {
        out.push_str(&format!("{name:<8} {value}\n"));
    }
    out.push_str(&format!("\n{}\n", output::table(table(report))));
    out
}

/// The report as a page.
pub(super) fn page(report: &Report) -> Page {
    Page {
        title: format!("hearth benchmark: {}", report.model.name),
        facts: facts(report),
        sections: vec![
            Section {
                heading: "Results".into(),
                text: Some(NOTE.into()),
                table: Some(table(report)),
                figures: Vec::new(),
            },
            Section {
                heading: "Memory".into(),
                text: Some("Weights that are mapped from the file are counted as long as the map is.".into()),
                table: report.memory.as_ref().map(memory_table),
                figures: Vec::new(),
            },
            Section {
                heading: "Charts".into(),
                figures: figures(report),
                ..Section::default()
            },
        ],
    }
}

/// What is where, as planned and as allocated.
fn memory_table(memory: &MemoryUse) -> Table {
    let mut sums: BTreeMap<(Tier, Kind), [u64; 2]> = BTreeMap::new();
    for row in &memory.planned {
        sums.entry((row.tier, row.kind)).or_default()[0] += row.bytes;
    }
    for buffers in &memory.actual {
        sums.entry((buffers.tier, buffers.kind)).or_default()[1] += buffers.bytes;
    }
    let rows = sums.into_iter().map(|((tier, kind), [planned, actual])| {
        vec![
            tier.name().to_owned(),
            kind.name().to_owned(),
            output::bytes(planned),
            output::bytes(actual),
        ]
    });
    Table {
        header: ["device", "what", "planned", "allocated"].map(str::to_owned).into(),
        rows: rows.collect(),
    }
}

fn facts(report: &Report) -> Vec<(String, String)> {
    let (machine, model) = (&report.machine, &report.model);
    let experts = match model.experts.as_object() {
        Some(keys) => keys
            .iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect::<Vec<_>>()
            .join(", "),
        None => String::new(),
    };
    let kind = model.file_type.map_or(String::new(), |kind| format!("{kind}, "));
    [
        (
            "model",
            format!(
                "{} ({}, {}, {kind}{})",
                model.name,
                model.file,
                model.architecture,
                output::bytes(model.bytes)
            ),
        ),
        (
            "engine",
            format!(
                "{} slots of {} tokens, {} threads",
                model.slots, model.context, model.threads
            ),
        ),
        ("experts", experts),
        ("machine", machine.to_string()),
        (
            "hearth",
            format!("{}, {}, {} runs each", report.hearth, report.date, report.repeat),
        ),
        ("command", report.command.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn table(report: &Report) -> Table {
    let cached = report.cases.iter().any(|case| case.experts.is_some());
    let mut header = vec![
        "prompt",
        "generate",
        "streams",
        "prefill tokens/s",
        "decode tokens/s",
        "per stream",
        "first token ms p50/p95/p99",
        "inter-token ms p50/p95/p99",
    ];
    if cached {
        header.push("hit rate");
    }
    header.push("memory");
    let row = |case: &CaseReport| {
        let mut row = vec![
            case.case.prompt_tokens.to_string(),
            case.case.generate.to_string(),
            case.case.concurrency.to_string(),
            spread_text(case.prefill_per_second),
            spread_text(case.decode_per_second),
            spread_text(case.decode_per_second_per_stream),
            percentiles_text(case.first_token_ms),
            percentiles_text(case.inter_token_ms),
        ];
        if cached {
            let rate = case.experts.as_ref().and_then(|experts| experts.hit_rate);
            row.push(rate.map_or("-".into(), |rate| format!("{:.1} %", rate.median * 100.0)));
        }
        row.push(case.resident_bytes.map_or("-".into(), output::bytes));
        row
    };
    Table {
        header: header.into_iter().map(str::to_owned).collect(),
        rows: report.cases.iter().map(row).collect(),
    }
}

/// How many times one median is another.
pub(super) fn ratio_text(spread: Option<Spread>, base: Option<Spread>) -> String {
    match (spread, base) {
        (Some(spread), Some(base)) if base.median > 0.0 => format!("{:.2}", spread.median / base.median),
        _ => "-".to_owned(),
    }
}

pub(super) fn spread_text(spread: Option<Spread>) -> String {
    match spread {
        None => "-".to_owned(),
        Some(Spread { median, min, max }) => format!("{} ({}..{})", digits(median), digits(min), digits(max)),
    }
}

fn percentiles_text(percentiles: Option<Percentiles>) -> String {
    match percentiles {
        None => "-".to_owned(),
        Some(Percentiles { p50, p95, p99, .. }) => format!("{} / {} / {}", digits(p50), digits(p95), digits(p99)),
    }
}

/// Three digits or more: what is measured does not hold still for more.
fn digits(value: f64) -> String {
    let decimals = match value {
        _ if value >= 100.0 => 0,
        _ if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

fn figures(report: &Report) -> Vec<Figure> {
    let across = Across::of(report);
    let prefill = across.lines("", |case| case.prefill_per_second.map(spread_point));
    let mut decode = across.lines("all streams", |case| case.decode_per_second.map(spread_point));
    decode.extend(across.lines("one stream", |case| case.decode_per_second_per_stream.map(spread_point)));
    let latency = |percentiles: fn(&CaseReport) -> Option<Percentiles>| {
        let lines = |name: &str, pick: fn(&Percentiles) -> f64| {
            across.lines(name, |case| Some((pick(&percentiles(case)?), None)))
        };
        let mut series = lines("p95", |all| all.p95);
        // With many combinations one percentile of each is all that can be told apart.
        if series.len() <= MOST_LINES / 3 {
            series.splice(0..0, lines("p50", |all| all.p50));
            series.extend(lines("p99", |all| all.p99));
        }
        series
    };
    [
        ("decode", "Decode", "tokens/s", decode),
        ("prefill", "Prefill", "tokens/s", prefill),
        (
            "first-token",
            "Time to the first token",
            "ms",
            latency(|case| case.first_token_ms),
        ),
        (
            "inter-token",
            "Time between tokens",
            "ms",
            latency(|case| case.inter_token_ms),
        ),
        (
            "hit-rate",
            "Hit rate of the expert cache",
            "%",
            across.lines("", |case| {
                let rate = case.experts.as_ref()?.hit_rate?;
                Some((rate.median * 100.0, Some((rate.min * 100.0, rate.max * 100.0))))
            }),
        ),
    ]
    .into_iter()
    .filter(|(_, _, _, series)| !series.is_empty())
    .map(|(name, what, unit, series)| {
        let title = format!("{what}: {}", report.model.name);
        let chart = LineChart {
            title: title.clone(),
            x: Axis::doublings(across.label),
            y: Axis::linear(unit),
            series,
        };
        Figure {
            name: name.to_owned(),
            title,
            svg: chart.svg(),
        }
    })
    .collect()
}

fn spread_point(spread: Spread) -> (f64, Option<(f64, f64)>) {
    (spread.median, Some((spread.min, spread.max)))
}

/// One of the three numbers of a case.
type Dimension = fn(&CaseReport) -> u32;

/// The number that the charts go along; the others name the lines.
struct Across<'r> {
    report: &'r Report,
    label: &'static str,
    along: Dimension,
    /// Name and value of those that vary besides.
    others: Vec<(&'static str, Dimension)>,
}

impl<'r> Across<'r> {
    /// Along the streams if their number varies, else along the prompts, else along the answers.
    fn of(report: &'r Report) -> Self {
        const DIMENSIONS: [(&str, &str, Dimension); 3] = [
            ("streams at once", "streams", |case| case.case.concurrency),
            ("tokens of the prompt", "prompt", |case| case.case.prompt_tokens),
            ("tokens of the answer", "generate", |case| case.case.generate),
        ];
        let varies = |value: Dimension| report.cases.windows(2).any(|pair| value(&pair[0]) != value(&pair[1]));
        let chosen = DIMENSIONS.iter().position(|(_, _, value)| varies(*value)).unwrap_or(0);
        let (label, _, along) = DIMENSIONS[chosen];
        let others = DIMENSIONS
            .iter()
            .enumerate()
            .filter(|(index, (_, _, value))| *index != chosen && varies(*value))
            .map(|(_, (_, name, value))| (*name, *value));
        Self {
            report,
            label,
            along,
            others: others.collect(),
        }
    }

    /// A line for each combination of the other numbers, from a value with its spread; none for cases without a value.
    fn lines(&self, what: &str, value: impl Fn(&CaseReport) -> Option<(f64, Option<(f64, f64)>)>) -> Vec<Series> {
        let mut series: Vec<Series> = Vec::new();
        for case in &self.report.cases {
            let Some((y, spread)) = value(case) else { continue };
            let point = Point {
                x: f64::from((self.along)(case)),
                y,
                spread,
            };
            let name = self.name(what, case);
            match series.iter_mut().find(|series| series.name == name) {
                Some(series) => series.points.push(point),
                None => series.push(Series {
                    name,
                    points: vec![point],
                }),
            }
        }
        for line in &mut series {
            line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
        }
        series
    }

    fn name(&self, what: &str, case: &CaseReport) -> String {
        let mut parts: Vec<String> = self
            .others
            .iter()
            .map(|(name, value)| format!("{name} {}", value(case)))
            .collect();
        if !what.is_empty() {
            parts.insert(0, what.to_owned());
        }
        if parts.is_empty() {
            return self.report.model.name.clone();
        }
        parts.join(", ")
    }
}
