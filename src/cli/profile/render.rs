//! A profile for people: on the terminal, and as a page with charts.

use super::results::{LayerReport, Measured, Report};
use crate::cli::output;
use crate::experts::simulate::Row;
use crate::report::{Axis, ColorScale, Figure, HeatMap, HeatRow, LineChart, Page, Point, Section, Series, Table};

const ROWS_NOTE: &str = "The recorded tokens, replayed through each policy. The first half of the conversations gives the heat \
    map that fills the cache at the start, the same for all policies; the second half is counted. The hit rate is the share of \
    selected experts that had a copy on the cache device. The optimum knows the future (Belady): it starts with what is \
    selected first, keeps what is selected again soonest, and uploads as much as it likes, but nothing that was not just \
    selected. Uploads are per layer and decoded token, those at the end of prompts included and those that fill the cache at \
    the start left out; they are complete before the next token, in the simulation and in the run that was measured.";
const LAYERS_NOTE: &str = "Selections by prompts and decoded tokens. Entropy in bits: the more, the more evenly the \
    experts are used, and the less a cache can do.";

/// The profile as text.
pub(super) fn terminal(report: &Report) -> String {
    let mut out = String::new();
    for (name, value) in facts(report) {
        out.push_str(&format!("{name:<8} {value}\n"));
    }
    out.push_str(&format!("\n{}\n", output::table(rows(report))));
    out
}

/// The profile as a page.
pub(super) fn page(report: &Report) -> Page {
    Page {
        title: format!("hearth profile: {}", report.source),
        facts: facts(report),
        sections: vec![
            Section {
                heading: "Policies".into(),
                text: Some(ROWS_NOTE.into()),
                table: Some(rows(report)),
                figures: vec![hit_rates(report)],
            },
            Section {
                heading: "Layers".into(),
                text: Some(LAYERS_NOTE.into()),
                table: Some(layers(report)),
                figures: vec![heat_map(report)],
            },
        ],
    }
}

fn facts(report: &Report) -> Vec<(String, String)> {
    let geometry = &report.geometry;
    let mut facts = vec![
        ("source", report.source.clone()),
        (
            "experts",
            format!(
                "{} layers of {}, {} per token",
                geometry.layers, geometry.experts, geometry.experts_per_token
            ),
        ),
        (
            "tokens",
            format!(
                "{} of prompts, {} decoded; {} of them, in the second half of the conversations, are counted",
                geometry.prompt_tokens, geometry.decoded_tokens, geometry.counted_tokens
            ),
        ),
    ];
    if let Some(measured) = &report.measured {
        facts.push(("measured", measured.to_string()));
    }
    facts.extend([
        ("machine", report.machine.to_string()),
        ("hearth", format!("{}, {}", report.hearth, report.date)),
        ("command", report.command.clone()),
    ]);
    facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

impl std::fmt::Display for Measured {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (policy, capacity, rate) = (self.policy.name(), self.capacity, percent(self.hit_rate));
        write!(
            out,
            "hit rate {rate} with {policy} and copies of {capacity} experts per layer"
        )?;
        match self.simulated {
            Some(simulated) => write!(out, ", simulated {}", percent(simulated)),
            None => Ok(()),
        }
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn header(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a share of a small number")]
fn share(report: &Report, row: &Row) -> f64 {
    row.capacity as f64 / report.geometry.experts as f64
}

fn rows(report: &Report) -> Table {
    let row = |row: &Row| {
        vec![
            row.policy.name().to_owned(),
            format!("{} ({})", row.capacity, percent(share(report, row))),
            percent(row.hit_rate),
            percent(row.optimum),
            format!("{:.3}", row.of_optimum),
            format!("{:.2}", row.uploads_per_token),
        ]
    };
    Table {
        header: header(&[
            "policy",
            "capacity",
            "hit rate",
            "optimum",
            "of optimum",
            "uploads/token",
        ]),
        rows: report.rows.iter().map(row).collect(),
    }
}

fn layers(report: &Report) -> Table {
    let row = |layer: &LayerReport| {
        let top = layer
            .top
            .iter()
            .map(|top| format!("{} ({})", top.expert, percent(top.share)));
        vec![
            layer.layer.to_string(),
            layer.distinct.to_string(),
            format!("{:.2}", layer.entropy),
            top.collect::<Vec<_>>().join(", "),
        ]
    };
    Table {
        header: header(&["layer", "distinct", "entropy", "busiest experts"]),
        rows: report.layers.iter().map(row).collect(),
    }
}

/// A line for each policy, and one for the optimum.
fn hit_rates(report: &Report) -> Figure {
    let point = |row: &Row, rate: f64| Point {
        x: share(report, row) * 100.0,
        y: rate * 100.0,
        spread: None,
    };
    let mut series: Vec<Series> = Vec::new();
    let policies = &report.simulation.policies;
    for kind in policies {
        let rows = report.rows.iter().filter(|row| row.policy == *kind);
        series.push(Series {
            name: kind.name().to_owned(),
            points: rows.map(|row| point(row, row.hit_rate)).collect(),
        });
    }
    let rows = report.rows.iter().filter(|row| policies.first() == Some(&row.policy));
    series.push(Series {
        name: "optimum".into(),
        points: rows.map(|row| point(row, row.optimum)).collect(),
    });
    for line in &mut series {
        line.points.sort_by(|a, b| a.x.total_cmp(&b.x));
    }
    let title = format!("Hit rate by size of the cache: {}", report.source);
    let chart = LineChart {
        title: title.clone(),
        x: Axis::linear("% of the experts"),
        y: Axis::linear("% of the selections"),
        series,
    };
    Figure {
        name: "hit-rates".into(),
        title,
        svg: chart.svg(),
    }
}

fn heat_map(report: &Report) -> Figure {
    #[expect(clippy::cast_precision_loss, reason = "counts as colours")]
    let rows = report.layers.iter().map(|layer| HeatRow {
        name: layer.layer.to_string(),
        values: layer.selections.iter().map(|count| *count as f64).collect(),
    });
    let title = format!("Use of experts: {}", report.source);
    let map = HeatMap {
        title: title.clone(),
        row_label: "layer".into(),
        column_label: "expert".into(),
        value_label: "selections".into(),
        scale: ColorScale::SquareRoot,
        rows: rows.collect(),
    };
    Figure {
        name: "heat-map".into(),
        title,
        svg: map.svg(),
    }
}
