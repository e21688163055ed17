//! `hearth benchmark --overhead`: what the layers above llama.cpp cost.
//!
//! Every round measures the bare loop, the engine and HTTP one after the other; the ratios are formed within a round
//! and the median of them is reported, so that a machine that changes its speed does not change the result. The engine is
//! measured with answers that keep to a grammar, too; each round has a new one, of which nothing is known.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;

use super::measure::request;
use super::statistics::median;
use crate::cli::engines;
use crate::cli::output;
use crate::engine::{Event, GenerateRequest, Grammar, SamplingOverrides, Token, TokenEngine};
use crate::llama::chat::schema_grammar;
use crate::models::Started;

/// The result. Rates are tokens per second, medians over the rounds; ratios are medians of each round's ratio.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    tokens: u32,
    rounds: usize,
    threads: u32,
    bare_per_second: f64,
    engine_per_second: f64,
    http_per_second: f64,
    engine_to_bare: f64,
    http_to_bare: f64,
    streams: u32,
    streams_per_second: f64,
    streams_to_engine: f64,
    sampled_per_second: f64,
    grammar_per_second: f64,
    /// To the engine's rate.
    grammar_to_engine: f64,
    grammar_sampled_per_second: f64,
    /// To the rate with the same sampling.
    grammar_to_sampled: f64,
}

/// Tokens per second of one round.
struct Round {
    bare: f64,
    engine: f64,
    http: f64,
    streams: f64,
    /// With the default sampling instead of the likeliest token.
    sampled: f64,
    grammar: f64,
    grammar_sampled: f64,
}

pub(super) fn run(args: &super::Args) -> anyhow::Result<()> {
    let started = engines::start_one(&args.overrides, args.one_model()?)?;
    let info = started.engine.info();
    let prompt_text = "Once upon a time";
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let prompt = runtime.block_on(started.engine.tokenize(prompt_text.into(), true, true))?;
    let rest = info.context.saturating_sub(u32::try_from(prompt.len())?);
    if args.tokens < 2 || args.tokens > rest {
        bail!("--tokens must be between 2 and {rest}, the rest of the context");
    }
    let address = engines::serve_in_background(&started)?;
    let bar = output::progress_bar(args.rounds as u64 + 1, "rounds");
    // The first round warms caches and clocks and is not counted.
    round(&started, &runtime, &prompt, address, args.tokens, 0)?;
    bar.inc(1);
    let mut rounds = Vec::new();
    for number in 1..=args.rounds.max(1) {
        rounds.push(round(&started, &runtime, &prompt, address, args.tokens, number)?);
        bar.inc(1);
    }
    bar.finish_and_clear();

    let median_of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    let report = Report {
        model: info.name.clone(),
        tokens: args.tokens,
        rounds: rounds.len(),
        threads: started.threads.decode,
        bare_per_second: median_of(|round| round.bare),
        engine_per_second: median_of(|round| round.engine),
        http_per_second: median_of(|round| round.http),
        engine_to_bare: median_of(|round| round.engine / round.bare),
        http_to_bare: median_of(|round| round.http / round.bare),
        streams: info.parallel,
        streams_per_second: median_of(|round| round.streams),
        streams_to_engine: median_of(|round| round.streams / round.engine),
        sampled_per_second: median_of(|round| round.sampled),
        grammar_per_second: median_of(|round| round.grammar),
        grammar_to_engine: median_of(|round| round.grammar / round.engine),
        grammar_sampled_per_second: median_of(|round| round.grammar_sampled),
        grammar_to_sampled: median_of(|round| round.grammar_sampled / round.sampled),
    };
    if args.json {
        return output::print_json(&report);
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}: {} greedy tokens, median of {} rounds, {} threads",
        report.model, report.tokens, report.rounds, report.threads
    )?;
    let mut line =
        |what: &str, rate: f64, ratio: f64| writeln!(out, "  {what:<24} {rate:>9.1} tokens/s  {ratio:>6.3} x");
    line("bare llama_decode loop", report.bare_per_second, 1.0)?;
    line("engine", report.engine_per_second, report.engine_to_bare)?;
    line("HTTP streaming", report.http_per_second, report.http_to_bare)?;
    line(
        &format!("engine, {} streams", report.streams),
        report.streams_per_second,
        report.streams_to_engine * report.engine_to_bare,
    )?;
    let mut held = |what: &str, rate: f64, ratio: f64| {
        writeln!(
            out,
            "  {what:<24} {rate:>9.1} tokens/s  {ratio:>6.3} x the engine without"
        )
    };
    held("with a grammar", report.grammar_per_second, report.grammar_to_engine)?;
    held(
        "with a grammar, sampled",
        report.grammar_sampled_per_second,
        report.grammar_to_sampled,
    )?;
    Ok(())
}

fn round(
    started: &Started,
    runtime: &tokio::runtime::Runtime,
    prompt: &[Token],
    address: SocketAddr,
    tokens: u32,
    number: usize,
) -> anyhow::Result<Round> {
    // The first token comes with the prompt: `tokens - 1` steps are left, here as in the engine.
    let steps = f64::from(tokens - 1);
    let bare = steps / started.engine.bare_decode(prompt, tokens - 1)?.as_secs_f64();
    let request = request(prompt.to_vec(), tokens)?;
    let engine = steps
        / runtime
            .block_on(decode(&*started.engine, request.clone()))?
            .as_secs_f64();
    let http = steps / over_http(address, &started.engine.info().name, prompt, tokens)?.as_secs_f64();
    let count = started.engine.info().parallel;
    let begin = Instant::now();
    runtime.block_on(futures_util::future::try_join_all(
        (0..count).map(|_| decode(&*started.engine, request.clone())),
    ))?;
    let streams = f64::from(count) * steps / begin.elapsed().as_secs_f64();
    let sampling = SamplingOverrides {
        seed: Some(u32::try_from(number)?),
        ..SamplingOverrides::default()
    };
    let sampled = GenerateRequest {
        sampling: sampling.resolve(Vec::new())?,
        ..request.clone()
    };
    let rate = |request: GenerateRequest| -> anyhow::Result<f64> {
        Ok(steps / runtime.block_on(decode(&*started.engine, request))?.as_secs_f64())
    };
    let held = |request: &GenerateRequest, what: &str| -> anyhow::Result<GenerateRequest> {
        Ok(GenerateRequest {
            grammar: Some(Grammar::new(schema_grammar(&schema(what, number))?)),
            special: false,
            ..request.clone()
        })
    };
    Ok(Round {
        bare,
        engine,
        http,
        streams,
        grammar: rate(held(&request, "likeliest")?)?,
        grammar_sampled: rate(held(&sampled, "sampled")?)?,
        sampled: rate(sampled)?,
    })
}

/// The schema of an answer that goes on and on, and is of all kinds. Names make it another one than before.
fn schema(what: &str, number: usize) -> serde_json::Value {
    let name = format!("{what} {number}");
    serde_json::json!({"type": "array", "minItems": 1000, "items": {
        "type": "object",
        "properties": {
            (name.as_str()): {"type": "string", "maxLength": 40},
            "kind": {"enum": ["city", "river", "mountain range"]},
            "count": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
            "known": {"type": ["boolean", "null"]},
        },
        "required": [name, "kind", "count", "tags", "known"],
    }})
}

/// Time from the first token to the last.
async fn decode(engine: &dyn TokenEngine, request: GenerateRequest) -> anyhow::Result<Duration> {
    let tokens = request.max_tokens.unwrap_or_default();
    let mut events = engine.submit(request).await?;
    let mut first = None;
    while let Some(event) = events.next().await {
        match event {
            Event::Delta { .. } => {
                first.get_or_insert_with(Instant::now);
            }
            Event::Finished { usage, timings, .. } => {
                if usage.completion_tokens != tokens {
                    bail!("the answer ended after {} of {tokens} tokens", usage.completion_tokens);
                }
                // A model may start with tokens that print nothing; the engine's own clock knows all of them.
                return Ok(timings
                    .decode
                    .max(first.map_or(Duration::ZERO, |first| first.elapsed())));
            }
            Event::Failed(error) => return Err(error.into()),
            Event::Progress(_) | Event::RoutedExperts(_) => {}
        }
    }
    bail!("the engine ended without a result")
}

/// The same through HTTP, with a minimal client on a plain socket.
fn over_http(address: SocketAddr, model: &str, prompt: &[Token], tokens: u32) -> anyhow::Result<Duration> {
    let body = serde_json::json!({
        "model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0.0,
        "stream": true, "ignore_eos": true, "cache_prompt": false, "special": true,
    })
    .to_string();
    let mut socket = TcpStream::connect(address).context("cannot connect to the server under test")?;
    socket.set_nodelay(true)?;
    write!(
        socket,
        "POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    let mut first = None;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            bail!("the server closed the stream before its end");
        }
        if line.starts_with("data: [DONE]") {
            let first: Instant = first.context("the stream was empty")?;
            return Ok(first.elapsed());
        }
        if line.starts_with("HTTP/1.1") && !line.contains(" 200 ") {
            bail!("the server answered {}", line.trim());
        }
        if line.starts_with("data: ") {
            first.get_or_insert_with(Instant::now);
        }
    }
}
