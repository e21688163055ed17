//! One run of one case through the engine, in this process.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::case::Case;
use super::prompts::Prompts;
use super::streams::{Arrivals, Drafts, Measured, Stream, run_all};
use crate::engine::{Event, GenerateRequest, Prompt, SamplingOverrides, Token, TokenEngine};

/// Runs all streams of a case. `round` makes the prompts differ from those of other rounds.
pub(super) async fn run(
    engine: &dyn TokenEngine,
    prompts: &Prompts,
    case: Case,
    round: u32,
    stagger: Duration,
) -> anyhow::Result<Measured> {
    let before = engine.experts().map(|stats| stats.total());
    let mut requests = Vec::new();
    for stream in 0..case.concurrency {
        let prompt = prompts.prompt(case.prompt_tokens, super::prompts::seed(round, stream));
        requests.push(request(prompt, case.generate)?);
    }
    let streams = requests
        .into_iter()
        .map(|request| stream_and(engine, request, case, || {}));
    let streams = run_all(stagger, streams).await?;
    let after = engine.experts().map(|stats| stats.total());
    Ok(Measured {
        experts: before.zip(after).map(|(before, after)| after.since(before)),
        resident_bytes: crate::host::resident_bytes(),
        ..Measured::of(&streams)
    })
}

/// A greedy request for exactly `tokens` tokens, which neither reuses earlier prompts nor leaves anything to reuse.
pub(super) fn request(prompt: Vec<Token>, tokens: u32) -> anyhow::Result<GenerateRequest> {
    let greedy = SamplingOverrides {
        temperature: Some(0.0),
        ..SamplingOverrides::default()
    };
    Ok(GenerateRequest {
        max_tokens: Some(tokens),
        ignore_eos: true,
        cache_prompt: false,
        special: true,
        ..GenerateRequest::new(Prompt::Tokens(prompt), greedy.resolve(Vec::new())?)
    })
}

/// The stream of a request for what a case says; `arrived` is called whenever text has arrived.
pub(super) async fn stream_and(
    engine: &dyn TokenEngine,
    request: GenerateRequest,
    case: Case,
    arrived: impl Fn(),
) -> anyhow::Result<Stream> {
    let submitted = Instant::now();
    let mut events = engine.submit(request).await?;
    let mut arrivals = Arrivals::default();
    while let Some(event) = events.next().await {
        match event {
            Event::Delta { tokens, .. } if !tokens.is_empty() => {
                arrivals.add(Instant::now(), tokens.len());
                arrived();
            }
            Event::Finished { usage, timings, .. } => {
                if (usage.prompt_tokens, usage.completion_tokens) != (case.prompt_tokens, case.generate) {
                    bail!(
                        "the engine computed {} + {} tokens instead of {} + {}",
                        usage.prompt_tokens,
                        usage.completion_tokens,
                        case.prompt_tokens,
                        case.generate
                    );
                }
                return Ok(Stream {
                    submitted,
                    prompt_tokens: usage.prompt_tokens,
                    completion_tokens: usage.completion_tokens,
                    // The engine's clock knows the first token even if it prints nothing.
                    first_token: timings.queue + timings.prefill,
                    decode: timings.decode,
                    drafts: Drafts {
                        computed: usage.draft_tokens.into(),
                        accepted: usage.accepted_tokens.into(),
                    },
                    arrivals,
                });
            }
            Event::Failed(error) => return Err(error.into()),
            Event::Delta { .. } | Event::Progress(_) | Event::RoutedExperts(_) => {}
        }
    }
    bail!("the engine ended without a result")
}
