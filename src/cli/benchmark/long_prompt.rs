//! A long prompt that arrives while others decode: what that costs them, in this process and on servers.

use std::cell::Cell;
use std::future::Future;
use std::time::Instant;

use tokio::sync::Notify;

use super::case::Case;
use super::measure::{request, stream_and};
use super::prompts::{Prompts, seed};
use super::streams::Stream;
use crate::engine::TokenEngine;

/// The values of [`run`]: their names in JSON, and above the columns of a table.
pub(super) const COLUMNS: [(&str, &str); 5] = [
    ("decode_before_per_second", "decode before, tokens/s"),
    ("decode_while_per_second", "while the prompt is read"),
    ("share", "share that is left"),
    ("longest_pause_ms", "longest pause ms"),
    ("first_token_ms", "first token of the long prompt ms"),
];

/// Streams at once where none are asked for.
pub(super) const STREAMS: u32 = 4;

/// Prompts of the streams that decode, in tokens: short beside the long one.
pub(super) const SHORT: u32 = 16;

/// Tokens that answer the long prompt.
pub(super) const ANSWER: u32 = 8;

/// The long prompt arrives when each stream has received this share of its tokens.
const BEGUN: u32 = 4;

/// When each of some streams has received a share of its tokens.
pub(super) struct Begun {
    all: Notify,
    waiting: Cell<u32>,
    /// Texts after which a stream has.
    texts: u32,
}

impl Begun {
    pub(super) fn new(case: Case) -> Self {
        Self {
            all: Notify::new(),
            waiting: Cell::new(case.concurrency),
            texts: (case.generate / BEGUN).max(1),
        }
    }

    /// What is called whenever text of one stream has arrived.
    pub(super) fn counter(&self) -> impl Fn() {
        let texts = Cell::new(0);
        move || {
            texts.set(texts.get() + 1);
            if texts.get() == self.texts {
                self.waiting.set(self.waiting.get() - 1);
            }
            if self.waiting.get() == 0 {
                self.all.notify_one();
            }
        }
    }
}

/// Runs a stream for each of the case's, and the one of the long prompt when all of them have begun; the values of [`COLUMNS`].
pub(super) async fn run<'b, D, L>(
    case: Case,
    begun: &'b Begun,
    decode: impl Fn(u32, &'b Begun) -> D,
    long: L,
) -> anyhow::Result<Vec<Option<f64>>>
where
    D: Future<Output = anyhow::Result<Stream>>,
    L: Future<Output = anyhow::Result<Stream>>,
{
    let decoding = (0..case.concurrency).map(|index| {
        let stream = decode(index, begun);
        async {
            let stream = stream.await?;
            // An answer may be shorter than was asked for.
            begun.all.notify_one();
            anyhow::Ok(stream)
        }
    });
    let arriving = async {
        begun.all.notified().await;
        long.await
    };
    let (streams, arrived) = tokio::try_join!(futures_util::future::try_join_all(decoding), arriving)?;
    Ok(values(&streams, &arrived))
}

/// The same with an engine in this process.
pub(super) async fn measure(
    engine: &dyn TokenEngine,
    prompts: &Prompts,
    case: Case,
    round: u32,
) -> anyhow::Result<Vec<Option<f64>>> {
    let short = Case {
        prompt_tokens: SHORT,
        ..case
    };
    let long = Case {
        generate: ANSWER,
        concurrency: 1,
        ..case
    };
    let request = |case: Case, stream: u32| {
        let prompt = prompts.prompt(case.prompt_tokens, seed(round, stream));
        request(prompt, case.generate)
    };
    let begun = Begun::new(case);
    let decode = |index: u32, begun| async move {
        let counter = Begun::counter(begun);
        stream_and(engine, request(short, index + 1)?, short, counter).await
    };
    let arriving = async { stream_and(engine, request(long, 0)?, long, || {}).await };
    run(case, &begun, decode, arriving).await
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
