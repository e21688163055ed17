//! What the engine thread and its callers share: the bounded queue of requests, and the state of the engine.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{oneshot, watch};

use super::gauge::SlotGauge;
use super::quiet::{InFlight, Turns};
use super::thinking::Thinking;
use crate::engine::{Border, EngineError, Event, Health, Sampling, SlotCounts, SlotOutcome, SlotState, Token};
use crate::grammar::Matcher;

/// A request that passed every check, on its way to a slot.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    /// Not empty, shorter than the context, each token in the vocabulary.
    pub(super) prompt: Vec<Token>,
    pub(super) sampling: Sampling,
    /// Tokens to generate at most; at least 1, and with the prompt within the context.
    pub(super) max_tokens: u32,
    pub(super) stop: Vec<String>,
    pub(super) stop_tokens: Vec<Token>,
    pub(super) ignore_eos: bool,
    pub(super) cache_prompt: bool,
    pub(super) borders: Vec<Border>,
    pub(super) special: bool,
    /// Control tokens that are printed.
    pub(super) preserved: Vec<Token>,
    pub(super) progress: bool,
    pub(super) grammar: Option<Matcher>,
    pub(super) thinking: Option<Thinking>,
    pub(super) logprobs: Option<u32>,
    /// Which experts computed each token is told at the end.
    pub(super) routed_experts: bool,
    pub(super) events: UnboundedSender<Event>,
    pub(super) submitted: Instant,
    /// Log lines about the request belong to it.
    pub(super) span: tracing::Span,
}

/// What a client asks to be done with a slot.
#[derive(Debug)]
pub(super) struct SlotJob {
    /// There is one of this number.
    pub(super) slot: usize,
    pub(super) work: SlotWork,
    pub(super) done: oneshot::Sender<Result<SlotOutcome, EngineError>>,
}

#[derive(Debug)]
pub(super) enum SlotWork {
    /// To a file that llama.cpp writes anew.
    Save(PathBuf),
    /// From a file that was checked.
    Restore(PathBuf),
    Erase,
}

/// State that is read from any thread. The engine thread takes the lock only when a request waits or it has nothing to do.
#[derive(Debug)]
pub(super) struct Shared {
    requests: Mutex<VecDeque<QueuedRequest>>,
    jobs: Mutex<Vec<SlotJob>>,
    has_jobs: AtomicBool,
    wake: Condvar,
    health: watch::Sender<Health>,
    /// For who waits for another health without an async runtime.
    blocking: Mutex<()>,
    healthy: Condvar,
    waiting: AtomicU32,
    busy: AtomicU32,
    in_flight: InFlight,
    /// What is computed while there are no requests.
    pub(super) turns: Turns,
    stop: AtomicBool,
    slots: u32,
    gauges: Vec<SlotGauge>,
    limit: u32,
    /// When the engine thread last began a step, in milliseconds after `started`.
    pulse: AtomicU64,
    started: Instant,
    /// Requests whose clients left before they had a slot, and that nobody has counted.
    left: AtomicU32,
    /// Moving average of the seconds that a request holds its slot, as bits of an f64.
    slot_seconds: AtomicU64,
}

/// Why a request was not taken.
pub(super) enum Refused {
    Full { retry_after: Duration },
    Stopped,
}

impl Shared {
    /// `slots` requests may run and `limit` more may wait.
    pub(super) fn new(slots: u32, limit: usize) -> Self {
        Self {
            requests: Mutex::new(VecDeque::new()),
            jobs: Mutex::new(Vec::new()),
            has_jobs: AtomicBool::new(false),
            wake: Condvar::new(),
            health: watch::Sender::new(Health::Loading { progress: 0.0 }),
            blocking: Mutex::new(()),
            healthy: Condvar::new(),
            waiting: AtomicU32::new(0),
            busy: AtomicU32::new(0),
            in_flight: InFlight::default(),
            turns: Turns::new(slots),
            stop: AtomicBool::new(false),
            slots,
            gauges: (0..slots).map(|_| SlotGauge::default()).collect(),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            pulse: AtomicU64::new(0),
            started: Instant::now(),
            left: AtomicU32::new(0),
            slot_seconds: AtomicU64::new(1.0_f64.to_bits()),
        }
    }

    /// Queues a request, or refuses it at once.
    pub(super) fn push(&self, request: QueuedRequest) -> Result<(), Refused> {
        if self.stopping() {
            return Err(Refused::Stopped);
        }
        let mut requests = self.requests.lock();
        if self.in_flight.get() >= self.slots.saturating_add(self.limit) {
            // Those who left no longer count.
            self.purge(&mut requests);
        }
        if self.in_flight.get() >= self.slots.saturating_add(self.limit) {
            return Err(Refused::Full {
                retry_after: self.expected_wait(),
            });
        }
        requests.push_back(request);
        if self.in_flight.add() == 0 {
            // Silence is counted from here.
            self.beat();
        }
        self.waiting.store(count(requests.len()), Ordering::Release);
        drop(requests);
        self.wake.notify_one();
        Ok(())
    }

    /// Queues something to be done with a slot; false if the engine does nothing any more.
    pub(super) fn push_slot_job(&self, job: SlotJob) -> bool {
        let mut jobs = self.jobs.lock();
        // Within the lock: none comes after the last were dropped.
        if self.stopping() {
            return false;
        }
        jobs.push(job);
        self.has_jobs.store(true, Ordering::Release);
        drop(jobs);
        // Not between the look and the sleep of `wait`.
        drop(self.requests.lock());
        self.wake.notify_one();
        true
    }

    /// Takes what can be done now, for slots that are free.
    pub(super) fn slot_jobs(&self, is_free: impl Fn(usize) -> bool) -> Vec<SlotJob> {
        if !self.has_jobs.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut jobs = self.jobs.lock();
        // Their clients may be gone.
        jobs.retain(|job| !job.done.is_closed());
        let taken = jobs.extract_if(.., |job| is_free(job.slot)).collect();
        self.has_jobs.store(!jobs.is_empty(), Ordering::Release);
        taken
    }

    /// Where a slot's work is written down.
    pub(super) fn gauge(&self, slot: usize) -> &SlotGauge {
        &self.gauges[slot]
    }

    pub(super) fn slot_states(&self) -> Vec<SlotState> {
        self.gauges.iter().map(SlotGauge::read).collect()
    }

    /// The next request whose client is still there, if it can be taken now.
    pub(super) fn pop_if(&self, wanted: impl Fn(&QueuedRequest) -> bool) -> Option<QueuedRequest> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut requests = self.requests.lock();
        self.purge(&mut requests);
        let request = if requests.front().is_some_and(wanted) {
            requests.pop_front()
        } else {
            None
        };
        self.waiting.store(count(requests.len()), Ordering::Release);
        request
    }

    /// Sleeps until there is a request, or the engine is to stop; or until a next turn is to be computed, which it tells.
    pub(super) fn wait(&self) -> bool {
        let mut requests = self.requests.lock();
        while requests.is_empty() && !self.has_jobs.load(Ordering::Acquire) && !self.stopping() {
            match self.turns.due() {
                None => self.wake.wait(&mut requests),
                Some(Duration::ZERO) => return true,
                Some(left) => drop(self.wake.wait_for(&mut requests, left)),
            }
        }
        false
    }

    /// Queues the beginning of a turn that may come.
    pub(super) fn push_turn(&self, beginning: Vec<Token>) {
        self.turns.push(beginning);
        // Not between the look and the sleep of `wait`.
        drop(self.requests.lock());
        self.wake.notify_one();
    }

    /// Empties the queue, for an engine that will not answer any more.
    pub(super) fn drain(&self) -> Vec<QueuedRequest> {
        // Who waits for them hears that nobody is left to do them.
        self.jobs.lock().clear();
        let requests: Vec<QueuedRequest> = self.requests.lock().drain(..).collect();
        self.waiting.store(0, Ordering::Release);
        self.in_flight.remove(count(requests.len()));
        requests
    }

    fn purge(&self, requests: &mut VecDeque<QueuedRequest>) {
        let before = requests.len();
        requests.retain(|request| !request.events.is_closed());
        let left = count(before - requests.len());
        self.in_flight.remove(left);
        self.left.fetch_add(left, Ordering::Relaxed);
        self.waiting.store(count(requests.len()), Ordering::Release);
    }

    /// Requests that left the queue since the last call.
    pub(super) fn take_left(&self) -> u32 {
        match self.left.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.left.swap(0, Ordering::Relaxed),
        }
    }

    /// A request got its slot.
    pub(super) fn slot_taken(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// A request left its slot after `held`.
    pub(super) fn slot_freed(&self, held: Duration) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
        self.in_flight.remove(1);
        let average = f64::from_bits(self.slot_seconds.load(Ordering::Relaxed));
        let average = 0.9 * average + 0.1 * held.as_secs_f64();
        self.slot_seconds.store(average.to_bits(), Ordering::Relaxed);
    }

    fn expected_wait(&self) -> Duration {
        let average = f64::from_bits(self.slot_seconds.load(Ordering::Relaxed));
        let turns = f64::from(self.limit.max(1)) / f64::from(self.slots.max(1));
        Duration::from_secs_f64((average * turns).clamp(1.0, 60.0))
    }

    pub(super) fn counts(&self) -> SlotCounts {
        SlotCounts {
            total: self.slots,
            busy: self.busy.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            queue: self.limit,
            tokens: 0,
        }
    }

    /// How many requests may wait.
    pub(super) fn limit(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }

    /// The engine thread is alive.
    pub(super) fn beat(&self) {
        self.pulse.store(self.milliseconds(), Ordering::Relaxed);
    }

    /// Time since the last step, while there is work.
    pub(super) fn silence(&self) -> Duration {
        if self.idle() || self.health() != Health::Ready {
            return Duration::ZERO;
        }
        let since = self.milliseconds().saturating_sub(self.pulse.load(Ordering::Relaxed));
        Duration::from_millis(since)
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    pub(super) fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// The health from now on.
    pub(super) fn watch_health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// A stopping or failed engine stays so.
    pub(super) fn set_health(&self, next: Health) {
        self.health.send_if_modified(|health| {
            let lasts = matches!(*health, Health::Failed { .. } | Health::ShuttingDown);
            if !lasts {
                *health = next;
            }
            !lasts
        });
        // Not between the look and the sleep of who waits.
        drop(self.blocking.lock());
        self.healthy.notify_all();
    }

    /// Waits until the model is loaded, or the load has failed. `progress` is called a few times a second.
    pub(super) fn wait_until_loaded(&self, mut progress: impl FnMut(f32)) -> Health {
        let mut blocking = self.blocking.lock();
        loop {
            match self.health() {
                Health::Loading { progress: done } => progress(done),
                settled => return settled,
            }
            self.healthy.wait_for(&mut blocking, Duration::from_millis(100));
        }
    }

    /// Makes the engine thread end after its current step.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // The lock orders this with the check in `wait`: no wake-up is lost.
        let _requests = self.requests.lock();
        self.wake.notify_all();
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Tells a client that its request ends unanswered.
pub(super) fn fail(request: &QueuedRequest, error: EngineError) {
    // The client may be gone.
    let _ = request.events.send(Event::Failed(error));
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn request(token: Token) -> (QueuedRequest, UnboundedReceiver<Event>) {
        let (events, receiver) = unbounded_channel();
        let request = QueuedRequest {
            prompt: vec![token],
            sampling: Sampling::default(),
            max_tokens: 1,
            stop: vec![],
            stop_tokens: vec![],
            ignore_eos: false,
            cache_prompt: true,
            borders: vec![],
            special: false,
            preserved: vec![],
            progress: false,
            grammar: None,
            thinking: None,
            logprobs: None,
            routed_experts: false,
            events,
            submitted: Instant::now(),
            span: tracing::Span::none(),
        };
        (request, receiver)
    }

    #[test]
    fn silence_is_counted_while_there_is_work() {
        let shared = Shared::new(1, 1);
        shared.set_health(Health::Ready);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(shared.silence(), Duration::ZERO);
        let (waiting, _events) = request(1);
        assert!(shared.push(waiting).is_ok());
        // Not since the start.
        assert!(shared.silence() < Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(30));
        assert!(shared.silence() >= Duration::from_millis(30));
        shared.beat();
        assert!(shared.silence() < Duration::from_millis(30));
    }

    #[test]
    fn takes_slots_and_queue_then_refuses() {
        let shared = Shared::new(1, 1);
        let (first, _keep_first) = request(1);
        let (second, keep_second) = request(2);
        let (third, _keep_third) = request(3);
        assert!(shared.push(first).is_ok());
        assert!(shared.push(second).is_ok());
        assert!(matches!(shared.push(third), Err(Refused::Full { .. })));
        // A client that leaves the queue makes a place free at once.
        drop(keep_second);
        let (fourth, _keep_fourth) = request(4);
        assert!(shared.push(fourth).is_ok());
        assert_eq!((shared.take_left(), shared.take_left()), (1, 0));
        assert_eq!(shared.pop_if(|_| true).map(|request| request.prompt), Some(vec![1]));
        assert_eq!(shared.pop_if(|_| true).map(|request| request.prompt), Some(vec![4]));
        assert!(shared.pop_if(|_| true).is_none());
    }

    #[test]
    fn a_stopped_queue_wakes_and_refuses() {
        let shared = std::sync::Arc::new(Shared::new(1, 1));
        let waiter = std::thread::spawn({
            let shared = shared.clone();
            move || shared.wait()
        });
        shared.stop();
        waiter.join().unwrap();
        assert!(matches!(shared.push(request(1).0), Err(Refused::Stopped)));
    }

    #[test]
    fn a_failed_engine_stays_failed() {
        let shared = Shared::new(1, 1);
        shared.set_health(Health::Failed { reason: "x".into() });
        shared.set_health(Health::Ready);
        assert!(matches!(shared.health(), Health::Failed { .. }));
    }
}
