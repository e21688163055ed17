//! One model of the configuration: what is in memory of it, and when it was last used.

use std::fs::{self, Metadata};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::time::timeout;

use super::absent::Absent;
use super::error::ModelError;
use super::registry::Model;
use super::residents::Resident;
use crate::config::{LoadAt, ModelConfig, ModelSource};
use crate::engine::local::LocalEngine;
use crate::engine::{Health, ModelInfo, TokenEngine};
use crate::upstream::Upstream;

/// A model that is loaded, or could be.
pub(super) struct Member {
    pub(super) config: ModelConfig,
    /// What is told of it while it is not in memory.
    outline: ModelInfo,
    state: Mutex<State>,
    maintenance: AtomicBool,
    /// Requests wait until it is loaded.
    awaited: AtomicBool,
    /// How many wait.
    waiting: AtomicUsize,
    used: Mutex<Instant>,
    /// Its silence was told.
    stuck: AtomicBool,
}

struct State {
    model: Arc<Model>,
    engine: Option<Arc<LocalEngine>>,
    failed: Option<Instant>,
    file: Option<FileMark>,
}

/// After a failure a model is not tried again at once: what is wrong with a file rarely passes by itself.
const PAUSE: Duration = Duration::from_secs(30);

impl Member {
    /// A model that is not in memory.
    pub(super) fn absent(config: ModelConfig, outline: ModelInfo, health: Health) -> Self {
        let failed = matches!(health, Health::Failed { .. }).then(Instant::now);
        Self {
            state: Mutex::new(State {
                model: stand_in(&outline, health),
                engine: None,
                failed,
                file: None,
            }),
            config,
            outline,
            maintenance: AtomicBool::new(false),
            awaited: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            used: Mutex::new(Instant::now()),
            stuck: AtomicBool::new(false),
        }
    }

    /// A model that other servers compute: there is never an engine for it here.
    pub(super) fn elsewhere(config: ModelConfig, upstream: Upstream) -> Self {
        let outline = upstream.engine.info().clone();
        let member = Self::absent(config, outline, Health::Unloaded);
        member.state.lock().model = Arc::new(Model::with_chat(upstream.engine, upstream.chat));
        member
    }

    /// Whether other servers compute it.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.config.source == ModelSource::Upstream
    }

    /// The model that requests see.
    pub(super) fn shown(&self) -> Arc<Model> {
        if self.maintenance.load(Ordering::Relaxed) {
            return stand_in(&self.outline, Health::Maintenance);
        }
        self.state.lock().model.clone()
    }

    /// The health that requests see.
    pub(super) fn health(&self) -> Health {
        if self.maintenance.load(Ordering::Relaxed) {
            return Health::Maintenance;
        }
        self.state.lock().model.engine.health()
    }

    pub(super) fn engine(&self) -> Option<Arc<LocalEngine>> {
        self.state.lock().engine.clone()
    }

    /// Whether there is an engine, ready or not.
    pub(super) fn is_up(&self) -> bool {
        self.state.lock().engine.is_some()
    }

    /// Shows a new engine. Requests wait until it is loaded if it is `awaited`.
    pub(super) fn show_engine(&self, engine: LocalEngine, awaited: bool) {
        let engine = Arc::new(engine);
        let mut state = self.state.lock();
        *state = State {
            model: Arc::new(Model::new(engine.clone())),
            failed: None,
            file: FileMark::of(&engine.info().file.path),
            engine: Some(engine),
        };
        drop(state);
        self.awaited.store(awaited, Ordering::Relaxed);
        self.stuck.store(false, Ordering::Relaxed);
        self.touch();
    }

    /// Says that the model cannot be used.
    pub(super) fn fail(&self, error: &ModelError) {
        let reason = error.reason();
        tracing::error!(model = self.config.name, reason, "the model is not available");
        self.show_absent(Health::Failed { reason });
    }

    /// Says why there is no engine.
    pub(super) fn show_absent(&self, health: Health) {
        let failed = matches!(health, Health::Failed { .. }).then(Instant::now);
        let model = stand_in(&self.outline, health);
        *self.state.lock() = State {
            model,
            engine: None,
            failed,
            file: None,
        };
    }

    /// Takes the engine out; what requests find from now on is `next`.
    pub(super) fn take_engine(&self, next: Health) -> Option<(Arc<Model>, Arc<LocalEngine>)> {
        let failed = matches!(next, Health::Failed { .. }).then(Instant::now);
        let mut state = self.state.lock();
        let engine = state.engine.take()?;
        let model = std::mem::replace(&mut state.model, stand_in(&self.outline, next));
        state.failed = failed;
        state.file = None;
        Some((model, engine))
    }

    /// Waits until the model does not load any more.
    pub(super) async fn settled(&self) {
        /// Between two looks at a model whose file is being tried.
        const PAUSE: Duration = Duration::from_millis(50);
        loop {
            let loading = |health: &Health| matches!(health, Health::Loading { .. });
            let model = self.state.lock().model.clone();
            if !loading(&model.engine.health()) {
                return;
            }
            let mut health = model.engine.watch_health();
            drop(model);
            // An engine that is gone does not load either.
            let _ = timeout(PAUSE, health.wait_for(|health| !loading(health))).await;
        }
    }

    /// Ends a load.
    pub(super) async fn stop_loading(&self) {
        if let Some(engine) = self
            .engine()
            .filter(|engine| matches!(engine.health(), Health::Loading { .. }))
        {
            engine.shutdown(Duration::ZERO).await;
        }
    }

    /// A request asks for the model.
    pub(super) fn touch(&self) {
        *self.used.lock() = Instant::now();
    }

    pub(super) fn last_used(&self) -> Instant {
        *self.used.lock()
    }

    /// Requests wait for the load that comes.
    pub(super) fn expect(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    /// Whether requests wait for the load that goes on.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    /// Whether a model that failed may be loaded again.
    pub(super) fn may_try_again(&self) -> bool {
        self.state.lock().failed.is_none_or(|failed| failed.elapsed() >= PAUSE)
    }

    /// A place among those who wait for the model, as many as its queue has.
    pub(super) fn wait_in_line(self: &Arc<Self>) -> Option<Waiting> {
        let waiting = Waiting(self.clone());
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        (before < self.config.queue.max(1)).then_some(waiting)
    }

    /// Says whether it was so before.
    pub(super) fn set_maintenance(&self, on: bool) -> bool {
        self.maintenance.swap(on, Ordering::Relaxed)
    }

    fn is_busy(&self) -> bool {
        let model = self.state.lock().model.clone();
        model.is_busy() || self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Whether the model is unloaded when another one needs its memory, and nobody uses it.
    pub(super) fn may_give_way(&self) -> bool {
        let stays = self.config.load == LoadAt::Startup && self.config.idle.is_none();
        !stays && self.engine().is_some_and(|engine| engine.health() == Health::Ready)
    }

    /// Whether it may be unloaded now.
    pub(super) fn gives_way(&self) -> bool {
        self.may_give_way() && !self.is_busy()
    }

    /// Whether nobody has used the model for as long as its configuration allows.
    pub(super) fn is_idle_for_long(&self) -> bool {
        let Some(idle) = self.config.idle else { return false };
        if !self.engine().is_some_and(|engine| engine.health() == Health::Ready) {
            return false;
        }
        if self.is_busy() {
            self.touch();
        }
        self.last_used().elapsed() >= idle
    }

    /// What the model takes of the machine, if it is loaded.
    pub(super) fn resident(&self) -> Option<Resident> {
        let memory = self.engine()?.memory()?;
        Some(Resident::of(&memory))
    }

    /// Tells once that the engine has been silent for too long.
    pub(super) fn watch(&self, limit: Duration) {
        let Some(engine) = self.engine() else { return };
        let silence = engine.silence();
        let stuck = !limit.is_zero() && silence >= limit;
        if stuck != self.stuck.swap(stuck, Ordering::Relaxed) {
            let (model, seconds) = (self.config.name.as_str(), silence.as_secs());
            if stuck {
                tracing::error!(model, seconds, "the engine has work and computes nothing: it is stuck");
            } else {
                tracing::info!(model, "the engine computes again");
            }
        }
    }

    /// Tells when the file of a loaded model is another one by now.
    pub(super) fn look_at_file(&self) {
        let mut state = self.state.lock();
        if let Some(file) = &mut state.file
            && let Some(change) = file.change()
        {
            let (model, file) = (self.config.name.as_str(), file.path.as_str());
            tracing::warn!(
                model,
                file,
                "the model's file {change}; unload and load the model, or answers may be wrong"
            );
        }
    }
}

fn stand_in(outline: &ModelInfo, health: Health) -> Arc<Model> {
    let absent = Arc::new(Absent::new(outline.clone(), health));
    Arc::new(Model::with_chat(absent.clone(), absent))
}

/// Leaves the line when it is dropped.
pub(super) struct Waiting(Arc<Member>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a file was when it was loaded.
struct FileMark {
    path: String,
    bytes: u64,
    modified: Option<SystemTime>,
    told: bool,
    looked: Instant,
}

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(5);

impl FileMark {
    fn of(path: &str) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            path: path.to_owned(),
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            told: false,
            looked: Instant::now(),
        })
    }

    /// What has become of it, once.
    fn change(&mut self) -> Option<&'static str> {
        if self.told || self.looked.elapsed() < LOOK {
            return None;
        }
        self.looked = Instant::now();
        let metadata = fs::metadata(&self.path);
        let change = self.compare(metadata.as_ref().ok());
        self.told = change.is_some();
        change
    }

    fn compare(&self, now: Option<&Metadata>) -> Option<&'static str> {
        match now {
            None => Some("is gone"),
            Some(now) if now.len() < self.bytes => Some("has become shorter"),
            Some(now) if now.len() != self.bytes || now.modified().ok() != self.modified => Some("has changed"),
            Some(_) => None,
        }
    }
}
