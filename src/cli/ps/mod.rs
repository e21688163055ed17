//! `hearth ps`: what a running server does.

mod snapshot;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::{Client, StatusCode, Url};
use serde_json::Value;

use super::output::{self, Usage};
use super::remote;
use crate::report::Table;
use snapshot::{Answers, Row, rows, set_rates};

/// How long a server may take.
const WAIT: Duration = Duration::from_secs(10);
/// Time between the two looks that a rate is made of.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `hearth ps`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: Url,

    /// The key of a server that wants one [env: HEARTH_API_KEY].
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,

    /// Look again every so many seconds, until Ctrl-C.
    #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: Option<u64>,

    /// Print JSON; with --watch, one line for each look.
    #[arg(long)]
    json: bool,
}

/// A server, and how it is asked.
struct Server {
    http: Client,
    url: Url,
    /// It is shown a key.
    has_key: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(show(args))
}

async fn show(args: Args) -> anyhow::Result<()> {
    let key = remote::key(args.api_key)?;
    let server = Server {
        has_key: key.is_some(),
        http: remote::client(&args.url, key).timeout(WAIT).build()?,
        url: args.url,
    };
    let mut before = (Instant::now(), server.look().await?);
    let Some(pause) = args.watch else {
        let mut found = rows(&before.1);
        // Only who computes has a rate.
        if found.iter().any(|row| row.slots_busy.unwrap_or(0) > 0) {
            tokio::time::sleep(LOOK).await;
            let metrics = server.text("metrics").await;
            set_rates(
                &mut found,
                &before.1.metrics,
                &metrics,
                before.0.elapsed().as_secs_f64(),
            );
        }
        return if args.json {
            output::print_json(&found)
        } else {
            print(&found)
        };
    };
    let clear = !args.json && std::io::stdout().is_terminal();
    loop {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        // A server that restarts is waited for.
        let (at, answers) = match server.look().await {
            Ok(answers) => (Instant::now(), answers),
            Err(error) => {
                eprintln!("{error:#}");
                continue;
            }
        };
        let mut found = rows(&answers);
        set_rates(
            &mut found,
            &before.1.metrics,
            &answers.metrics,
            (at - before.0).as_secs_f64(),
        );
        before = (at, answers);
        if args.json {
            writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(&found)?)?;
            continue;
        }
        if clear {
            // To the upper left corner, and all below it empty.
            write!(std::io::stdout().lock(), "\x1b[H\x1b[2J")?;
        }
        print(&found)?;
    }
}

impl Server {
    async fn look(&self) -> anyhow::Result<Answers> {
        Ok(Answers {
            models: self.models().await?,
            memory: serde_json::from_str(&self.text("api/v1/memory").await).unwrap_or_default(),
            experts: serde_json::from_str(&self.text("api/v1/expert-stats").await).unwrap_or_default(),
            metrics: self.text("metrics").await,
        })
    }

    fn request(&self, path: &str) -> anyhow::Result<reqwest::RequestBuilder> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| Usage(format!("{} is no address of a server", self.url)))?
            .pop_if_empty()
            .extend(path.split('/'));
        Ok(self.http.get(url))
    }

    /// The list that every server has.
    async fn models(&self) -> anyhow::Result<Value> {
        let response = match self.request("v1/models")?.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                let error = anyhow::Error::from(error.without_url());
                let cause = error.root_cause().to_string();
                let hint = if cause.contains("certificate") {
                    remote::UNTRUSTED
                } else {
                    "`hearth serve` starts a server; --url names another one"
                };
                bail!("nothing answers at {}: {cause}\n  hint: {hint}", self.url)
            }
            Err(error) => bail!("{} does not answer: {}", self.url, error.without_url()),
        };
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !self.has_key => {
                bail!("the server wants an API key\n  hint: --api-key, or the variable HEARTH_API_KEY")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => bail!("the server does not accept this API key"),
            status => bail!("{} answered with status {status}; is it a server for models?", self.url),
        }
        let text = response.text().await?;
        serde_json::from_str(&text).with_context(|| format!("{} is no server for models", self.url))
    }

    /// What only hearth has; empty where it is not there.
    async fn text(&self, path: &str) -> String {
        let Ok(request) = self.request(path) else {
            return String::new();
        };
        match request.send().await {
            Ok(response) if response.status().is_success() => response.text().await.unwrap_or_default(),
            _ => String::new(),
        }
    }
}

fn print(rows: &[Row]) -> anyhow::Result<()> {
    let none = || "-".to_owned();
    let number = |number: Option<u64>| number.map_or_else(none, |number| number.to_string());
    let bytes = |number: Option<u64>| number.map_or_else(none, output::bytes);
    let cells = rows.iter().map(|row| {
        let slots = row.slots_busy.zip(row.slots);
        vec![
            row.model.clone(),
            row.state.clone().unwrap_or_else(none),
            slots.map_or_else(none, |(busy, of)| format!("{busy}/{of}")),
            number(row.waiting),
            number(row.context),
            bytes(row.gpu_bytes),
            bytes(row.ram_bytes),
            row.hit_rate.map_or_else(none, |rate| format!("{:.0} %", rate * 100.0)),
            row.tokens_per_second.map_or_else(none, |rate| format!("{rate:.1}")),
        ]
    });
    let header = [
        "model", "state", "slots", "queue", "context", "GPU", "RAM", "hits", "tokens/s",
    ];
    let table = output::listing(Table {
        header: header.map(str::to_owned).to_vec(),
        rows: cells.collect(),
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{table}")?;
    for (row, reason) in rows.iter().filter_map(|row| Some((row, row.reason.as_ref()?))) {
        writeln!(out, "{}: {reason}", row.model)?;
    }
    Ok(())
}
