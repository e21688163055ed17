//! The models of a running server: they come and go.
//!
//! [`Models`] has a [`Member`] for each model of the configuration, and the [`Registry`] that requests see. Whatever changes a
//! member publishes another registry; requests keep what they found. Loads and unloads take turns, so that each plan knows what
//! the others left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, select_all};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::ModelError;
use super::load::{self, Attempt};
use super::member::Member;
use super::registry::{Model, ModelFailure, Permission, Registry, Target, UnknownModel};
use super::residents::{self, Resident};
use super::trial::Trials;
use crate::config::{Config, MemoryConfig, ServerConfig};
use crate::engine::local::LocalEngine;
use crate::engine::{Health, TokenEngine};
use crate::telemetry::Metrics;

/// The models that a server has. Cheap to clone.
#[derive(Clone)]
pub struct Models(pub(super) Arc<Inner>);

pub(super) struct Inner {
    /// What requests see.
    registry: RwLock<Registry>,
    /// In the order of the configuration.
    pub(super) members: RwLock<Vec<Arc<Member>>>,
    pub(super) config: Mutex<Arc<Config>>,
    /// How files are tried that nobody has seen before; `None` for not.
    trials: Option<Trials>,
    pub(super) metrics: Metrics,
    /// Held by who loads or unloads.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Another registry was published.
    changed: watch::Sender<()>,
    closing: watch::Sender<bool>,
}

/// Why a model is not loaded or unloaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleError {
    #[error(transparent)]
    Unknown(#[from] UnknownModel),
    /// In llama-server's words, which its clients know.
    #[error("model is already loaded")]
    AlreadyLoaded,
    #[error("model is not loaded")]
    NotLoaded,
    #[error("model `{0}` is in maintenance; end that first")]
    Maintenance(String),
    #[error("model `{0}` is not one that is loaded here")]
    NotHere(String),
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// How often models that do not have to be loaded are looked at.
const TICK: Duration = Duration::from_secs(1);

impl Models {
    /// Models that were started elsewhere, and stay.
    #[must_use]
    pub fn fixed(registry: Registry, metrics: Metrics) -> Self {
        let config = Config {
            server: ServerConfig::default(),
            memory: MemoryConfig::default(),
            models: Vec::new(),
            presets: Vec::new(),
            keys: Vec::new(),
        };
        Self::of(registry, Vec::new(), Arc::new(config), None, metrics)
    }

    /// Plans where the models of a configuration go and starts the engines of those that are loaded at start-up; the weights load
    /// in the background, after files that nobody has seen before were tried with `trials`. A model that cannot be used does not
    /// stop the others.
    ///
    /// # Errors
    /// [`ModelError`] when no model can be used, with what is wrong with the first, or when not all fit.
    pub fn start(config: Config, trials: Option<Trials>, metrics: Metrics) -> Result<Self, ModelError> {
        let config = Arc::new(config);
        let begun = load::begin(&config, &metrics)?;
        let models = Self::of(
            Registry::new([], false),
            begun.members.clone(),
            config.clone(),
            trials,
            metrics,
        );
        let later = models.0.trials.as_ref().is_some_and(|trials| !begun.is_tried(trials));
        if !later {
            begun.start(&config, &models.0.metrics)?;
            models.publish();
            return Ok(models);
        }
        models.publish();
        drop(begun);
        let trying = models.clone();
        std::thread::Builder::new()
            .name("trials".into())
            .spawn(move || trying.start_tried(&config))
            .map_err(ModelError::Thread)?;
        Ok(models)
    }

    /// Starts what is loaded at start-up when its files have been tried. Blocks.
    fn start_tried(&self, config: &Config) {
        let _turn = self.0.turn.blocking_lock();
        // Inspected once more: what was is borrowed.
        let started = load::begin(config, &self.0.metrics).and_then(|mut begun| {
            (*self.0.members.write()).clone_from(&begun.members);
            self.publish();
            if let Some(trials) = &self.0.trials {
                begun.try_files(trials);
                self.publish();
            }
            begun.start(config, &self.0.metrics)
        });
        if let Err(error) = started {
            for member in self.members() {
                if matches!(member.health(), Health::Loading { .. }) && !member.is_up() {
                    member.fail(&error);
                }
            }
        }
        self.publish();
    }

    fn of(
        registry: Registry,
        members: Vec<Arc<Member>>,
        config: Arc<Config>,
        trials: Option<Trials>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            registry: RwLock::new(registry),
            members: RwLock::new(members),
            config: Mutex::new(config),
            trials,
            metrics,
            turn: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(()),
            closing: watch::Sender::new(false),
        }))
    }

    /// The models and presets as they are now.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.0.registry.read().clone()
    }

    /// Silence of an engine that has work after which it is stuck; zero for never.
    #[must_use]
    pub fn watchdog(&self) -> Duration {
        self.0.config.lock().server.watchdog
    }

    /// Whether GPUs share main memory, where the configuration says it.
    #[must_use]
    pub fn unified(&self) -> Option<bool> {
        self.0.config.lock().memory.unified
    }

    /// Lets requests see what the members are now.
    pub(super) fn publish(&self) {
        let config = self.0.config.lock().clone();
        let members = self.0.members.read();
        let models = members.iter().map(|member| member.shown());
        let registry = Registry::new(models, config.server.strict_models).with_presets(&config.presets);
        *self.0.registry.write() = registry;
        drop(members);
        self.0.changed.send_replace(());
    }

    /// The models and presets as they are now, of which only the model with the name `only` is to be seen if there is one.
    ///
    /// # Errors
    /// When there is no such model.
    pub fn seen(&self, only: Option<&str>) -> Result<Registry, UnknownModel> {
        see(&self.0.registry.read(), only)
    }

    /// What a request means, see [`Registry::resolve`]. A model that is not in memory is loaded, if `autoload` and the
    /// configuration say so; this waits for it, for a bounded time. Whatever comes of it, the target says it when it is asked.
    /// Where others answer in its place, they are only those of the permission.
    ///
    /// # Errors
    /// When nobody has the name.
    ///
    /// # Cancel safety
    /// Dropping the future does not end a load.
    pub async fn open(
        &self,
        only: Option<&str>,
        name: Option<&str>,
        autoload: bool,
        permission: Permission,
    ) -> Result<Target, UnknownModel> {
        let target = self.find(only, name, autoload).await?;
        Ok(self.with_fallback(target, permission))
    }

    async fn find(&self, only: Option<&str>, name: Option<&str>, autoload: bool) -> Result<Target, UnknownModel> {
        let (loads, patience) = {
            let config = self.0.config.lock();
            (autoload && config.server.autoload, config.server.load_timeout)
        };
        let deadline = Instant::now() + patience;
        loop {
            // Within the lock: who takes a model down publishes another registry, then looks who found it before.
            let target = {
                let registry = self.0.registry.read();
                see(&registry, only)?.resolve(name)?
            };
            let Some(member) = self.member(target.model.name()) else {
                return Ok(target);
            };
            member.touch();
            let waits = match target.model.engine.health() {
                Health::Ready | Health::Maintenance | Health::ShuttingDown | Health::Unreachable { .. } => false,
                // At start-up clients are told to come again: that may take minutes.
                Health::Loading { .. } => member.is_awaited(),
                Health::Unloaded => loads,
                Health::Failed { .. } => loads && member.may_try_again(),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if !waits || left.is_zero() {
                return Ok(target);
            }
            let Some(waiting) = member.wait_in_line() else {
                return Ok(target);
            };
            // The model that is replaced is not kept from it.
            drop(target);
            let models = self.clone();
            let load = tokio::spawn(async move { models.bring_up(&member).await });
            let _ = timeout(left, load).await;
            drop(waiting);
        }
    }

    pub(super) fn member(&self, name: &str) -> Option<Arc<Member>> {
        let members = self.0.members.read();
        members.iter().find(|member| member.config.name == name).cloned()
    }

    /// The member that is meant by a model's name, alias or role.
    fn meant(&self, name: &str) -> Result<Arc<Member>, LifecycleError> {
        let target = self.registry().named(Some(name))?;
        let name = target.model.name();
        self.member(name)
            .ok_or_else(|| LifecycleError::NotHere(name.to_owned()))
    }

    /// Has a model loaded, in the background.
    ///
    /// # Errors
    /// When nobody has the name, or it is loaded already.
    pub fn load(&self, name: &str) -> Result<(), LifecycleError> {
        let member = self.meant(name)?;
        if self.is_closing() {
            return Err(LifecycleError::ShuttingDown);
        }
        if member.is_elsewhere() {
            return Err(LifecycleError::NotHere(member.config.name.clone()));
        }
        match member.health() {
            Health::Ready | Health::Loading { .. } => return Err(LifecycleError::AlreadyLoaded),
            Health::Maintenance => return Err(LifecycleError::Maintenance(member.config.name.clone())),
            Health::Unloaded | Health::Failed { .. } | Health::Unreachable { .. } | Health::ShuttingDown => {}
        }
        member.touch();
        let models = self.clone();
        tokio::spawn(async move { models.bring_up(&member).await });
        Ok(())
    }

    /// Has a model unloaded, in the background: it takes no more requests, and ends when the running ones have, or their time is
    /// over.
    ///
    /// # Errors
    /// When nobody has the name, or it is not loaded.
    pub fn unload(&self, name: &str) -> Result<(), LifecycleError> {
        let member = self.meant(name)?;
        if member.is_elsewhere() {
            return Err(LifecycleError::NotHere(member.config.name.clone()));
        }
        if !member.is_up() {
            return Err(LifecycleError::NotLoaded);
        }
        let models = self.clone();
        tokio::spawn(async move {
            member.stop_loading().await;
            let _turn = models.0.turn.lock().await;
            models.take_down(&member, Health::Unloaded).await;
        });
        Ok(())
    }

    /// Takes a model out of service, or back into it; running requests go on. Says how many there are.
    ///
    /// # Errors
    /// When nobody has the name.
    pub fn maintain(&self, name: &str, on: bool) -> Result<u32, LifecycleError> {
        let member = self.meant(name)?;
        if member.set_maintenance(on) != on {
            tracing::info!(model = member.config.name, on, "maintenance");
            self.publish();
        }
        let slots = member.engine().map(|engine| engine.slots()).unwrap_or_default();
        Ok(slots.busy + slots.waiting)
    }

    /// Loads a model, after those whose turn came before. Other models give way if they must; those that answer requests are waited
    /// for, for `load_timeout` at most.
    pub(super) async fn bring_up(&self, member: &Arc<Member>) {
        /// Between two looks at models that answer.
        const PAUSE: Duration = Duration::from_millis(200);
        let patience = self.0.config.lock().server.load_timeout;
        let _ = timeout(patience, async {
            while !self.try_to_bring_up(member).await {
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
    }

    /// Whether the model is loaded, or never will be like this; else its memory is taken by models that answer requests.
    async fn try_to_bring_up(&self, member: &Arc<Member>) -> bool {
        let _turn = self.0.turn.lock().await;
        let is_here = self.0.members.read().iter().any(|other| Arc::ptr_eq(other, member));
        if !is_here || self.is_closing() {
            return true;
        }
        // What others take is known when they are loaded.
        for other in self.members() {
            other.settled().await;
        }
        if member.engine().is_some_and(|engine| engine.health() == Health::Ready) {
            return true;
        }
        self.take_down(member, Health::Unloaded).await;
        match self.start_engine(member).await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                member.fail(&error);
                self.publish();
                return true;
            }
        }
        self.publish();
        member.settled().await;
        self.clean_up(member).await;
        true
    }

    /// Starts the engine of a model where the others leave memory for it; says whether they do.
    async fn start_engine(&self, member: &Arc<Member>) -> Result<bool, ModelError> {
        loop {
            let (models, candidate) = (self.clone(), member.clone());
            let attempt = blocking(move || models.attempt(&candidate)).await?;
            let DoesNotFit { error, victims } = match attempt {
                Ok(engine) => {
                    member.show_engine(engine, true);
                    return Ok(true);
                }
                Err(does_not_fit) => does_not_fit,
            };
            let Some(victims) = victims else {
                let may_come = self.members().iter().any(|other| other.may_give_way());
                return if may_come { Ok(false) } else { Err(error) };
            };
            for victim in victims {
                tracing::info!(
                    model = victim.config.name,
                    "gives way to `{}`, which needs the memory",
                    member.config.name
                );
                self.take_down(&victim, Health::Unloaded).await;
            }
        }
    }

    /// Plans a model beside those that are loaded, and starts its engine. Blocks.
    fn attempt(&self, member: &Member) -> Result<Result<LocalEngine, DoesNotFit>, ModelError> {
        let config = self.0.config.lock().clone();
        let members = self.members();
        let residents: Vec<Resident> = members.iter().filter_map(|other| other.resident()).collect();
        match load::start_beside(
            &member.config,
            &config,
            &residents,
            self.0.trials.as_ref(),
            &self.0.metrics,
        )? {
            Attempt::Started(engine) => Ok(Ok(*engine)),
            Attempt::DoesNotFit { error, fits } => {
                let mut idle: Vec<&Arc<Member>> = members.iter().filter(|other| other.gives_way()).collect();
                idle.sort_by_key(|other| other.last_used());
                let theirs: Vec<Resident> = idle.iter().filter_map(|other| other.resident()).collect();
                let victims = residents::victims(&theirs, fits);
                let victims = victims.map(|victims| victims.into_iter().map(|index| idle[index].clone()).collect());
                Ok(Err(DoesNotFit { error, victims }))
            }
        }
    }

    /// Ends a model's engine after its requests, and waits until its memory is given back. The turn must be held.
    pub(super) async fn take_down(&self, member: &Member, next: Health) {
        let Some((model, engine)) = member.take_engine(next) else {
            return;
        };
        let grace = self.0.config.lock().server.shutdown_grace;
        self.publish();
        // Who found the model before comes to its queue.
        let found = async {
            while model.is_busy() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = timeout(grace, found).await;
        engine.shutdown(Duration::ZERO).await;
        drop(model);
        release(engine, &member.config.name).await;
        tracing::info!(model = member.config.name, "unloaded");
    }

    /// Gives back what an engine that has ended by itself still holds. The turn must be held.
    async fn clean_up(&self, member: &Member) {
        let Some(engine) = member.engine() else { return };
        match engine.health() {
            Health::Failed { reason } => {
                drop(engine);
                self.take_down(member, Health::Failed { reason }).await;
            }
            Health::ShuttingDown if !self.is_closing() => {
                drop(engine);
                self.take_down(member, Health::Unloaded).await;
            }
            _ => {}
        }
    }

    pub(super) fn members(&self) -> Vec<Arc<Member>> {
        self.0.members.read().clone()
    }

    /// Looks after the models until the server stops: idle ones are unloaded, failed ones give back their memory.
    pub async fn look_after(&self) {
        let mut closing = self.0.closing.subscribe();
        loop {
            let ended = timeout(TICK, closing.wait_for(|closing| *closing)).await;
            if ended.is_ok() {
                return;
            }
            let watchdog = self.watchdog();
            for member in self.members() {
                member.look_at_file();
                member.watch(watchdog);
                let ended = member
                    .engine()
                    .is_some_and(|engine| matches!(engine.health(), Health::Failed { .. } | Health::ShuttingDown));
                if !ended && !member.is_idle_for_long() {
                    continue;
                }
                // Somebody else's turn may take long, and requests may come meanwhile.
                let _turn = self.0.turn.lock().await;
                self.clean_up(&member).await;
                if member.is_idle_for_long() {
                    tracing::info!(model = member.config.name, "idle: unloading");
                    self.take_down(&member, Health::Unloaded).await;
                }
            }
        }
    }

    /// Waits until no model is loading any more; whether all are ready.
    pub async fn settled(&self) -> bool {
        let mut ready = true;
        for member in self.members() {
            member.settled().await;
            ready &= matches!(member.health(), Health::Ready | Health::Unloaded | Health::Maintenance);
        }
        ready
    }

    /// Resolves when all models have failed, with the first one's reason; never otherwise.
    pub async fn all_failed(&self) -> ModelFailure {
        let mut changed = self.0.changed.subscribe();
        loop {
            let registry = self.registry();
            let mut watches: Vec<_> = registry.all().iter().map(|model| model.engine.watch_health()).collect();
            let failure = |model: &Arc<Model>| match model.engine.health() {
                Health::Failed { reason } => Some(model.failure(&reason)),
                _ => None,
            };
            let failures: Vec<_> = registry.all().iter().filter_map(failure).collect();
            if failures.len() == registry.all().len()
                && let Some(first) = failures.into_iter().next()
            {
                return first;
            }
            // Engines that are gone change no more.
            watches.retain(|health| health.has_changed().is_ok());
            drop(registry);
            let any = watches.iter_mut().map(|health| Box::pin(health.changed()));
            let any = async {
                if any.len() == 0 {
                    std::future::pending::<()>().await;
                }
                let _ = select_all(any).await;
            };
            tokio::select! {
                _ = changed.changed() => {}
                () = any => {}
            }
        }
    }

    fn is_closing(&self) -> bool {
        *self.0.closing.borrow()
    }

    /// Resolves when the server stops.
    pub async fn closing(&self) {
        let mut closing = self.0.closing.subscribe();
        let _ = closing.wait_for(|closing| *closing).await;
    }

    /// Stops taking requests, and waits until all models have ended theirs, for `grace` at most.
    pub async fn shutdown(&self, grace: Duration) {
        self.0.closing.send_replace(true);
        let registry = self.registry();
        join_all(registry.all().iter().map(|model| model.engine.shutdown(grace))).await;
    }
}

fn see(all: &Registry, only: Option<&str>) -> Result<Registry, UnknownModel> {
    match only {
        None => Ok(all.clone()),
        Some(name) => all.only(name).ok_or_else(|| UnknownModel {
            name: name.to_owned(),
            known: Vec::new(),
        }),
    }
}

/// A model for which there is no memory, and who could give way.
struct DoesNotFit {
    error: ModelError,
    victims: Option<Vec<Arc<Member>>>,
}

/// Does what blocks on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ModelError> + Send + 'static,
) -> Result<T, ModelError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(ModelError::Thread(std::io::Error::other(error))),
    }
}

/// Waits until nobody holds an engine that was shut down, and until its thread has given back the memory.
async fn release(mut engine: Arc<LocalEngine>, name: &str) {
    /// Clients that do not read may hold it for longer.
    const ATTEMPTS: u32 = 500;
    for _ in 0..ATTEMPTS {
        engine = match Arc::try_unwrap(engine) {
            Ok(engine) => {
                let _ = tokio::task::spawn_blocking(move || engine.finish()).await;
                return;
            }
            Err(held) => held,
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tracing::warn!(
        model = name,
        "a request still holds the model; its memory is given back with that"
    );
}
