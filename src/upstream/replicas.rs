//! The servers of a model, and which of them is asked next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::IntGauge;

use super::breaker::{Breaker, Limits, State, Ticket};
use super::client::Client;
use super::fault::{Again, Fault};
use crate::telemetry::UpstreamMetrics;

/// Longest rest that a server's `Retry-After` brings.
const MAX_REST: Duration = Duration::from_secs(60);

/// One server.
pub(super) struct Replica {
    pub(super) client: Client,
    breaker: Breaker,
    in_flight: AtomicU32,
    /// Until then it asked to be left alone.
    rests: Mutex<Option<Instant>>,
    metrics: UpstreamMetrics,
}

impl Replica {
    pub(super) fn new(client: Client, metrics: UpstreamMetrics) -> Arc<Self> {
        let to = &client.config;
        Arc::new(Self {
            breaker: Breaker::new(Limits {
                failures: to.breaker_failures,
                pause: to.breaker_pause,
            }),
            in_flight: AtomicU32::new(0),
            rests: Mutex::new(None),
            metrics,
            client,
        })
    }

    /// What it computes now.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn tell_state(&self) {
        self.metrics.breaker.set(match self.breaker.state() {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        });
    }
}

/// All servers of a model; at least one.
pub(super) struct Replicas {
    all: Vec<Arc<Replica>>,
    /// Where equally busy ones are looked for first.
    turn: AtomicUsize,
}

/// Why no server can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoReplica {
    /// All that were left were tried.
    AllTried,
    /// All have as many requests as they may.
    Full,
    /// One asked to be left alone, and the others cannot be asked either; when one may be asked again.
    Resting(Instant),
    /// All failed lately; when one may be tried again.
    Failing(Instant),
}

impl Replicas {
    pub(super) fn new(all: Vec<Arc<Replica>>) -> Self {
        Self {
            all,
            turn: AtomicUsize::new(0),
        }
    }

    pub(super) fn all(&self) -> &[Arc<Replica>] {
        &self.all
    }

    /// The least busy server, by its weight, that was not tried.
    pub(super) fn acquire(&self, tried: &[usize], now: Instant) -> Result<(usize, Lease), NoReplica> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.all.len();
        let mut order: Vec<usize> = (0..count)
            .map(|step| (turn.wrapping_add(step)) % count)
            .filter(|index| !tried.contains(index))
            .collect();
        if order.is_empty() {
            return Err(NoReplica::AllTried);
        }
        // Stable: of equally busy ones the next in turn.
        order.sort_by(|a, b| {
            let load = |index: usize| {
                (
                    u64::from(self.all[index].in_flight()) + 1,
                    u64::from(self.all[index].client.config.weight),
                )
            };
            let ((a, a_weight), (b, b_weight)) = (load(*a), load(*b));
            (a * b_weight).cmp(&(b * a_weight))
        });
        let mut rests = false;
        let mut soonest: Option<Instant> = None;
        let mut later = |at: Instant| soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
        for index in order {
            let replica = &self.all[index];
            if replica.in_flight() >= replica.client.config.max_requests {
                continue;
            }
            if let Some(until) = (*replica.rests.lock()).filter(|until| *until > now) {
                rests = true;
                later(until);
                continue;
            }
            match replica.breaker.admit(now) {
                Ok(ticket) => return Ok((index, Lease::new(replica.clone(), ticket))),
                Err(until) => later(until),
            }
        }
        Err(match soonest {
            Some(at) if rests => NoReplica::Resting(at),
            Some(at) => NoReplica::Failing(at),
            None => NoReplica::Full,
        })
    }
}

/// A request at a server. Dropping it without an outcome is a client that left.
pub(super) struct Lease {
    pub(super) replica: Arc<Replica>,
    ticket: Option<Ticket>,
    running: IntGauge,
}

impl Lease {
    fn new(replica: Arc<Replica>, ticket: Ticket) -> Self {
        replica.in_flight.fetch_add(1, Ordering::Relaxed);
        let running = replica.metrics.running.clone();
        running.inc();
        replica.tell_state();
        Self {
            replica,
            ticket: Some(ticket),
            running,
        }
    }

    /// The server begins to answer.
    pub(super) fn began(&mut self) {
        self.ticket = self.ticket.map(|ticket| self.replica.breaker.began(ticket));
        self.replica.tell_state();
    }

    /// The answer is complete.
    pub(super) fn succeeded(mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.replica.breaker.succeeded(ticket);
        }
        self.replica.metrics.count("ok");
    }

    /// The server failed, or refused.
    pub(super) fn failed(mut self, fault: &Fault) {
        let now = Instant::now();
        if let Some(ticket) = self.ticket.take() {
            if fault.is_failure {
                self.replica.breaker.failed(ticket, now);
            } else {
                // It is there, and says what it wants.
                self.replica.breaker.succeeded(ticket);
            }
        }
        if let Again::After(rest) = fault.again {
            *self.replica.rests.lock() = Some(now + rest.min(MAX_REST));
        }
        self.replica.metrics.count(fault.outcome);
        self.replica.tell_state();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.replica.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.running.dec();
        if let Some(ticket) = self.ticket {
            self.replica.breaker.abandoned(ticket, Instant::now());
            self.replica.metrics.count("cancelled");
            self.replica.tell_state();
        }
    }
}
