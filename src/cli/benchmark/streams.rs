//! What the streams of one run show, whoever computed them: hearth's engine in this process, or a server.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::experts::policy::LayerCounts;

/// What one run showed. Times are seconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured {
    /// Prompt tokens of all streams, over the time in which at least one stream waited for its first token.
    pub(super) prefill_per_second: f64,
    /// Tokens of all streams while all of them decode: from the latest first token to the earliest last one. Where streams
    /// ended before others began, from the earliest first token to the last token of all.
    pub(super) decode_per_second: Option<f64>,
    /// The same for each stream by itself.
    pub(super) stream_per_second: Vec<f64>,
    /// Generated tokens of all streams, from the first request to the last token.
    pub(super) total_per_second: f64,
    /// By stream: from the request to its first token.
    pub(super) first_token: Vec<f64>,
    /// Between tokens, as the receiver sees them. Tokens that arrive together share the time.
    pub(super) between_tokens: Vec<f64>,
    /// The longest time in which a stream that had begun received nothing.
    pub(super) longest_pause: Option<f64>,
    /// Of all streams.
    pub(super) drafts: Drafts,
    /// What the expert cache did during the run, if there is one.
    pub(super) experts: Option<LayerCounts>,
    /// Main memory of this process after the run, if the model is in it.
    pub(super) resident_bytes: Option<u64>,
}

/// Guesses for tokens of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub(super) struct Drafts {
    pub(super) computed: u64,
    /// Those that were right.
    pub(super) accepted: u64,
}

/// When the tokens of one stream arrived.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrivals {
    first: Option<Instant>,
    last: Option<Instant>,
    /// Each arrival after the first, and its tokens.
    later: Vec<(Instant, usize)>,
    between_tokens: Vec<f64>,
    longest_pause: Option<f64>,
}

/// One finished stream.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) submitted: Instant,
    pub(super) prompt_tokens: u32,
    pub(super) completion_tokens: u32,
    /// From the request to the first token.
    pub(super) first_token: Duration,
    /// From the first token to the last.
    pub(super) decode: Duration,
    pub(super) drafts: Drafts,
    pub(super) arrivals: Arrivals,
}

impl Drafts {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            computed: self.computed + other.computed,
            accepted: self.accepted + other.accepted,
        }
    }

    /// The share that was right; `None` if there were none.
    pub(super) fn acceptance(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "numbers of tokens")]
        let share = self.accepted as f64 / self.computed as f64;
        (self.computed > 0).then_some(share)
    }
}

impl Arrivals {
    /// Notes that so many tokens arrived together.
    pub(super) fn add(&mut self, now: Instant, tokens: usize) {
        self.first.get_or_insert(now);
        if let Some(last) = self.last.replace(now) {
            let pause = (now - last).as_secs_f64();
            self.longest_pause = Some(self.longest_pause.map_or(pause, |longest| longest.max(pause)));
            #[expect(clippy::cast_precision_loss, reason = "a few tokens")]
            let share = pause / tokens as f64;
            self.between_tokens.extend(std::iter::repeat_n(share, tokens));
            self.later.push((now, tokens));
        }
    }

    /// In seconds; see [`Measured::longest_pause`].
    pub(super) fn longest_pause(&self) -> Option<f64> {
        self.longest_pause
    }

    /// When the first token arrived.
    pub(super) fn first(&self) -> Option<Instant> {
        self.first
    }
}

/// Runs the streams of one case at the same time, each begun `stagger` after the one before.
pub(super) async fn run_all<F>(stagger: Duration, streams: impl IntoIterator<Item = F>) -> anyhow::Result<Vec<Stream>>
where
    F: Future<Output = anyhow::Result<Stream>>,
{
    let begin = tokio::time::Instant::now();
    let streams = (0..).zip(streams).map(|(index, stream)| async move {
        if index > 0 && !stagger.is_zero() {
            tokio::time::sleep_until(begin + stagger * index).await;
        }
        stream.await
    });
    futures_util::future::try_join_all(streams).await
}

impl Measured {
    /// The rates and latencies of the streams of one run.
    pub(super) fn of(streams: &[Stream]) -> Self {
        let first = |stream: &Stream| stream.submitted + stream.first_token;
        let begin = streams.iter().map(|stream| stream.submitted).min();
        let earliest = streams.iter().map(first).min();
        let end = streams.iter().map(|stream| first(stream) + stream.decode).max();
        let (Some(begin), Some(earliest), Some(end)) = (begin, earliest, end) else {
            return Self::default();
        };
        let prompt_tokens: u32 = streams.iter().map(|stream| stream.prompt_tokens).sum();
        let tokens: u32 = streams.iter().map(|stream| stream.completion_tokens).sum();
        let steps = |stream: &Stream| stream.completion_tokens.saturating_sub(1);
        let all_steps: u32 = streams.iter().map(steps).sum();
        let decode = together(streams)
            .or_else(|| (all_steps > 0).then(|| f64::from(all_steps) / (end - earliest).as_secs_f64()));
        Self {
            prefill_per_second: f64::from(prompt_tokens) / waiting(streams).as_secs_f64(),
            decode_per_second: decode,
            stream_per_second: streams
                .iter()
                .filter(|stream| steps(stream) > 0)
                .map(|stream| f64::from(steps(stream)) / stream.decode.as_secs_f64())
                .collect(),
            total_per_second: f64::from(tokens) / (end - begin).as_secs_f64(),
            first_token: streams.iter().map(|stream| stream.first_token.as_secs_f64()).collect(),
            between_tokens: streams
                .iter()
                .flat_map(|stream| stream.arrivals.between_tokens.clone())
                .collect(),
            longest_pause: streams
                .iter()
                .filter_map(|stream| stream.arrivals.longest_pause)
                .max_by(f64::total_cmp),
            drafts: streams
                .iter()
                .map(|stream| stream.drafts)
                .fold(Drafts::default(), Drafts::plus),
            experts: None,
            resident_bytes: None,
        }
    }
}

/// Tokens per second of all streams while all of them decode; `None` if there is no such time, or next to none.
fn together(streams: &[Stream]) -> Option<f64> {
    let from = streams.iter().filter_map(|stream| stream.arrivals.first).max()?;
    let to = streams.iter().filter_map(|stream| stream.arrivals.last).min()?;
    let tokens: f64 = streams.iter().map(|stream| stream.tokens_between(from, to)).sum();
    // A few tokens say nothing of a rate.
    #[expect(clippy::cast_precision_loss, reason = "a few streams")]
    let enough = to > from && tokens >= 4.0 * streams.len() as f64;
    enough.then(|| tokens / (to - from).as_secs_f64())
}

impl Stream {
    /// When the last token arrived.
    pub(super) fn last(&self) -> Option<Instant> {
        self.arrivals.last
    }

    /// Tokens after `from` and until `to`. Tokens without text do not arrive by themselves: each arrival stands for as many
    /// tokens as all of them do on average.
    #[expect(clippy::cast_precision_loss, reason = "tokens of a run")]
    pub(super) fn tokens_between(&self, from: Instant, to: Instant) -> f64 {
        let tokens = |from: Instant, to: Instant| -> usize {
            let later = self.arrivals.later.iter();
            later
                .filter(|(time, _)| *time > from && *time <= to)
                .map(|(_, tokens)| tokens)
                .sum()
        };
        let (Some(first), Some(last)) = (self.arrivals.first, self.arrivals.last) else {
            return 0.0;
        };
        let arrived = tokens(first, last).max(1) as f64;
        let steps = f64::from(self.completion_tokens.saturating_sub(1));
        tokens(from, to) as f64 * steps / arrived
    }
}

/// The time in which at least one stream waited for its first token.
fn waiting(streams: &[Stream]) -> Duration {
    let mut spans: Vec<(Instant, Instant)> = streams
        .iter()
        .map(|stream| (stream.submitted, stream.submitted + stream.first_token))
        .collect();
    spans.sort();
    let mut total = Duration::ZERO;
    let mut covered: Option<Instant> = None;
    for (from, to) in spans {
        let from = covered.map_or(from, |covered| covered.max(from));
        total += to.saturating_duration_since(from);
        covered = Some(covered.map_or(to, |covered| covered.max(to)));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(begin: Instant, submitted: u64, first_token: u64, decode: u64, completion_tokens: u32) -> Stream {
        let mut arrivals = Arrivals::default();
        let first = begin + Duration::from_secs(submitted + first_token);
        arrivals.add(first, 1);
        if completion_tokens > 1 {
            arrivals.add(first + Duration::from_secs(decode), completion_tokens as usize - 1);
        }
        Stream {
            submitted: begin + Duration::from_secs(submitted),
            prompt_tokens: 100,
            completion_tokens,
            first_token: Duration::from_secs(first_token),
            decode: Duration::from_secs(decode),
            drafts: Drafts::default(),
            arrivals,
        }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn rates_are_of_all_streams_together() {
        let begin = Instant::now();
        let measured = Measured::of(&[stream(begin, 0, 1, 5, 11), stream(begin, 0, 2, 5, 11)]);
        // 200 prompt tokens in 2 s; the 10 tokens of the first from second 2 to second 6; 10 tokens in 5 s in each; 22 tokens
        // in 7 s.
        assert!(close(measured.prefill_per_second, 100.0));
        assert!(close(measured.decode_per_second.unwrap(), 10.0 / 4.0));
        assert_eq!(measured.stream_per_second, [2.0, 2.0]);
        assert!(close(measured.total_per_second, 22.0 / 7.0));
        assert_eq!(measured.first_token, [1.0, 2.0]);
        assert_eq!(measured.between_tokens.len(), 20);
        assert!(measured.between_tokens.iter().all(|time| close(*time, 0.5)));
        assert!(close(measured.longest_pause.unwrap(), 5.0));
    }

    #[test]
    fn streams_that_never_decode_together_are_measured_as_a_whole() {
        let begin = Instant::now();
        // 20 tokens from second 1 to second 16.
        let measured = Measured::of(&[stream(begin, 0, 1, 5, 11), stream(begin, 0, 11, 5, 11)]);
        assert!(close(measured.decode_per_second.unwrap(), 20.0 / 15.0));
    }

    #[test]
    fn tokens_without_text_count() {
        let begin = Instant::now();
        let mut quiet = stream(begin, 0, 1, 5, 11);
        // The client saw 6 of the 11 tokens.
        quiet.arrivals = Arrivals::default();
        for second in 1..=6 {
            quiet.arrivals.add(begin + Duration::from_secs(second), 1);
        }
        assert!(close(Measured::of(&[quiet]).decode_per_second.unwrap(), 2.0));
    }

    #[test]
    fn one_token_decodes_nothing() {
        let begin = Instant::now();
        let measured = Measured::of(&[stream(begin, 0, 1, 0, 1), stream(begin, 0, 2, 0, 1)]);
        assert_eq!(measured.decode_per_second, None);
        assert_eq!(measured.longest_pause, None);
        assert!(measured.stream_per_second.is_empty() && measured.between_tokens.is_empty());
    }

    #[test]
    fn prefill_counts_only_the_time_in_which_somebody_waits() {
        let begin = Instant::now();
        // Seconds 0 to 2 and 1 to 3 overlap, 10 to 11 stands alone: 4 seconds.
        let streams = [
            stream(begin, 10, 1, 1, 2),
            stream(begin, 0, 2, 1, 2),
            stream(begin, 1, 2, 1, 2),
        ];
        assert_eq!(waiting(&streams), Duration::from_secs(4));
        assert!(close(Measured::of(&streams).prefill_per_second, 75.0));
    }

    #[test]
    fn staggered_streams_begin_one_after_the_other() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let begin = Instant::now();
        let streams = (0..3).map(|_| async { Ok(stream(Instant::now(), 0, 0, 0, 1)) });
        let streams = runtime.block_on(run_all(Duration::from_millis(20), streams)).unwrap();
        for (index, stream) in (0..).zip(&streams) {
            assert!(stream.submitted - begin >= Duration::from_millis(20) * index);
        }
    }
}
