//! A circuit breaker: a server that keeps failing is left alone for a while, then tried with one request.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The pause grows to this many times its first length.
const MAX_GROWTH: u32 = 32;

/// When to stop asking, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Failures in a row that open it; at least 1.
    pub(super) failures: u32,
    /// Before the first trial; twice as long after each that fails.
    pub(super) pause: Duration,
}

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// All requests.
    Closed,
    /// One request, whose outcome decides.
    HalfOpen,
    /// Nothing, until its pause is over.
    Open,
}

/// Permission for one request. Its outcome counts only while the breaker is in the state that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// Shared by the requests to one server.
#[derive(Debug)]
pub(super) struct Breaker {
    limits: Limits,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Grows with each change of the phase.
    generation: u64,
    /// Of the next pause.
    pause: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

impl Inner {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}

impl Breaker {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            inner: Mutex::new(Inner {
                phase: Phase::Closed { failures: 0 },
                generation: 0,
                pause: limits.pause,
            }),
        }
    }

    /// Asks for permission. Whoever gets it must tell the outcome.
    ///
    /// # Errors
    /// When to ask again.
    pub(super) fn admit(&self, now: Instant) -> Result<Ticket, Instant> {
        let mut inner = self.inner.lock();
        match inner.phase {
            Phase::Closed { .. } => {}
            Phase::Open { until } if now >= until => inner.enter(Phase::HalfOpen),
            Phase::Open { until } => return Err(until),
            Phase::HalfOpen => return Err(now + self.limits.pause),
        }
        Ok(Ticket(inner.generation))
    }

    /// The server begins to answer, which may take long: a trial need not wait for the end. The outcome counts with the
    /// ticket that this gives.
    pub(super) fn began(&self, ticket: Ticket) -> Ticket {
        let mut inner = self.inner.lock();
        if ticket.0 != inner.generation || !matches!(inner.phase, Phase::HalfOpen) {
            return ticket;
        }
        inner.pause = self.limits.pause;
        inner.enter(Phase::Closed { failures: 0 });
        Ticket(inner.generation)
    }

    /// The server answered.
    pub(super) fn succeeded(&self, ticket: Ticket) {
        let mut inner = self.inner.lock();
        if ticket.0 != inner.generation {
            return;
        }
        match &mut inner.phase {
            Phase::Closed { failures } => *failures = 0,
            Phase::Open { .. } => {}
            Phase::HalfOpen => {
                inner.pause = self.limits.pause;
                inner.enter(Phase::Closed { failures: 0 });
            }
        }
    }

    /// The server failed.
    pub(super) fn failed(&self, ticket: Ticket, now: Instant) {
        let mut inner = self.inner.lock();
        if ticket.0 != inner.generation {
            return;
        }
        match &mut inner.phase {
            Phase::Closed { failures } => {
                *failures += 1;
                if *failures < self.limits.failures {
                    return;
                }
            }
            Phase::Open { .. } => return,
            Phase::HalfOpen => {
                inner.pause = (inner.pause * 2).min(self.limits.pause * MAX_GROWTH);
            }
        }
        let until = now + inner.pause;
        inner.enter(Phase::Open { until });
    }

    /// The request ended without telling anything about the server.
    pub(super) fn abandoned(&self, ticket: Ticket, now: Instant) {
        let mut inner = self.inner.lock();
        // Another request may be the trial.
        if ticket.0 == inner.generation && matches!(inner.phase, Phase::HalfOpen) {
            inner.enter(Phase::Open { until: now });
        }
    }

    pub(super) fn state(&self) -> State {
        match self.inner.lock().phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen => State::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        failures: 3,
        pause: Duration::from_secs(1),
    };

    #[test]
    fn it_opens_tries_once_and_closes() {
        let breaker = Breaker::new(LIMITS);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let old = breaker.admit(start).unwrap();
        for _ in 0..3 {
            let ticket = breaker.admit(start).unwrap();
            breaker.failed(ticket, start);
        }
        assert_eq!(breaker.state(), State::Open);
        // An answer that began before says nothing about now.
        breaker.succeeded(old);
        assert_eq!(breaker.admit(at(999)), Err(at(1000)));
        let trial = breaker.admit(at(1000)).unwrap();
        assert!(breaker.admit(at(1000)).is_err());
        breaker.failed(trial, at(1000));
        // Twice as long.
        assert_eq!(breaker.admit(at(2999)), Err(at(3000)));
        let trial = breaker.admit(at(3000)).unwrap();
        breaker.abandoned(trial, at(3100));
        let trial = breaker.admit(at(3100)).unwrap();
        let trial = breaker.began(trial);
        assert_eq!(breaker.state(), State::Closed);
        breaker.succeeded(trial);
        // The pause is short again.
        for _ in 0..3 {
            let ticket = breaker.admit(at(4000)).unwrap();
            breaker.failed(ticket, at(4000));
        }
        assert_eq!(breaker.admit(at(4000)), Err(at(5000)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Wait(u64),
        Admit,
        Succeed(usize),
        Fail(usize),
        Abandon(usize),
        Begin(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0_u64..3000).prop_map(Step::Wait),
            Just(Step::Admit),
            Just(Step::Admit),
            (0_usize..8).prop_map(Step::Succeed),
            (0_usize..8).prop_map(Step::Fail),
            (0_usize..8).prop_map(Step::Abandon),
            (0_usize..8).prop_map(Step::Begin),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever happens in whatever order: one trial at a time, no request while it is open, and after the longest pause
        /// somebody may ask again.
        #[test]
        fn it_never_locks_up_and_never_lets_a_crowd_through(steps in steps()) {
            let breaker = Breaker::new(LIMITS);
            let mut now = Instant::now();
            let mut out: Vec<Ticket> = Vec::new();
            let mut trial: Option<Ticket> = None;
            for step in steps {
                match step {
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Admit => {
                        let before = breaker.state();
                        if let Ok(ticket) = breaker.admit(now) {
                            prop_assert!(before != State::HalfOpen, "two trials at once");
                            if before == State::Open {
                                trial = Some(ticket);
                            }
                            out.push(ticket);
                        } else {
                            prop_assert!(before != State::Closed, "closed, and refuses");
                        }
                    }
                    Step::Begin(index) if index < out.len() => {
                        let before = breaker.state();
                        let is_trial = trial == Some(out[index]);
                        out[index] = breaker.began(out[index]);
                        if before == State::HalfOpen && !is_trial {
                            prop_assert_eq!(breaker.state(), State::HalfOpen);
                        }
                    }
                    Step::Succeed(index) | Step::Fail(index) | Step::Abandon(index) if index < out.len() => {
                        let ticket = out.swap_remove(index);
                        let before = breaker.state();
                        match step {
                            Step::Succeed(_) => breaker.succeeded(ticket),
                            Step::Fail(_) => breaker.failed(ticket, now),
                            _ => breaker.abandoned(ticket, now),
                        }
                        // Only the trial ends a trial.
                        if before == State::HalfOpen && trial != Some(ticket) {
                            prop_assert_eq!(breaker.state(), State::HalfOpen);
                        }
                    }
                    _ => {}
                }
            }
            // A trial that is on its way ends some day.
            if breaker.state() == State::HalfOpen {
                breaker.failed(trial.unwrap(), now);
            }
            now += LIMITS.pause * MAX_GROWTH;
            prop_assert!(breaker.admit(now).is_ok());
        }
    }
}
