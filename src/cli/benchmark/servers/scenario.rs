//! What a list of equal streams does not show: `--conversation`, the turns of a chat, and `--mixed`, a long prompt that
//! arrives while others decode.
//!
//! Both speak to servers. Without `--url` the model is loaded into this process and served here, so that one client measures
//! hearth and everybody else. As ever, each round runs on one server after the other, and ratios are formed within a round.

mod conversation;
mod mixed;
mod report;

use anyhow::Context;

use self::report::{Measurements, Report};
use super::{Target, connect, random_seed};
use crate::cli::benchmark::case::{self, Case};
use crate::cli::benchmark::{Args, create_folder, long_prompt, now, write_report};
use crate::cli::machine::Machine;
use crate::cli::{engines, output};
use crate::models;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli::benchmark) enum Scenario {
    Conversation,
    Mixed,
}

/// What was measured of one part of a scenario in one round: a value for each of [`Scenario::columns`].
struct Part {
    name: &'static str,
    values: Vec<Option<f64>>,
}

impl Scenario {
    /// Streams at once where none are asked for.
    pub(in crate::cli::benchmark) fn streams(self) -> u32 {
        match self {
            Self::Conversation => 1,
            Self::Mixed => long_prompt::STREAMS,
        }
    }

    /// What a case of the command line needs of the model.
    fn needs(self, case: Case) -> Case {
        match self {
            // Answers of two turns, tools, and messages of the user.
            Self::Conversation => Case {
                generate: case
                    .generate
                    .saturating_mul(2)
                    .saturating_add(conversation::EXTRA_TOKENS),
                concurrency: 1,
                ..case
            },
            Self::Mixed => Case {
                concurrency: case.concurrency.saturating_add(1),
                ..case
            },
        }
    }

    fn what_it_needs(self) -> &'static str {
        match self {
            Self::Conversation => {
                "--conversation needs room for two answers, tools and messages beside the system prompt"
            }
            Self::Mixed => "--mixed needs a slot for the long prompt beside those of the streams",
        }
    }

    /// The names of values in JSON, and above the columns of a table.
    fn columns(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Conversation => &conversation::COLUMNS,
            Self::Mixed => &long_prompt::COLUMNS,
        }
    }

    async fn measure(self, target: &mut Target, case: Case, run: u32) -> anyhow::Result<Vec<Part>> {
        match self {
            Self::Conversation => conversation::measure(target, case, run).await,
            Self::Mixed => mixed::measure(target, case, run).await,
        }
    }
}

/// Measures a scenario on the servers of `--url`, or on a model in this process.
pub(in crate::cli::benchmark) fn run(args: &Args, scenario: Scenario, cases: &[Case]) -> anyhow::Result<()> {
    let report_folder = args.output.as_deref().map(create_folder).transpose()?;
    // Holds the engine until the end.
    let mut started = None;
    let (urls, names, models) = if args.servers.urls.is_empty() {
        let loaded = engines::load_config(&args.overrides)?;
        let mut model = engines::choose(&loaded.config.models, args.one_model()?)?.clone();
        let needs: Vec<Case> = cases.iter().map(|case| scenario.needs(*case)).collect();
        let file = models::open(&model)?;
        case::check(&needs, &models::describe(&model, &file)?).context(scenario.what_it_needs())?;
        case::fit(&needs, &mut model);
        let engine = started.insert(engines::start_and_wait(&model, &loaded.config)?);
        let address = engines::serve_in_background(engine)?;
        let url = reqwest::Url::parse(&format!("http://{address}"))?;
        (vec![url], vec!["this process".to_owned()], vec![model.name])
    } else {
        (
            args.servers.urls.clone(),
            args.servers.names.clone(),
            args.model.clone(),
        )
    };
    let date = now()?;
    let seed = args.servers.seed.unwrap_or_else(random_seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (targets, measured) = runtime.block_on(async {
        let mut targets = connect(&args.servers, &urls, &names, &models, cases).await?;
        let measured = measure_all(&mut targets, scenario, cases, args.repeat, seed).await?;
        anyhow::Ok((targets, measured))
    })?;
    // Finds this machine's GPUs.
    crate::engine::local::initialise();
    let report = Report {
        hearth: env!("CARGO_PKG_VERSION"),
        date,
        command: output::command_line(std::env::args()),
        machine: Machine::this(),
        scenario,
        repeat: args.repeat,
        seed,
        parts: report::compare(scenario, cases, &targets, &measured),
        servers: targets.into_iter().map(Target::into_facts).collect(),
    };
    if let Some(folder) = report_folder {
        write_report(&report::page(&report), &report, folder)?;
    }
    crate::cli::benchmark::print(args.json, &report, report::terminal)?;
    if let Some(started) = started {
        started.finish();
    }
    Ok(())
}

/// The counted rounds: by case, by server.
async fn measure_all(
    targets: &mut [Target],
    scenario: Scenario,
    cases: &[Case],
    repeat: u32,
    base: u32,
) -> anyhow::Result<Measurements> {
    let bar = output::progress_bar((cases.len() * targets.len()) as u64 * (u64::from(repeat) + 1), "runs");
    let mut measured: Measurements = cases
        .iter()
        .map(|_| targets.iter().map(|_| Vec::new()).collect())
        .collect();
    let mut run = base;
    for round in 0..=repeat {
        for (case, measured) in cases.iter().zip(&mut measured) {
            // All servers get the texts of this number, and no other run does.
            run = run.wrapping_add(1);
            for (target, rounds) in targets.iter_mut().zip(measured) {
                bar.set_message(target.facts.name.clone());
                let parts = scenario.measure(target, *case, run).await;
                let parts = parts.with_context(|| format!("the measurement on `{}` failed", target.facts.name))?;
                // The first round warms caches and clocks.
                if round > 0 {
                    rounds.push(parts);
                }
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(measured)
}
