//! How many tokens of each stream a pass computes: one that is sure, and guesses behind it.
//!
//! A pass over more tokens takes longer, on some machines hardly and on others as many times as long; a guess is only of use if
//! it is right. What passes take is measured when the model is loaded, and from then on; how often guesses are right is
//! measured as they are made.

use std::time::Duration;

use crate::acceptance::expected;

/// Guesses are made where they promise so much more speed than none. Less is noise, or what a head takes that follows prompts.
const WORTHWHILE: f64 = 1.1;

/// How many times of passes of a kind are remembered, the latest ones. The longest quarter does not count: something else had
/// the machine, or a head had to catch up. A kind that is only tried now and then would be judged by it for long.
const REMEMBERED: usize = 16;

/// How much the tokens count that the newest pass gave.
const NEWEST_TOKENS: f64 = 0.05;

/// So many passes without guesses come before those with some.
const SURE: u32 = 4;

/// After so many passes without guesses nothing is done for guesses to come: a head need not follow prompts.
const RESTS_AFTER: u32 = 48;

/// How much the newest guess counts.
const OF_GUESSES: f64 = 0.03;

/// After so many guesses what passes give is computed again: not for every token, as it takes a few microseconds.
const HEARD_AFTER: usize = 32;
/// The chance of a guess where guesses are good.
const GOOD: f64 = 0.9;

/// What is thought of guesses before any was made.
const HOPE: f64 = 0.8;

/// The part of the time that may be lost by passes that only find out what they take.
const CURIOSITY: f64 = 0.005;

/// Tokens of each stream in a pass, counted from one.
type Width = usize;

/// Chooses the width of passes.
#[derive(Debug)]
pub struct Pace {
    longest: Width,
    /// The width is not chosen: it is always the longest.
    fixed: bool,
    /// After a wrong guess the right ones before it are computed again.
    replays: bool,
    /// What passes were like, by the logarithm of the number of streams and by width.
    passes: Vec<Vec<Measured>>,
    /// The chance that the first guess is right, that the second is if the first was, and so on.
    chances: Vec<f64>,
    /// Tokens that a pass gives each stream, by width: if guesses are good, and as they were right so far.
    at_best: Vec<f64>,
    expected: Vec<f64>,
    /// Guesses that were judged since `expected` was computed.
    unheard: usize,
    /// Seconds that may be spent on finding out.
    credit: f64,
    /// Passes since guesses seemed to pay.
    without: u32,
}

/// Averages over passes.
#[derive(Debug, Clone, Copy, Default)]
struct Measured {
    times: [f64; REMEMBERED],
    /// How many times there were; each takes the place of the oldest one.
    timed: usize,
    seconds: Option<f64>,
    /// Passes of real answers, as far as they are counted. What was measured when the model was loaded is only a beginning:
    /// others may have loaded theirs.
    seen: u32,
    /// Tokens that each stream got.
    tokens: Option<f64>,
}

impl Pace {
    /// Passes of up to `most` guesses for each stream, of which there are up to `streams`.
    pub fn new(most: usize, streams: usize, replays: bool, fixed: bool) -> Self {
        Self {
            longest: most + 1,
            fixed,
            replays,
            passes: vec![vec![Measured::default(); most + 1]; bucket(streams) + 1],
            at_best: by_width(&vec![GOOD; most], replays),
            expected: by_width(&vec![HOPE; most], replays),
            unheard: 0,
            chances: vec![HOPE; most],
            credit: 0.0,
            without: 0,
        }
    }

    pub fn longest(&self) -> Width {
        self.longest
    }

    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// The width of the next pass of so many streams.
    pub fn choose(&mut self, streams: usize) -> Width {
        if self.fixed {
            return self.longest;
        }
        let chosen = self.best(streams, |pace, width| pace.tokens(streams, width));
        self.without = if chosen > 1 { 0 } else { self.without.saturating_add(1) };
        if chosen > 1 && self.measured(streams, 1).is_some_and(|pass| pass.seen < SURE) {
            return 1;
        }
        let Some(other) = self.unsure(streams, chosen) else {
            return chosen;
        };
        // It may turn out to be as good as hoped; what is lost then is less than this.
        let lost = self.seconds(streams, other).unwrap_or(0.0);
        if self.credit < lost {
            return chosen;
        }
        self.credit -= lost;
        other
    }

    /// Whether guesses have not paid for so long that nothing is done for those to come.
    pub fn rests(&self) -> bool {
        !self.fixed && self.without >= RESTS_AFTER
    }

    /// The width with the most tokens per second if passes give each stream so many tokens.
    fn best(&self, streams: usize, tokens: impl Fn(&Self, Width) -> f64) -> Width {
        let Some(plain) = self.seconds(streams, 1) else {
            // Nothing is known.
            return 1;
        };
        let mut best = (1, WORTHWHILE / plain);
        for width in 2..=self.longest {
            if let Some(seconds) = self.seconds(streams, width)
                && tokens(self, width) / seconds > best.1
            {
                best = (width, tokens(self, width) / seconds);
            }
        }
        best.0
    }

    /// Tokens that a pass gives each stream: as measured, else as guesses were right in others.
    fn tokens(&self, streams: usize, width: Width) -> f64 {
        let measured = self.measured(streams, width).and_then(|pass| pass.tokens);
        measured.unwrap_or_else(|| self.expected[width - 1])
    }

    /// The best width if nearly every guess is right.
    fn best_at_best(&self, streams: usize) -> Width {
        self.best(streams, |pace, width| pace.at_best[width - 1])
    }

    /// What would be tried to learn more: guesses where none are made, and a pass without where some are.
    fn unsure(&self, streams: usize, chosen: Width) -> Option<Width> {
        if chosen > 1 {
            return Some(1);
        }
        let other = self.best_at_best(streams);
        (other > 1).then_some(other)
    }

    /// Whether guesses can pay at all, if nearly every one is right.
    pub fn has_hope(&self) -> bool {
        self.fixed || (0..self.passes.len()).any(|bucket| self.best_at_best(1 << bucket) > 1)
    }

    /// How much longer the longest pass of one stream takes than one without guesses.
    pub fn price(&self) -> Option<f64> {
        Some(self.seconds(1, self.longest)? / self.seconds(1, 1)?)
    }

    fn measured(&self, streams: usize, width: Width) -> Option<&Measured> {
        self.passes.get(bucket(streams))?.get(width - 1)
    }

    /// Seconds of a pass: as measured, else in proportion to those of fewer streams.
    fn seconds(&self, streams: usize, width: Width) -> Option<f64> {
        let pass = self.measured(streams, width)?;
        pass.seconds
            .or_else(|| Some(self.measured(streams, 1)?.seconds? * self.ratio(streams, width)?))
    }

    /// How much longer a pass takes than one without guesses, as far as it is known of so many streams or fewer.
    fn ratio(&self, streams: usize, width: Width) -> Option<f64> {
        let rows = self.passes.iter().take(bucket(streams) + 1).rev();
        let mut ratios = rows.filter_map(|row| Some(row.get(width - 1)?.seconds? / row.first()?.seconds?));
        ratios.next()
    }

    /// Takes note of what a pass took, with what made its guesses, and how many tokens it gave all streams, if that is known.
    pub fn took(&mut self, streams: usize, width: Width, time: Duration, tokens: Option<usize>) {
        let seconds = time.as_secs_f64();
        self.credit += seconds * CURIOSITY;
        let row = self.passes.get_mut(bucket(streams));
        let Some(pass) = row.and_then(|row| row.get_mut(width - 1)) else {
            return;
        };
        if tokens.is_some() {
            if pass.seen == 0 {
                // Instead of what was measured before.
                pass.timed = 0;
            }
            pass.seen = pass.seen.saturating_add(1);
        }
        pass.time(seconds);
        if let Some(tokens) = tokens.filter(|_| width > 1) {
            let before = pass.tokens.unwrap_or(self.expected[width - 1]);
            #[expect(clippy::cast_precision_loss, reason = "as many as a batch")]
            let new = tokens as f64 / streams as f64;
            pass.tokens = Some(before + NEWEST_TOKENS * (new - before));
        }
    }

    /// Takes note of guesses: how many were right, and whether a wrong one followed.
    pub fn guessed(&mut self, right: usize, wrong: bool) {
        for (place, chance) in self.chances.iter_mut().enumerate().take(right + usize::from(wrong)) {
            let was = if place < right { 1.0 } else { 0.0 };
            *chance += OF_GUESSES * (was - *chance);
            self.unheard += 1;
        }
        if self.unheard >= HEARD_AFTER {
            self.unheard = 0;
            self.expected = by_width(&self.chances, self.replays);
        }
    }
}

impl Measured {
    fn time(&mut self, seconds: f64) {
        self.times[self.timed % REMEMBERED] = seconds;
        self.timed += 1;
        let mut times = self.times;
        let times = &mut times[..self.timed.min(REMEMBERED)];
        times.sort_unstable_by(f64::total_cmp);
        let counted = &times[..times.len() - times.len() / 4];
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        let average = counted.iter().sum::<f64>() / counted.len() as f64;
        self.seconds = Some(average);
    }
}

/// Streams whose passes take about as long: from one to two, from there to four, and so on.
fn bucket(streams: usize) -> usize {
    streams.max(1).next_power_of_two().trailing_zeros() as usize
}

/// Tokens that passes give each stream on average, by width.
fn by_width(chances: &[f64], replays: bool) -> Vec<f64> {
    let widths = 1..=chances.len() + 1;
    widths.map(|width| expected(width, chances, replays)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a pass takes a price, and more for each token.
    fn machine(pace: &mut Pace, streams: usize, fixed: f64, each: f64) {
        for width in 1..=pace.longest() {
            let tokens = u32::try_from(streams * width).unwrap();
            let took = Duration::from_secs_f64((fixed + each * f64::from(tokens)) / 1000.0);
            pace.took(streams, width, took, None);
        }
    }

    #[test]
    fn guesses_where_a_pass_has_a_fixed_price() {
        let mut pace = Pace::new(2, 8, true, false);
        machine(&mut pace, 1, 20.0, 1.0);
        machine(&mut pace, 8, 1.0, 5.0);
        assert!(pace.has_hope());
        confirm(&mut pace, 1, 21);
        assert_eq!(pace.choose(1), 3);
        assert_eq!(pace.choose(8), 1);
    }

    /// Passes without guesses, before there are some.
    fn confirm(pace: &mut Pace, streams: usize, milliseconds: u64) {
        for _ in 0..SURE {
            assert_eq!(pace.choose(streams), 1);
            pace.took(streams, 1, Duration::from_millis(milliseconds), Some(streams));
        }
    }

    /// Something else had the machine when the model was loaded.
    #[test]
    fn what_was_measured_wrongly_is_found_out() {
        let mut pace = Pace::new(2, 1, true, false);
        for (width, milliseconds) in [(1, 6), (2, 3), (3, 3)] {
            pace.took(1, width, Duration::from_millis(milliseconds), None);
        }
        let mut tried = 0;
        for _ in 0..500 {
            let width = pace.choose(1);
            tried += usize::from(width > 1);
            let milliseconds = [1.0, 2.5, 4.0][width - 1];
            pace.guessed(width - 1, false);
            pace.took(1, width, Duration::from_secs_f64(milliseconds / 1000.0), Some(width));
        }
        assert!(tried <= 4, "{tried}");
        assert!(pace.rests());
    }

    /// Passes without guesses are rare while there are guesses, and one that took long is not the rule.
    #[test]
    fn single_long_passes_do_not_count() {
        let mut pace = Pace::new(2, 8, true, false);
        machine(&mut pace, 8, 0.5, 0.2);
        let (mut guessed, mut passes) = (0, 0);
        for _ in 0..2000 {
            let width = pace.choose(8);
            guessed += usize::from(width > 1);
            passes += usize::from(width == 1);
            let late = width == 1 && passes % 8 == 0;
            let milliseconds = if late { 40.0 } else { [2.0, 4.0, 6.0][width - 1] };
            pace.took(
                8,
                width,
                Duration::from_secs_f64(milliseconds / 1000.0),
                Some([8, 14, 19][width - 1]),
            );
        }
        assert!(guessed < 60, "{guessed}");
    }

    #[test]
    fn none_where_tokens_cost_alike() {
        let mut pace = Pace::new(2, 1, true, false);
        machine(&mut pace, 1, 0.05, 2.0);
        assert!(!pace.has_hope());
        assert_eq!(pace.choose(1), 1);
        // Unless they are asked for.
        assert_eq!(Pace::new(2, 1, true, true).choose(1), 3);
    }

    #[test]
    fn wrong_guesses_end_it_and_right_ones_bring_it_back() {
        let mut pace = Pace::new(2, 4, false, false);
        machine(&mut pace, 4, 8.0, 1.0);
        confirm(&mut pace, 4, 12);
        assert_eq!(pace.choose(4), 3);
        // As many passes of four streams in which all guesses are wrong, or right; how many had guesses.
        let mut run = |passes: usize, right: bool| {
            let mut tried = 0;
            for _ in 0..passes {
                let width = pace.choose(4);
                tried += usize::from(width > 1);
                let milliseconds = f64::from(u32::try_from(8 + 4 * width).unwrap());
                let tokens = if right { 4 * width } else { 4 };
                pace.took(4, width, Duration::from_secs_f64(milliseconds / 1000.0), Some(tokens));
            }
            tried
        };
        run(100, false);
        let tried = run(4000, false);
        assert!(tried > 0 && tried < 40, "{tried}");
        run(4000, true);
        let tried = run(1000, true);
        assert!(tried > 900, "{tried}");
        assert!(!pace.rests());
    }

    #[test]
    fn what_is_not_measured_is_as_with_fewer_streams() {
        let mut pace = Pace::new(2, 8, false, false);
        machine(&mut pace, 1, 10.0, 1.0);
        assert_eq!(pace.choose(8), 1);
        pace.took(8, 1, Duration::from_millis(30), None);
        confirm(&mut pace, 8, 30);
        assert_eq!(pace.choose(8), 3);
    }

    #[test]
    fn streams_share_prices_with_their_like() {
        assert_eq!([1, 2, 3, 4, 5, 8].map(bucket), [0, 1, 2, 2, 3, 3]);
    }
}
