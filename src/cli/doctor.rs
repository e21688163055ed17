//! `hearth doctor`: what stands in the way of speed on this machine.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::output;
use crate::config::Overrides;
use crate::doctor::{self, Finding, Options, Status};

/// Arguments of `hearth doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file [env: HEARTH_CONFIG; else as `hearth serve`].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Leave out what is measured: the speed of memory and disks, a few seconds.
    #[arg(long)]
    quick: bool,

    /// Print only notes and problems.
    #[arg(long, short)]
    quiet: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'r> {
    /// The worst of the findings.
    status: Status,
    findings: Vec<&'r Finding>,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let facts = doctor::gather(&Options {
        overrides: Overrides {
            config: args.config,
            ..Overrides::default()
        },
        measure: !args.quick,
    });
    let findings = doctor::judge(&facts);
    let status = findings
        .iter()
        .map(|finding| finding.status)
        .max()
        .unwrap_or(Status::Ok);
    let shown = findings
        .iter()
        .filter(|finding| !args.quiet || finding.status > Status::Ok);
    let shown: Vec<&Finding> = shown.collect();
    if args.json {
        output::print_json(&Report {
            status,
            findings: shown,
        })?;
    } else {
        write(&shown, &findings)?;
    }
    Ok(if status == Status::Problem {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn write(shown: &[&Finding], all: &[Finding]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for finding in shown {
        writeln!(
            out,
            "{:<8} {:<14} {}",
            finding.status.name(),
            finding.subject,
            finding.what
        )?;
        for (name, text) in [("why:", &finding.why), ("change:", &finding.change)] {
            if let Some(text) = text {
                writeln!(out, "{:<23} {name:<7} {text}", "")?;
            }
        }
    }
    let count = |status| all.iter().filter(|finding| finding.status == status).count();
    let number = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    writeln!(
        out,
        "{}, {}",
        number(count(Status::Problem), "problem"),
        number(count(Status::Note), "note")
    )
}
