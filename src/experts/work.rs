//! What the blocks of a model cost beside arithmetic: counts of what is done for each, and how long its parts take.
//!
//! Counters, not clocks, say whether a hand-over grew: they are the same on any machine. The times are those of one machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What was done for blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct WorkCounts {
    /// Blocks that were divided between the copies and the CPU: layers times passes of few tokens
    /// ([`MAX_QUEUED_TOKENS`](super::MAX_QUEUED_TOKENS) at most).
    pub blocks: u64,
    /// Times the CPU waited for the GPU.
    pub waits: u64,
    /// Copies from the GPU.
    pub downloads: u64,
    /// Copies to the GPU, those of experts and tables not counted.
    pub uploads: u64,
    /// Copies of a layer's table, which says where its experts are: when others have a copy.
    pub tables: u64,
    /// Graphs that the GPU was given.
    pub graphs: u64,
    /// Nodes of these that compute something.
    pub nodes: u64,
    /// Graphs that the CPU computed for experts without a copy.
    pub cold_graphs: u64,
    /// Times that nodes were searched for a block, or a graph was drawn.
    pub recognitions: u64,
    /// Blocks of more tokens, which the GPU computed as a whole. They are in none of the counts above.
    pub large_blocks: u64,
    /// Experts that were copied from main memory for these.
    pub fetched: u64,
    /// Experts of these that had a copy.
    pub resident: u64,
}

/// A part of what happens to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// From the end of the block before: the rest of llama.cpp's graph is queued, or computed.
    Between,
    /// For the GPU, until it is known which experts were selected.
    Wait,
    /// Which of them have a copy.
    Choose,
    /// The hot half is started.
    Launch,
    /// The cold half is computed.
    Cold,
    /// What the cold half came to is handed back.
    Return,
    /// The policy takes note, and asks for uploads.
    Policy,
}

impl Part {
    pub const ALL: [Self; 7] = [
        Self::Between,
        Self::Wait,
        Self::Choose,
        Self::Launch,
        Self::Cold,
        Self::Return,
        Self::Policy,
    ];

    /// For answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Between => "between",
            Self::Wait => "wait",
            Self::Choose => "choose",
            Self::Launch => "launch",
            Self::Cold => "cold",
            Self::Return => "return",
            Self::Policy => "policy",
        }
    }
}

/// How long a part of a block takes, in microseconds: half of all blocks at most `p50_us`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct PhaseTimes {
    pub phase: &'static str,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// Times by their size: four classes from each power of two to the next, so what is read is at most a fifth too large.
#[derive(Debug)]
struct Times([AtomicU64; Self::CLASSES]);

impl Times {
    /// Up to half a minute.
    const CLASSES: usize = 4 * 35;

    fn class(nanos: u64) -> usize {
        let nanos = nanos.max(4);
        let power = nanos.ilog2();
        let quarter = (nanos >> (power - 2)) & 3;
        (power as usize * 4 + usize::try_from(quarter).unwrap_or(0)).min(Self::CLASSES - 1)
    }

    /// Where a class ends, in nanoseconds.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn end(class: usize) -> f64 {
        (1.0 + ((class % 4) as f64 + 1.0) / 4.0) * ((class / 4) as f64).exp2()
    }

    fn add(&self, time: Duration) {
        let class = Self::class(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.0[class].fetch_add(1, Ordering::Relaxed);
    }

    /// The time in microseconds that a share of all does not exceed; `None` without any.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a statistic"
    )]
    fn quantile(&self, share: f64) -> Option<f64> {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let class = counts.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        })?;
        Some(Self::end(class) / 1000.0)
    }
}

/// Counts and times of one model, written by the contexts that compute with it.
#[derive(Debug)]
pub(super) struct Work {
    counts: [AtomicU64; WorkCounts::KINDS],
    /// Bytes on the GPU in which weights are put together for large blocks.
    area: AtomicU64,
    times: [Times; Part::ALL.len()],
}

impl Default for Work {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            area: AtomicU64::new(0),
            times: std::array::from_fn(|_| Times(std::array::from_fn(|_| AtomicU64::new(0)))),
        }
    }
}

impl Work {
    pub(super) fn count(&self, mut done: WorkCounts) {
        for (count, more) in self.counts.iter().zip(done.each()) {
            if *more > 0 {
                count.fetch_add(*more, Ordering::Relaxed);
            }
        }
    }

    /// So many bytes are taken on the GPU to put weights together; one context of a model does that.
    pub(super) fn takes_area(&self, bytes: u64) {
        self.area.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(super) fn area(&self) -> u64 {
        self.area.load(Ordering::Relaxed)
    }

    pub(super) fn time(&self, part: Part, time: Duration) {
        self.times[part as usize].add(time);
    }

    pub(super) fn counts(&self) -> WorkCounts {
        let mut counts = WorkCounts::default();
        for (count, counted) in counts.each().into_iter().zip(&self.counts) {
            *count = counted.load(Ordering::Relaxed);
        }
        counts
    }

    /// Of the parts that were measured.
    pub(super) fn times(&self) -> Vec<PhaseTimes> {
        let times = Part::ALL.into_iter().zip(&self.times);
        times
            .filter_map(|(part, times)| {
                Some(PhaseTimes {
                    phase: part.name(),
                    p50_us: times.quantile(0.5)?,
                    p99_us: times.quantile(0.99)?,
                })
            })
            .collect()
    }
}

/// Takes the times of the parts of a block.
pub(super) struct Clock<'a> {
    work: &'a Work,
    last: Instant,
}

impl<'a> Clock<'a> {
    pub(super) fn start(work: &'a Work, left: Option<Instant>) -> Self {
        let last = Instant::now();
        if let Some(left) = left {
            work.time(Part::Between, last - left);
        }
        Self { work, last }
    }

    /// Ends a part; when that was.
    pub(super) fn lap(&mut self, part: Part) -> Instant {
        self.took(part);
        self.last
    }

    /// Ends a part; how long it took.
    pub(super) fn took(&mut self, part: Part) -> Duration {
        let took = self.last.elapsed();
        self.last += took;
        self.work.time(part, took);
        took
    }
}

impl WorkCounts {
    const KINDS: usize = 12;

    fn each(&mut self) -> [&mut u64; Self::KINDS] {
        [
            &mut self.blocks,
            &mut self.waits,
            &mut self.downloads,
            &mut self.uploads,
            &mut self.tables,
            &mut self.graphs,
            &mut self.nodes,
            &mut self.cold_graphs,
            &mut self.recognitions,
            &mut self.large_blocks,
            &mut self.fetched,
            &mut self.resident,
        ]
    }

    /// What was done after an earlier look.
    #[must_use]
    pub fn since(mut self, mut earlier: Self) -> Self {
        for (now, then) in self.each().into_iter().zip(earlier.each()) {
            *now = now.saturating_sub(*then);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_were_taken() {
        let work = Work::default();
        assert_eq!(work.times(), []);
        for micros in 1..=100 {
            work.time(Part::Cold, Duration::from_micros(micros));
        }
        let times = work.times();
        let [PhaseTimes { phase, p50_us, p99_us }] = times[..] else {
            panic!("{times:?}")
        };
        assert_eq!(phase, "cold");
        assert!((50.0..=60.0).contains(&p50_us), "{p50_us}");
        assert!((99.0..=120.0).contains(&p99_us), "{p99_us}");
        work.time(Part::Wait, Duration::ZERO);
        work.time(Part::Wait, Duration::from_secs(9999));
        assert_eq!(work.times().len(), 2);
    }

    #[test]
    fn counts_add_up() {
        let work = Work::default();
        let once = WorkCounts {
            blocks: 1,
            waits: 2,
            recognitions: 3,
            ..WorkCounts::default()
        };
        work.count(once);
        work.count(once);
        assert_eq!(work.counts().since(once), once);
    }
}
