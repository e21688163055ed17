//! The cache of one model: its configuration, its layers, and what they did. Shared by the contexts that compute with the
//! model, the thread that uploads, and whoever asks.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::heat::HeatMap;
use super::layer::{Allocation, Layer, LayerState, Step};
use super::policy::{DecayingCounts, LayerCache, LayerCounts, Policy, PolicyKind};
use super::recorder::Recorder;
use super::routing::Routing;
use super::selection;
use super::settings::{CacheConfig, Capacity, Change, ChangeError, Device};
use super::stats::{ExpertStats, LayerStats};
use super::trace::{Phase, Trace};
use super::uploader::{Errands, Uploader};
use super::work::{Work, WorkCounts};

/// The sliding window of the statistics.
const WINDOW: Duration = Duration::from_secs(60);
/// How often the heat map is saved.
const SAVE: Duration = Duration::from_secs(60);
/// Uploads that may wait at once, over all layers: more would only be late.
const MAX_WAITING: usize = 256;

/// Residency of the experts of one model.
///
/// `layers` is locked before anything else, and the state of a layer last.
#[derive(Debug)]
pub struct ExpertCache {
    config: Mutex<CacheConfig>,
    /// Grows with each change: contexts look their layers up again.
    version: AtomicU64,
    /// By number, each with the version that it was made for.
    layers: Mutex<BTreeMap<u32, (u64, Arc<Layer>)>>,
    /// The last version that forgot everything.
    forgotten: AtomicU64,
    uploader: OnceLock<Uploader>,
    /// The current [`Step`]: its number above, its decoded tokens below.
    step: AtomicU64,
    /// What is computed now says nothing about what will be.
    rehearsing: AtomicBool,
    recording: AtomicBool,
    recorder: Mutex<Option<Recorder>>,
    /// Somebody asked for `routing`.
    watched: AtomicBool,
    routing: Mutex<Routing>,
    /// Counts of all layers together, about once a second.
    history: Mutex<VecDeque<(Instant, LayerCounts)>>,
    /// What earlier runs know, and where to keep it.
    heat: Mutex<HeatMap>,
    heat_file: Option<PathBuf>,
    /// Tokens, counted in each layer, of which the saved heat map knows.
    saved: Mutex<u64>,
    /// How often it could not be saved.
    heat_errors: AtomicU64,
    pub(super) work: Work,
}

/// What a layer that is replaced leaves to the next one.
struct Legacy {
    /// Whether more than the heat is passed on.
    kept: bool,
    kind: PolicyKind,
    policy: Box<dyn Policy>,
    /// What the policy thought of each expert at the end.
    values: Vec<f32>,
    selected: Vec<u64>,
    heat: DecayingCounts,
    counts: LayerCounts,
}

/// The errands of the thread that uploads.
struct Housekeeping {
    cache: Weak<ExpertCache>,
    saved: Instant,
}

impl Errands for Housekeeping {
    fn drained(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            let layers = cache.layers.lock();
            for (_, layer) in layers.values() {
                cache.upload_wanted(layer, &mut layer.state.lock().cache);
            }
        }
    }

    fn tick(&mut self) -> bool {
        let Some(cache) = self.cache.upgrade() else {
            return false;
        };
        let now = Instant::now();
        let total = cache.total();
        {
            let mut history = cache.history.lock();
            history.push_back((now, total));
            while history.front().is_some_and(|(then, _)| now - *then > WINDOW) {
                history.pop_front();
            }
        }
        if self.saved.elapsed() >= SAVE {
            self.saved = now;
            cache.save_heat();
        }
        true
    }
}

impl ExpertCache {
    /// A cache with a thread that uploads. `heat` is what earlier runs know; it is kept in `heat_file`, if there is one.
    ///
    /// # Errors
    /// When the system does not give a thread.
    pub fn start(config: CacheConfig, heat: HeatMap, heat_file: Option<PathBuf>) -> std::io::Result<Arc<Self>> {
        let cache = Arc::new(Self {
            config: Mutex::new(config),
            version: AtomicU64::new(0),
            layers: Mutex::default(),
            forgotten: AtomicU64::new(0),
            uploader: OnceLock::new(),
            // Who never says what a batch is for decodes.
            step: AtomicU64::new((1 << 32) | u64::from(u32::MAX)),
            rehearsing: AtomicBool::new(false),
            recording: AtomicBool::new(false),
            recorder: Mutex::new(None),
            watched: AtomicBool::new(false),
            routing: Mutex::default(),
            history: Mutex::default(),
            heat: Mutex::new(heat),
            heat_file,
            saved: Mutex::new(0),
            heat_errors: AtomicU64::new(0),
            work: Work::default(),
        });
        let uploader = Uploader::start(Housekeeping {
            cache: Arc::downgrade(&cache),
            saved: Instant::now(),
        })?;
        // Set once, here.
        let _ = cache.uploader.set(uploader);
        Ok(cache)
    }

    /// What holds the copies.
    #[must_use]
    pub fn device(&self) -> Device {
        self.config.lock().device
    }

    /// Tells the cache what the next call of `llama_decode` is for: so many of its tokens continue texts, the others are
    /// parts of prompts. The former should stand first in the batch.
    pub fn begin(&self, decoded: usize) {
        if self.recording.load(Ordering::Acquire) {
            self.settle();
        }
        let Step { number, .. } = self.step();
        let decoded = u32::try_from(decoded).unwrap_or(u32::MAX);
        let step = (u64::from(number.wrapping_add(1)) << 32) | u64::from(decoded);
        self.step.store(step, Ordering::Relaxed);
    }

    /// Whether passes from now on are only tried out: nothing is learnt from them, and they are in no count.
    pub fn rehearse(&self, on: bool) {
        self.rehearsing.store(on, Ordering::Relaxed);
    }

    pub(super) fn rehearses(&self) -> bool {
        self.rehearsing.load(Ordering::Relaxed)
    }

    pub(super) fn step(&self) -> Step {
        let step = self.step.load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "one half each")]
        Step {
            number: (step >> 32) as u32,
            decoded: step as u32,
        }
    }

    /// A prompt is complete: its routing chooses what is uploaded before its first token is decoded.
    pub fn prompt_ended(&self) {
        let layers = self.layers.lock();
        for (_, layer) in layers.values() {
            let mut state = layer.state.lock();
            state.cache.prompt_ended();
            self.upload_wanted(layer, &mut state.cache);
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The layer with this number and so many experts. `allocate` makes entries for as many copies as it is told, or returns
    /// `None` if the device has not that much memory.
    pub(super) fn layer(
        &self,
        number: u32,
        experts: usize,
        allocate: impl Fn(usize) -> Option<Allocation>,
    ) -> Option<Arc<Layer>> {
        let mut layers = self.layers.lock();
        let version = self.version();
        if let Some((made_for, layer)) = layers.get(&number)
            && *made_for == version
        {
            return Some(layer.clone());
        }
        // The old copies go before the new ones come: the device may not hold both.
        let legacy = layers.remove(&number).map(|old| self.legacy(&old));
        let config = self.config.lock().clone();
        let mut capacity = match config.capacity {
            Capacity::Share(share) => super::simulate::capacity(experts, f64::from(share)),
            Capacity::PerLayer(capacity) => capacity.min(experts),
            Capacity::Bytes(_) => 0,
        };
        let allocation = loop {
            if let Some(allocation) = allocate(capacity) {
                break allocation;
            }
            if capacity == 0 {
                return None;
            }
            tracing::warn!(
                layer = number,
                copies = capacity,
                "the cache device has not enough memory for so many copies of a layer's experts; trying half of them"
            );
            capacity /= 2;
        };
        let layer = Arc::new(Layer {
            number,
            expert_bytes: allocation.expert_bytes,
            bytes: allocation.bytes,
            state: Mutex::new(self.new_state(number, experts, capacity, &config, legacy)),
            copies: allocation.copies,
        });
        layers.insert(number, (version, layer.clone()));
        self.upload_wanted(&layer, &mut layer.state.lock().cache);
        Some(layer)
    }

    fn legacy(&self, (made_for, layer): &(u64, Arc<Layer>)) -> Legacy {
        let mut state = layer.state.lock();
        Legacy {
            kept: *made_for >= self.forgotten.load(Ordering::Acquire),
            kind: state.cache.kind(),
            values: state.cache.values(),
            policy: state.cache.take_policy(),
            selected: state.selected.clone(),
            heat: state.heat.clone(),
            counts: state.counts(),
        }
    }

    /// What is known about a layer whose cache is empty.
    fn new_state(
        &self,
        number: u32,
        experts: usize,
        capacity: usize,
        config: &CacheConfig,
        legacy: Option<Legacy>,
    ) -> LayerState {
        let earlier = self.heat.lock().layer(number as usize);
        let heat = match &legacy {
            Some(old) if old.kept => old.heat.rounded(),
            _ => earlier.clone(),
        };
        let mut cache = LayerCache::new(experts, capacity, config.policy, Some(&heat));
        cache.pin(config.pinned.get(&number).map_or(&[][..], Vec::as_slice));
        let mut state = LayerState::new(cache, &earlier);
        let Some(old) = legacy else {
            state.cache.fill();
            return state;
        };
        state.heat = old.heat;
        if !old.kept {
            state.cache.fill();
            return state;
        }
        state.selected = old.selected;
        state.before = old.counts;
        if old.kind == config.policy.kind {
            state.cache.set_policy(old.policy);
            state.cache.fill();
        } else if config.policy.kind == PolicyKind::Static {
            // What fills it now stays for ever, so the moment must not decide.
            state.cache.fill();
        } else {
            state.cache.fill_by(&old.values);
        }
        state
    }

    /// Passes on what a layer wants to have uploaded. What tokens want comes first; a warm start leaves it half of the queue.
    pub(super) fn upload_wanted(&self, layer: &Arc<Layer>, cache: &mut LayerCache) {
        let Some(uploader) = self.uploader.get() else { return };
        loop {
            let upload = match uploader.waiting() {
                waiting if waiting >= MAX_WAITING => None,
                waiting if waiting >= MAX_WAITING / 2 => cache.next_wanted(),
                _ => cache.next_upload(),
            };
            let Some(upload) = upload else { return };
            if !uploader.push(layer, upload) {
                cache.abandon(upload);
                return;
            }
        }
    }

    /// Changes a running cache. Streams go on; each layer follows with its next token.
    ///
    /// # Errors
    /// What is wrong with the change, for people.
    pub fn change(&self, change: Change) -> Result<(), ChangeError> {
        let layers = self.layers.lock();
        let bytes: usize = layers.values().map(|(_, layer)| layer.expert_bytes).sum();
        let capacity = match change.capacity {
            Some(Capacity::Bytes(_)) if bytes == 0 => return Err(ChangeError::SizeUnknown),
            Some(Capacity::Bytes(size)) => {
                let entries = usize::try_from(size).unwrap_or(usize::MAX) / bytes;
                let experts_per_token = self.config.lock().experts_per_token as usize;
                Some(Capacity::PerLayer(selection::capacity_of(entries, experts_per_token)))
            }
            other => other,
        };
        for (number, experts) in change.pinned.iter().flatten() {
            let (_, layer) = layers.get(number).ok_or(ChangeError::NoExperts(*number))?;
            let known = layer.state.lock().cache.entries().experts();
            if let Some(expert) = experts.iter().find(|expert| **expert as usize >= known) {
                return Err(ChangeError::UnknownExpert {
                    layer: *number,
                    experts: known,
                    expert: *expert,
                });
            }
        }
        drop(layers);
        let mut config = self.config.lock();
        if let Some(capacity) = capacity {
            config.capacity = capacity;
        }
        if let Some(kind) = change.policy {
            config.policy.kind = kind;
        }
        if let Some(pinned) = change.pinned {
            config.pinned = pinned;
        }
        let version = self.version() + 1;
        if change.reset {
            self.forgotten.store(version, Ordering::Release);
            self.history.lock().clear();
        }
        self.version.store(version, Ordering::Release);
        Ok(())
    }

    /// Starts to record which experts are selected. Meanwhile each step waits for the uploads that the one before asked
    /// for, so that what is measured does not depend on what else the machine does.
    pub fn record_trace(&self) {
        *self.recorder.lock() = Some(Recorder::default());
        self.recording.store(true, Ordering::Release);
    }

    /// Ends the recording; `None` if nothing was recorded.
    #[must_use]
    pub fn take_trace(&self) -> Option<Trace> {
        self.recording.store(false, Ordering::Release);
        let recorder = self.recorder.lock().take()?;
        let experts = self.heat.lock().experts();
        recorder.finish(u32::try_from(experts).ok()?)
    }

    /// From here on [`ExpertCache::take_routing`] has something to give.
    pub fn watch_routing(&self) {
        *self.routing.lock() = Routing::default();
        self.watched.store(true, Ordering::Release);
    }

    /// What was selected since [`ExpertCache::watch_routing`].
    #[must_use]
    pub fn take_routing(&self) -> Routing {
        self.watched.store(false, Ordering::Release);
        std::mem::take(&mut *self.routing.lock())
    }

    pub(super) fn record(&self, layer: u32, step: Step, experts_per_token: usize, ids: &[u32]) {
        if self.watched.load(Ordering::Acquire) {
            self.routing.lock().push(layer, experts_per_token, ids);
        }
        if self.recording.load(Ordering::Acquire)
            && let Some(recorder) = &mut *self.recorder.lock()
        {
            let phase = if step.decoded > 0 {
                Phase::Decode
            } else {
                Phase::Prefill
            };
            recorder.push(layer, phase, experts_per_token, ids);
        }
    }

    /// Waits until all uploads that were asked for are over.
    pub fn settle(&self) {
        if let Some(uploader) = self.uploader.get() {
            uploader.settle();
        }
    }

    /// Stops reading the model's weights, which are about to go.
    pub(super) fn close(&self) {
        if let Some(uploader) = self.uploader.get() {
            uploader.close();
        }
        self.save_heat();
        self.layers.lock().clear();
    }

    /// What is known about the use of experts, over all runs.
    #[must_use]
    pub fn heat(&self) -> HeatMap {
        let layers = self.layers.lock();
        let mut heat = self.heat.lock();
        for (number, (_, layer)) in &*layers {
            heat.set_layer(*number as usize, layer.state.lock().heat.clone());
        }
        heat.clone()
    }

    /// Writes the heat map, unless there is nothing new in it or nowhere to write to.
    pub fn save_heat(&self) {
        let Some(path) = &self.heat_file else { return };
        // One at a time: the engine and whoever ends it may both want to.
        let mut saved = self.saved.lock();
        let tokens = self.total().tokens;
        if tokens == *saved || self.layers.lock().is_empty() {
            return;
        }
        match self.heat().save(path) {
            Ok(()) => *saved = tokens,
            Err(error) => {
                self.heat_errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("{error}");
            }
        }
    }

    /// Where the heat map is kept.
    #[must_use]
    pub fn heat_file(&self) -> Option<&Path> {
        self.heat_file.as_deref()
    }

    fn total(&self) -> LayerCounts {
        let mut total = LayerCounts::default();
        for (_, layer) in self.layers.lock().values() {
            total += layer.state.lock().counts();
        }
        total
    }

    /// What was done for the blocks of this model.
    #[must_use]
    pub fn work(&self) -> WorkCounts {
        self.work.counts()
    }

    /// Bytes on the GPU, beside the copies, in which the experts of prompts are put together; 0 before the first one.
    #[must_use]
    pub fn area(&self) -> u64 {
        self.work.area()
    }

    /// What it holds, and what happened so far.
    #[must_use]
    pub fn stats(&self) -> ExpertStats {
        let config = self.config.lock().clone();
        let layers: Vec<LayerStats> = self
            .layers
            .lock()
            .values()
            .map(|(_, layer)| {
                let state = layer.state.lock();
                LayerStats {
                    layer: layer.number,
                    experts: state.cache.entries().experts(),
                    capacity: state.cache.entries().capacity(),
                    cache_bytes: layer.bytes,
                    expert_bytes: layer.expert_bytes,
                    in_use: state.cache.in_use(),
                    counts: state.counts(),
                    resident: state.cache.entries().residents().collect(),
                    selected: state.selected.clone(),
                }
            })
            .collect();
        let mut stats = ExpertStats {
            device: config.device,
            policy: config.policy.kind,
            experts_per_token: config.experts_per_token,
            minute: LayerCounts::default(),
            layers,
            heat_errors: self.heat_errors.load(Ordering::Relaxed),
            work: self.work.counts(),
            phases: self.work.times(),
        };
        let then = self.history.lock().front().map(|(_, counts)| *counts);
        stats.minute = stats.total().since(then.unwrap_or_default());
        stats
    }
}
