//! What is computed while nobody asks for anything: the beginnings of next turns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::engine::Token;

/// How long no model of the process has had a request before something is computed ahead: a program that asks again at once
/// does not wait for a pass, and a model that is asked after another one has the machine for itself.
const QUIET: Duration = Duration::from_millis(200);

/// Requests of all models of this process, which share its processors and devices.
static PROCESS: Mutex<Process> = Mutex::new(Process {
    in_flight: 0,
    since: None,
});

struct Process {
    in_flight: u32,
    /// When the last of them ended.
    since: Option<Instant>,
}

/// Time until the process has been quiet for long enough, if nobody asks meanwhile.
fn until_quiet() -> Duration {
    let process = PROCESS.lock();
    match process.since {
        Some(since) if process.in_flight == 0 => QUIET.saturating_sub(since.elapsed()),
        None if process.in_flight == 0 => Duration::ZERO,
        _ => QUIET,
    }
}

/// Requests of a model that were taken and have not ended: waiting or in a slot.
#[derive(Debug, Default)]
pub(super) struct InFlight(AtomicU32);

impl InFlight {
    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more; returns how many there were.
    pub(super) fn add(&self) -> u32 {
        PROCESS.lock().in_flight += 1;
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// So many have ended.
    pub(super) fn remove(&self, ended: u32) {
        if ended == 0 {
            return;
        }
        self.0.fetch_sub(ended, Ordering::Relaxed);
        let mut process = PROCESS.lock();
        process.in_flight -= ended;
        process.since = Some(Instant::now());
    }
}

impl Drop for InFlight {
    /// An engine that failed has not ended all of them.
    fn drop(&mut self) {
        self.remove(self.get());
    }
}

/// Beginnings of turns that may come, the oldest first.
#[derive(Debug)]
pub(super) struct Turns {
    waiting: Mutex<VecDeque<Arc<[Token]>>>,
    most: usize,
}

impl Turns {
    /// More than slots are of no use: each takes one.
    pub(super) fn new(slots: u32) -> Self {
        Self {
            waiting: Mutex::default(),
            most: usize::try_from(slots).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn push(&self, beginning: Vec<Token>) {
        let mut waiting = self.waiting.lock();
        waiting.push_back(beginning.into());
        if waiting.len() > self.most {
            waiting.pop_front();
        }
    }

    pub(super) fn first(&self) -> Option<Arc<[Token]>> {
        self.waiting.lock().front().cloned()
    }

    /// Forgets one that is computed, or cannot be.
    pub(super) fn done(&self, beginning: &Arc<[Token]>) {
        self.waiting.lock().retain(|other| !Arc::ptr_eq(other, beginning));
    }

    /// Forgets all: what slots hold is not what it was.
    pub(super) fn forget(&self) {
        self.waiting.lock().clear();
    }

    /// Time until one is to be computed; `None` if there is none.
    pub(super) fn due(&self) -> Option<Duration> {
        (!self.waiting.lock().is_empty()).then(until_quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_turns_wait_as_there_are_slots() {
        let turns = Turns::new(2);
        assert_eq!(turns.due(), None);
        for token in 1..=3 {
            turns.push(vec![token]);
        }
        let first = turns.first().unwrap();
        assert_eq!(*first, [2]);
        turns.done(&first);
        assert_eq!(turns.first().as_deref(), Some(&[3][..]));
        assert!(turns.due().is_some());
        turns.forget();
        assert!(turns.first().is_none());
    }

    #[test]
    fn nothing_is_due_while_a_model_has_a_request() {
        let (turns, in_flight) = (Turns::new(1), InFlight::default());
        turns.push(vec![1]);
        assert_eq!(in_flight.add(), 0);
        assert_eq!(in_flight.add(), 1);
        assert_eq!(turns.due(), Some(QUIET));
        in_flight.remove(1);
        assert_eq!((in_flight.get(), turns.due()), (1, Some(QUIET)));
        drop(in_flight);
        // Not before some time has passed; other tests may have requests meanwhile.
        assert!(turns.due().is_some_and(|left| left > Duration::ZERO));
    }
}
