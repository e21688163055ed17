//! What a running answer has taken so far: the engine tells its own numbers only at the end.

use std::time::{Duration, Instant};

use crate::engine::{PrefillProgress, Timings, Usage};
use crate::generation::Totals;

#[derive(Debug)]
pub(in crate::api) struct Meter {
    started: Instant,
    usage: Usage,
    prefill: Duration,
    first_token: Option<Instant>,
    last_token: Instant,
}

impl Meter {
    pub(in crate::api) fn start(now: Instant) -> Self {
        Self {
            started: now,
            usage: Usage::default(),
            prefill: Duration::ZERO,
            first_token: None,
            last_token: now,
        }
    }

    pub(in crate::api) fn prefilled(&mut self, progress: &PrefillProgress) {
        self.usage.prompt_tokens = progress.total;
        self.usage.cached_tokens = progress.cached;
        self.prefill = progress.elapsed;
    }

    pub(in crate::api) fn generated(&mut self, tokens: usize, now: Instant) {
        if self.first_token.is_none() && self.prefill.is_zero() {
            self.prefill = now - self.started;
        }
        self.first_token.get_or_insert(now);
        self.last_token = now;
        self.usage.completion_tokens += u32::try_from(tokens).unwrap_or(u32::MAX);
    }

    /// Time from the first token to the last.
    pub(in crate::api) fn decode(&self) -> Duration {
        self.first_token.map_or(Duration::ZERO, |first| self.last_token - first)
    }

    pub(in crate::api) fn totals(&self) -> Totals {
        Totals {
            usage: self.usage,
            reasoning_tokens: 0,
            timings: Timings {
                queue: Duration::ZERO,
                prefill: self.prefill,
                decode: self.decode(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_times_add_up() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut meter = Meter::start(start);
        meter.prefilled(&PrefillProgress {
            slot: 0,
            total: 9,
            cached: 4,
            processed: 9,
            elapsed: Duration::from_millis(5),
        });
        meter.generated(1, at(10));
        meter.generated(2, at(25));
        let totals = meter.totals();
        let usage = totals.usage;
        assert_eq!(
            (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens),
            (9, 4, 3)
        );
        let timings = totals.timings;
        assert_eq!((timings.prefill.as_millis(), timings.decode.as_millis()), (5, 15));
        // Without news of the prefill it lasts until the first token.
        let mut meter = Meter::start(start);
        meter.generated(1, at(10));
        assert_eq!(meter.totals().timings.prefill.as_millis(), 10);
    }
}
