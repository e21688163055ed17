//! The report as text for the terminal, and as a page with charts.

use std::collections::BTreeMap;

use super::charts::{Across, Value, spread_value};
use super::results::{CaseReport, Report};
use super::statistics::{Percentiles, Spread};
use super::streams::Drafts;
use crate::cli::output;
use crate::engine::MemoryUse;
use crate::memory::{Kind, Tier};
use crate::report::{Figure, Page, Section, Table};

/// What the numbers mean, below the table of a page.
const NOTE: &str = "Rates are medians over the runs, with the least and the largest in brackets. Prefill: prompt tokens of \
    all streams over the time in which a stream waits for its first token. Decode: tokens of all streams while all of them \
    decode, from the latest first token to the earliest end. Longest pause: the longest time in which a stream that had \
    begun received nothing. Percentiles are over all streams and runs. Prompts are sentences in random order, none is \
    reused, and decoding is greedy and ignores end tokens.";

/// More lines than this are hard to tell apart.
const MAX_LINES: usize = 8;

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
                text: Some("Weights that are mapped from the file count with the length of the mapping.".into()),
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

/// Memory by device and kind, as planned and as allocated.
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
    let stagger = match report.stagger_ms {
        0 => String::new(),
        ms => format!(", a stream every {ms} ms"),
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
            format!(
                "{}, {}, {} runs each{stagger}",
                report.hearth, report.date, report.repeat
            ),
        ),
        ("command", report.command.clone()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn table(report: &Report) -> Table {
    let drafted = report.cases.iter().any(|case| case.rates.drafts.computed > 0);
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
        "longest pause ms",
    ];
    if drafted {
        header.push("drafts accepted");
    }
    if cached {
        header.push("hit rate");
    }
    header.push("memory");
    let row = |case: &CaseReport| {
        let mut row = vec![
            case.case.prompt_tokens.to_string(),
            case.case.generate.to_string(),
            case.case.concurrency.to_string(),
            spread_text(case.rates.prefill_per_second),
            spread_text(case.rates.decode_per_second),
            spread_text(case.rates.decode_per_second_per_stream),
            percentiles_text(case.rates.first_token_ms),
            percentiles_text(case.rates.inter_token_ms),
            spread_text(case.rates.longest_pause_ms),
        ];
        if drafted {
            row.push(acceptance_text(case.rates.drafts));
        }
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

/// One median divided by another.
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

/// The share of guesses that were right.
pub(super) fn acceptance_text(drafts: Drafts) -> String {
    let share = drafts.acceptance();
    share.map_or("-".to_owned(), |share| {
        format!("{:.1} % of {}", share * 100.0, drafts.computed)
    })
}

fn percentiles_text(percentiles: Option<Percentiles>) -> String {
    match percentiles {
        None => "-".to_owned(),
        Some(Percentiles { p50, p95, p99, .. }) => format!("{} / {} / {}", digits(p50), digits(p95), digits(p99)),
    }
}

/// Three significant digits or more: measurements are no more precise.
pub(super) fn digits(value: f64) -> String {
    let decimals = match value {
        _ if value >= 100.0 || value == 0.0 => 0,
        _ if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

fn figures(report: &Report) -> Vec<Figure> {
    let model = &report.model.name;
    let across = Across::of(report.cases.iter().map(|case| case.case).collect());
    let lines = |what: &str, value: &dyn Fn(&CaseReport) -> Option<Value>| {
        across.lines(what, |index| value(&report.cases[index]))
    };
    let prefill = lines("", &|case| case.rates.prefill_per_second.map(spread_value));
    let mut decode = lines("all streams", &|case| case.rates.decode_per_second.map(spread_value));
    decode.extend(lines("one stream", &|case| {
        case.rates.decode_per_second_per_stream.map(spread_value)
    }));
    let latency = |percentiles: fn(&CaseReport) -> Option<Percentiles>| {
        let lines =
            |name: &str, pick: fn(&Percentiles) -> f64| lines(name, &|case| Some((pick(&percentiles(case)?), None)));
        let mut series = lines("p95", |all| all.p95);
        // With many combinations one percentile of each is all that can be told apart.
        if series.len() <= MAX_LINES / 3 {
            series.splice(0..0, lines("p50", |all| all.p50));
            series.extend(lines("p99", |all| all.p99));
        }
        series
    };
    let hit_rate = lines("", &|case| {
        let rate = case.experts.as_ref()?.hit_rate?;
        Some((rate.median * 100.0, Some((rate.min * 100.0, rate.max * 100.0))))
    });
    let first_token = latency(|case| case.rates.first_token_ms);
    let inter_token = latency(|case| case.rates.inter_token_ms);
    [
        ("decode", "Decode", "tokens/s", decode),
        ("prefill", "Prefill", "tokens/s", prefill),
        ("first-token", "Time to the first token", "ms", first_token),
        ("inter-token", "Time between tokens", "ms", inter_token),
        ("hit-rate", "Hit rate of the expert cache", "%", hit_rate),
    ]
    .into_iter()
    .filter_map(|(name, what, unit, mut series)| {
        for line in series.iter_mut().filter(|line| line.name.is_empty()) {
            line.name.clone_from(model);
        }
        across.figure(name, format!("{what}: {model}"), unit, series)
    })
    .collect()
}
