//! One run of one case: all streams at once, through the engine.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::case::Case;
use super::prompts::Prompts;
use crate::engine::{Engine, Event, GenerateRequest, Prompt, SamplingOverrides, Token};
use crate::experts::policy::LayerCounts;

/// What one run showed. Times are seconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    /// Prompt tokens of all streams, over the time until the last stream had its first token.
    pub(super) prefill_per_second: f64,
    /// Tokens of all streams after each one's first, from the earliest first token to the last one.
    pub(super) decode_per_second: Option<f64>,
    /// The same for each stream by itself.
    pub(super) stream_per_second: Vec<f64>,
    /// By stream: from the request to its first token.
    pub(super) first_token: Vec<f64>,
    /// Between tokens, as the receiver sees them.
    pub(super) between_tokens: Vec<f64>,
    /// What the cache of experts did during the run, if there is one.
    pub(super) experts: Option<LayerCounts>,
    pub(super) resident_bytes: Option<u64>,
}

/// What one stream saw.
#[derive(Debug)]
struct Stream {
    submitted: Instant,
    first_token: Duration,
    decode: Duration,
    between_tokens: Vec<f64>,
}

/// Runs all streams of a case. `round` makes the prompts differ from those of other rounds.
pub(super) async fn run(engine: &dyn Engine, prompts: &Prompts, case: Case, round: u32) -> anyhow::Result<Measured> {
    let before = engine.experts().map(|stats| stats.total());
    let mut requests = Vec::new();
    for stream in 0..case.concurrency {
        let seed = (u64::from(round) << 32) | u64::from(stream);
        requests.push(request(prompts.prompt(case.prompt_tokens, seed), case.generate)?);
    }
    let begin = Instant::now();
    let streams = requests.into_iter().map(|request| stream(engine, request, case));
    let streams = futures_util::future::try_join_all(streams).await?;
    let after = engine.experts().map(|stats| stats.total());
    let experts = before.zip(after).map(|(before, after)| after.since(before));
    Ok(Measured {
        experts,
        resident_bytes: crate::host::resident_bytes(),
        ..summary(case, begin, &streams)
    })
}

/// A greedy request for exactly `tokens` tokens, which neither takes from earlier prompts nor leaves anything.
pub(super) fn request(prompt: Vec<Token>, tokens: u32) -> anyhow::Result<GenerateRequest> {
    let greedy = SamplingOverrides {
        temperature: Some(0.0),
        ..SamplingOverrides::default()
    };
    Ok(GenerateRequest {
        prompt: Prompt::Tokens(prompt),
        sampling: greedy.resolve(Vec::new())?,
        max_tokens: Some(tokens),
        stop: Vec::new(),
        stop_tokens: Vec::new(),
        ignore_eos: true,
        cache_prompt: false,
        special: true,
        progress: false,
    })
}

async fn stream(engine: &dyn Engine, request: GenerateRequest, case: Case) -> anyhow::Result<Stream> {
    let submitted = Instant::now();
    let mut events = engine.submit(request).await?;
    let mut last = None;
    let mut between_tokens = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Delta { tokens, .. } if !tokens.is_empty() => {
                let now = Instant::now();
                if let Some(last) = last.replace(now) {
                    // A character may take several tokens, which then come together: each took its share of the time.
                    #[expect(clippy::cast_precision_loss, reason = "a few tokens")]
                    let share = (now - last).as_secs_f64() / tokens.len() as f64;
                    between_tokens.extend(std::iter::repeat_n(share, tokens.len()));
                }
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
                // The engine's clock knows the first token even if it prints nothing.
                return Ok(Stream {
                    submitted,
                    first_token: timings.queue + timings.prefill,
                    decode: timings.decode,
                    between_tokens,
                });
            }
            Event::Failed(error) => return Err(error.into()),
            Event::Delta { .. } | Event::Progress(_) => {}
        }
    }
    bail!("the engine ended without an answer")
}

fn summary(case: Case, begin: Instant, streams: &[Stream]) -> Measured {
    let first = |stream: &Stream| (stream.submitted - begin) + stream.first_token;
    let earliest = streams.iter().map(first).min().unwrap_or_default();
    let latest = streams.iter().map(first).max().unwrap_or_default();
    let end = streams.iter().map(|stream| first(stream) + stream.decode).max();
    let end = end.unwrap_or_default();
    let all = f64::from(case.concurrency);
    let steps = f64::from(case.generate - 1);
    let decodes = case.generate > 1;
    Measured {
        prefill_per_second: all * f64::from(case.prompt_tokens) / latest.as_secs_f64(),
        decode_per_second: decodes.then(|| all * steps / (end - earliest).as_secs_f64()),
        stream_per_second: streams
            .iter()
            .filter(|_| decodes)
            .map(|stream| steps / stream.decode.as_secs_f64())
            .collect(),
        first_token: streams.iter().map(|stream| stream.first_token.as_secs_f64()).collect(),
        between_tokens: streams
            .iter()
            .flat_map(|stream| stream.between_tokens.clone())
            .collect(),
        ..Measured::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_all_streams_together() {
        let case = Case {
            prompt_tokens: 100,
            generate: 11,
            concurrency: 2,
        };
        let begin = Instant::now();
        let stream = |first_token: u64, decode: u64| Stream {
            submitted: begin,
            first_token: Duration::from_secs(first_token),
            decode: Duration::from_secs(decode),
            between_tokens: vec![0.5; 10],
        };
        let measured = summary(case, begin, &[stream(1, 5), stream(2, 5)]);
        // 200 prompt tokens in 2 s; 20 tokens from second 1 to second 7; 10 tokens in 5 s in each.
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(measured.prefill_per_second, 100.0));
        assert!(close(measured.decode_per_second.unwrap(), 20.0 / 6.0));
        assert_eq!(measured.stream_per_second, [2.0, 2.0]);
        assert_eq!(measured.first_token, [1.0, 2.0]);
        assert_eq!(measured.between_tokens.len(), 20);
        let alone = Case { generate: 1, ..case };
        let measured = summary(alone, begin, &[stream(1, 0), stream(2, 0)]);
        assert_eq!(measured.decode_per_second, None);
        assert!(measured.stream_per_second.is_empty());
    }
}
