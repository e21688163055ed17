//! `--mixed`: what a long prompt costs those who decode when it arrives.

use std::cell::Cell;
use std::time::Instant;

use tokio::sync::Notify;

use super::super::Target;
use super::Part;
use crate::cli::benchmark::case::Case;
use crate::cli::benchmark::prompts::seed;
use crate::cli::benchmark::streams::Stream;

pub(super) const COLUMNS: [(&str, &str); 5] = [
    ("decode_before_per_second", "decode before, tokens/s"),
    ("decode_while_per_second", "while the prompt is read"),
    ("share", "share that is left"),
    ("longest_pause_ms", "longest pause ms"),
    ("first_token_ms", "first token of the long prompt ms"),
];

/// Prompts of the streams that decode, in tokens: short beside the long one.
const SHORT: u32 = 16;

/// The long prompt arrives when each stream has received this share of its tokens.
const BEGUN: u32 = 4;

/// Tokens that answer the long prompt.
const ANSWER: u32 = 8;

/// Streams that decode, and a prompt of `prompt_tokens` that arrives meanwhile.
pub(super) async fn measure(target: &mut Target, case: Case, run: u32) -> anyhow::Result<Vec<Part>> {
    let mut short = Vec::new();
    for stream in 0..case.concurrency {
        short.push(
            target
                .prompts
                .prompt(&target.server, SHORT, seed(run, stream + 1))
                .await?,
        );
    }
    let long = target
        .prompts
        .prompt(&target.server, case.prompt_tokens, seed(run, 0))
        .await?;
    let server = &target.server;
    let begun = Notify::new();
    let waiting = Cell::new(case.concurrency);
    let decoding = short.iter().map(|text| {
        let (texts, begun, waiting) = (Cell::new(0), &begun, &waiting);
        async move {
            let arrived = || {
                texts.set(texts.get() + 1);
                if texts.get() == (case.generate / BEGUN).max(1) {
                    waiting.set(waiting.get() - 1);
                }
                if waiting.get() == 0 {
                    begun.notify_one();
                }
            };
            let reply = server.complete_and(text, case.generate, arrived).await?;
            // An answer may be shorter than was asked for.
            begun.notify_one();
            anyhow::Ok(reply.stream)
        }
    });
    let arriving = async {
        begun.notified().await;
        anyhow::Ok(server.complete(&long, ANSWER).await?.stream)
    };
    let (streams, arrived) = tokio::try_join!(futures_util::future::try_join_all(decoding), arriving)?;
    Ok(vec![Part {
        name: "a long prompt arrives",
        values: values(&streams, &arrived),
    }])
}

fn values(streams: &[Stream], arrived: &Stream) -> Vec<Option<f64>> {
    let first = streams.iter().filter_map(|stream| stream.arrivals.first()).max();
    let answered = arrived.submitted + arrived.first_token;
    // A stream that ended before the long prompt was read decoded no longer, for a reason of its own.
    let last = streams.iter().filter_map(Stream::last).min();
    let before = first.and_then(|first| rate(streams, first, arrived.submitted));
    let during = last.and_then(|last| rate(streams, arrived.submitted, answered.min(last)));
    let pauses = streams.iter().filter_map(|stream| stream.arrivals.longest_pause());
    vec![
        before,
        during,
        before.zip(during).map(|(before, during)| during / before),
        pauses.max_by(f64::total_cmp).map(|pause| pause * 1e3),
        Some(arrived.first_token.as_secs_f64() * 1e3),
    ]
}

/// Tokens per second of all streams in this time, if there is such a time.
fn rate(streams: &[Stream], from: Instant, to: Instant) -> Option<f64> {
    let seconds = to.checked_duration_since(from)?.as_secs_f64();
    let tokens: f64 = streams.iter().map(|stream| stream.tokens_between(from, to)).sum();
    (seconds > 0.0).then(|| tokens / seconds)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::benchmark::streams::{Arrivals, Drafts};

    #[test]
    fn rates_are_of_the_time_before_and_of_the_wait() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut arrivals = Arrivals::default();
        // A token in each second, but none from 10 to 14.
        for second in (1..=10).chain(14..=20) {
            arrivals.add(at(second), 1);
        }
        let decoding = Stream {
            submitted: begin,
            prompt_tokens: 16,
            completion_tokens: 17,
            first_token: Duration::from_secs(1),
            decode: Duration::from_secs(19),
            drafts: Drafts::default(),
            arrivals,
        };
        let arrived = Stream {
            submitted: at(9),
            first_token: Duration::from_secs(6),
            decode: Duration::ZERO,
            arrivals: Arrivals::default(),
            ..decoding
        };
        let values: Vec<f64> = values(&[decoding], &arrived).into_iter().map(Option::unwrap).collect();
        // 8 tokens in 8 s; those of 10, 14 and 15 in 6 s; 4 s of silence.
        assert_eq!(values, [1.0, 0.5, 0.5, 4000.0, 6000.0]);
    }
}
