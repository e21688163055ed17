//! `hearth benchmark --url`: the same load against any OpenAI-compatible servers, side by side.
//!
//! Every round runs each case on one server after the other (A B A B), so that a machine that changes its speed changes it
//! for all of them. Ratios are formed within a round. All servers get the same texts where their tokenizers agree, and no
//! text comes twice.

mod client;
mod events;
mod fit;
mod report;
pub(super) mod scenario;

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Url;
use time::OffsetDateTime;

use self::client::{Endpoint, Reply, Server};
use self::fit::Prompts;
use self::report::{Compared, Report, ServerFacts};
use super::case::Case;
use super::prompts::seed;
use super::streams::{Measured, run_all};
use crate::cli::machine::Machine;
use crate::cli::{output, remote};
use crate::config::{self, Overrides};

/// Arguments for servers that run already.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Running servers")]
pub(super) struct Args {
    /// Measure the OpenAI-compatible server at this address, such as http://127.0.0.1:8080, instead of a model in this
    /// process. Repeat it to compare servers: ratios are to the first.
    #[arg(long = "url", value_name = "URL", value_parser = client::root,
        conflicts_with_all = ["overhead", "placements", "drafts", Overrides::GROUP])]
    pub(super) urls: Vec<Url>,

    /// What the report calls a server: one for each --url, in their order; host and port if not given.
    #[arg(long = "name", value_name = "NAME", requires = "urls")]
    pub(super) names: Vec<String>,

    /// The key that a server wants: one for each --url, in their order, or one for all [env: HEARTH_API_KEY, for a single --url].
    #[arg(long = "url-key", value_name = "KEY", requires = "urls")]
    pub(super) keys: Vec<String>,

    /// The endpoint to measure.
    #[arg(long, value_enum, default_value_t = Endpoint::Completions, requires = "urls")]
    endpoint: Endpoint,

    /// Longest time that a request may take, such as 90s.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = config::parse_duration, requires = "urls")]
    timeout: Duration,

    /// Seed of the prompts; a new one each time if not given, so that no prompt cache knows them.
    #[arg(long, value_name = "N", requires = "urls")]
    pub(super) seed: Option<u32>,
}

/// A server under test.
struct Target {
    facts: ServerFacts,
    server: Server,
    prompts: Prompts,
    /// What was noticed in its replies.
    noticed: Noticed,
}

/// What in the replies of a server makes its numbers less comparable.
#[derive(Debug, Default)]
struct Noticed {
    requests: u32,
    /// Replies without `usage`: their tokens are the events that brought text.
    without_usage: u32,
    /// Replies that ended before the last token.
    short: u32,
    /// Replies of which a part of the prompt came from a cache.
    cached: u32,
    prompt_tokens: u64,
    wanted_prompt_tokens: u64,
}

pub(super) fn run(args: &super::Args, cases: &[Case]) -> anyhow::Result<()> {
    let report_folder = args.output.as_deref().map(super::create_folder).transpose()?;
    let date = super::now()?;
    let seed = args.servers.seed.unwrap_or_else(random_seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (targets, measured) = runtime.block_on(async {
        let Args { urls, names, .. } = &args.servers;
        let mut targets = connect(&args.servers, urls, names, &args.model, cases).await?;
        let measured = measure_all(&mut targets, cases, args, seed).await?;
        anyhow::Ok((targets, measured))
    })?;
    // Finds this machine's GPUs.
    crate::engine::local::initialise();
    let report = Report {
        hearth: env!("CARGO_PKG_VERSION"),
        date,
        command: output::command_line(std::env::args()),
        machine: Machine::this(),
        endpoint: args.servers.endpoint,
        repeat: args.repeat,
        stagger_ms: args.stagger.as_millis(),
        seed,
        cases: cases
            .iter()
            .zip(&measured)
            .map(|(case, runs)| Compared::new(*case, &targets, runs))
            .collect(),
        servers: targets.into_iter().map(Target::into_facts).collect(),
    };
    if let Some(folder) = report_folder {
        super::write_report(&report::page(&report), &report, folder)?;
    }
    super::print(args.json, &report, report::terminal)
}

/// A seed that no earlier call had, so that no prompt cache knows the prompts.
fn random_seed() -> u32 {
    let seconds = OffsetDateTime::now_utc().unix_timestamp();
    u32::try_from(seconds.rem_euclid(1 << 31)).unwrap_or_default()
}

/// One of several values, or the only one for all.
fn of_index<T: Clone>(values: &[T], index: usize) -> Option<T> {
    match values {
        [one] => Some(one.clone()),
        several => several.get(index).cloned(),
    }
}

/// Connects to the servers. `names` and `models` are one for each, or fewer.
async fn connect(
    args: &Args,
    urls: &[Url],
    names: &[String],
    models: &[String],
    cases: &[Case],
) -> anyhow::Result<Vec<Target>> {
    if !names.is_empty() && names.len() != urls.len() {
        bail!("there are {} --name for {} --url", names.len(), urls.len());
    }
    let keys = match &args.keys[..] {
        [] if urls.len() == 1 => vec![remote::key(None)?],
        given => given
            .iter()
            .map(|key| remote::key(Some(key.clone())))
            .collect::<Result<_, _>>()?,
    };
    if keys.len() > 1 && keys.len() != urls.len() {
        bail!("there are {} --url-key for {} --url", keys.len(), urls.len());
    }
    if models.len() > 1 && models.len() != urls.len() {
        bail!("there are {} --model for {} --url", models.len(), urls.len());
    }
    let mut lengths: Vec<u32> = cases.iter().map(|case| case.prompt_tokens).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut targets: Vec<Target> = Vec::new();
    for (index, url) in urls.iter().enumerate() {
        let name = names.get(index).cloned().unwrap_or_else(|| url.authority().to_owned());
        if targets.iter().any(|target| target.facts.name == name) {
            bail!("two servers are called `{name}`; --name gives each another one");
        }
        let target = async {
            let model = of_index(models, index);
            let chosen = model.is_none();
            let key = of_index(&keys, index).flatten();
            let (server, about) = Server::connect(url.clone(), key, model, args.endpoint, args.timeout).await?;
            let prompts = Prompts::of(&server, &lengths).await?;
            let mut notes = Vec::new();
            if chosen && about.models.len() > 1 {
                let others = about.models[1..].join(", ");
                notes.push(format!("it has more models ({others}); --model chooses one"));
            }
            anyhow::Ok(Target {
                facts: ServerFacts {
                    name: name.clone(),
                    url: url.to_string(),
                    model: server.model().to_owned(),
                    software: about.software,
                    prompt_length: prompts.count(),
                    notes,
                },
                server,
                prompts,
                noticed: Noticed::default(),
            })
        };
        let problem = || format!("the server `{name}` at {url} cannot be measured");
        targets.push(target.await.with_context(problem)?);
    }
    Ok(targets)
}

/// The counted runs: by case, by server.
async fn measure_all(
    targets: &mut [Target],
    cases: &[Case],
    args: &super::Args,
    base: u32,
) -> anyhow::Result<Vec<Vec<Vec<Measured>>>> {
    let runs = cases.len() * targets.len();
    let bar = output::progress_bar(runs as u64 * (u64::from(args.repeat) + 1), "runs");
    let mut measured = vec![vec![Vec::new(); targets.len()]; cases.len()];
    let mut run = base;
    for round in 0..=args.repeat {
        for (case, measured) in cases.iter().zip(&mut measured) {
            // All servers get the prompts of this number, and no other run does.
            run = run.wrapping_add(1);
            for (target, measured) in targets.iter_mut().zip(measured) {
                let name = target.facts.name.clone();
                bar.set_message(format!("{name}: {case}"));
                let result = measure(target, *case, run, args.stagger)
                    .await
                    .with_context(|| format!("the measurement of {case} on `{name}` failed"))?;
                // The first round warms caches and clocks.
                if round > 0 {
                    measured.push(result);
                }
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(measured)
}

/// One run of a case on one server.
async fn measure(target: &mut Target, case: Case, run: u32, stagger: Duration) -> anyhow::Result<Measured> {
    let mut texts = Vec::new();
    for stream in 0..case.concurrency {
        let prompt = target
            .prompts
            .prompt(&target.server, case.prompt_tokens, seed(run, stream));
        texts.push(prompt.await?);
    }
    let replies = RefCell::new(Vec::new());
    let (server, seen) = (&target.server, &replies);
    let streams = texts.iter().map(|text| async move {
        let Reply { mut stream, usage, .. } = server.complete(text, case.generate).await?;
        if usage.is_none() {
            stream.prompt_tokens = case.prompt_tokens;
        }
        seen.borrow_mut().push((usage, stream.completion_tokens));
        anyhow::Ok(stream)
    });
    let streams = run_all(stagger, streams).await?;
    for (usage, completion_tokens) in replies.into_inner() {
        if completion_tokens == 0 {
            bail!("a stream brought no tokens");
        }
        let noticed = &mut target.noticed;
        noticed.requests += 1;
        noticed.short += u32::from(completion_tokens < case.generate);
        noticed.without_usage += u32::from(usage.is_none());
        noticed.cached += u32::from(usage.is_some_and(|usage| usage.cached_tokens() > 0));
        noticed.prompt_tokens += u64::from(usage.map_or(case.prompt_tokens, |usage| usage.prompt_tokens));
        noticed.wanted_prompt_tokens += u64::from(case.prompt_tokens);
    }
    Ok(Measured::of(&streams))
}

impl Target {
    /// The server with what was noticed about it.
    fn into_facts(self) -> ServerFacts {
        let Self { mut facts, noticed, .. } = self;
        facts.notes.extend(noticed.notes());
        facts
    }
}

impl Noticed {
    fn notes(&self) -> Vec<String> {
        let all = self.requests;
        let mut notes = Vec::new();
        if self.without_usage > 0 {
            notes.push("it tells no `usage`: tokens are the events that brought text".to_owned());
        }
        if self.short > 0 {
            notes.push(format!(
                "{} of {all} replies ended early, so `ignore_eos` does not work there: rates are of fewer tokens",
                self.short
            ));
        }
        if self.cached > 0 {
            notes.push(format!(
                "a part of {} of {all} prompts came from its prompt cache: prefill looks faster than it is",
                self.cached
            ));
        }
        #[expect(clippy::cast_precision_loss, reason = "numbers of tokens")]
        let ratio = self.prompt_tokens as f64 / self.wanted_prompt_tokens.max(1) as f64;
        if self.wanted_prompt_tokens > 0 && (ratio - 1.0).abs() > 0.02 {
            notes.push(format!("its prompts had {ratio:.2} of the tokens asked for"));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_numbers_less_comparable_is_said() {
        let fine = Noticed {
            requests: 9,
            prompt_tokens: 3140,
            wanted_prompt_tokens: 3150,
            ..Noticed::default()
        };
        assert_eq!(fine.notes(), Vec::<String>::new());
        let odd = Noticed {
            without_usage: 9,
            short: 2,
            cached: 1,
            prompt_tokens: 2000,
            ..fine
        };
        let notes = odd.notes().join("\n");
        for part in ["no `usage`", "2 of 9 replies ended early", "1 of 9 prompts", "had 0.63"] {
            assert!(notes.contains(part), "{part}: {notes}");
        }
    }

    #[test]
    fn one_value_is_for_all_servers() {
        let values = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of_index(&values(&["a"]), 3).as_deref(), Some("a"));
        assert_eq!(of_index(&values(&["a", "b"]), 1).as_deref(), Some("b"));
        assert_eq!(of_index::<String>(&[], 0), None);
    }
}
