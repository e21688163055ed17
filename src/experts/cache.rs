//! The cache of one model: its configuration, its layers, and what they did. Shared by the contexts that compute with the
//! model, the thread that uploads, and whoever asks.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::heat::HeatMap;
use super::plugin::{Layer, LayerState, Uploader};
use super::policy::{LayerCache, LayerCounts};
use super::recorder::Recorder;
use super::settings::{CacheConfig, Change, Device, Slots, Step};
use super::stats::{ExpertStats, LayerStats};
use super::trace::Trace;

/// The sliding window of the statistics.
const WINDOW: Duration = Duration::from_secs(60);
/// How often the heat map is saved.
const SAVE: Duration = Duration::from_secs(60);

/// Residency of the experts of one model.
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
    step: AtomicU8,
    recording: AtomicBool,
    recorder: Mutex<Option<Recorder>>,
    /// Counts of all layers together, about once a second.
    history: Mutex<VecDeque<(Instant, LayerCounts)>>,
    /// What earlier runs know, and where to keep it.
    heat: Mutex<HeatMap>,
    heat_file: Option<PathBuf>,
    /// Tokens, counted in each layer, of which the saved heat map knows.
    saved: Mutex<u64>,
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
            step: AtomicU8::new(Step::Decode as u8),
            recording: AtomicBool::new(false),
            recorder: Mutex::new(None),
            history: Mutex::default(),
            heat: Mutex::new(heat),
            heat_file,
            saved: Mutex::new(0),
        });
        let weak = Arc::downgrade(&cache);
        let mut saved = Instant::now();
        let uploader = Uploader::start(move || Self::tick(&weak, &mut saved))?;
        // Set once, here.
        let _ = cache.uploader.set(uploader);
        Ok(cache)
    }

    fn tick(weak: &Weak<Self>, saved: &mut Instant) -> bool {
        let Some(cache) = weak.upgrade() else { return false };
        let now = Instant::now();
        let total = cache.total();
        {
            let mut history = cache.history.lock();
            history.push_back((now, total));
            while history.front().is_some_and(|(then, _)| now - *then > WINDOW) {
                history.pop_front();
            }
        }
        if saved.elapsed() >= SAVE {
            *saved = now;
            cache.save_heat();
        }
        true
    }

    /// What holds the copies.
    #[must_use]
    pub fn device(&self) -> Device {
        self.config.lock().device
    }

    /// Tells the cache what the next batch is for.
    pub fn begin(&self, step: Step) {
        if self.recording.load(Ordering::Acquire) {
            self.settle();
        }
        self.step.store(step as u8, Ordering::Relaxed);
    }

    pub(super) fn step(&self) -> Step {
        match self.step.load(Ordering::Relaxed) == Step::Decode as u8 {
            true => Step::Decode,
            false => Step::Prefill,
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

    /// The layer with this number and so many experts. `make` brings one to life with as many slots as it is told, or fewer.
    pub(super) fn layer(
        &self,
        number: u32,
        experts: usize,
        make: impl FnOnce(usize, &mut dyn FnMut(usize) -> LayerState) -> Option<Layer>,
    ) -> Option<Arc<Layer>> {
        let mut layers = self.layers.lock();
        let version = self.version();
        if let Some((made_for, layer)) = layers.get(&number)
            && *made_for == version
        {
            return Some(layer.clone());
        }
        // The old copies go before the new ones come: the device may not hold both.
        let old = layers.remove(&number).map(|(made_for, layer)| {
            let state = layer.state.lock();
            let kept = made_for >= self.forgotten.load(Ordering::Acquire);
            (
                kept,
                state.cache.values(),
                state.selected.clone(),
                state.heat.clone(),
                state.counts(),
            )
        });
        let config = self.config.lock().clone();
        let slots = match config.slots {
            Slots::Share(share) => super::simulate::slots(experts, f64::from(share)),
            Slots::PerLayer(slots) => slots.min(experts),
            Slots::Bytes(_) => 0,
        };
        let layer = make(slots, &mut |slots| {
            let earlier = self.heat.lock().layer(number as usize);
            let known = match &old {
                Some((true, values, ..)) if values.iter().any(|value| *value > 0.0) => values.clone(),
                _ => earlier.clone(),
            };
            let mut cache = LayerCache::new(experts, slots, config.policy, Some(&known));
            cache.keep(config.pins.get(&number).map_or(&[][..], Vec::as_slice));
            cache.fill();
            let mut state = LayerState::new(cache, &earlier);
            if let Some((kept, _, selected, heat, counts)) = &old {
                state.heat = heat.clone();
                if *kept {
                    state.selected.clone_from(selected);
                    state.before = *counts;
                }
            }
            state
        })?;
        let layer = Arc::new(layer);
        layers.insert(number, (version, layer.clone()));
        self.upload_wanted(&layer, &mut layer.state.lock().cache);
        Some(layer)
    }

    /// Passes on what a layer wants to have uploaded.
    pub(super) fn upload_wanted(&self, layer: &Arc<Layer>, cache: &mut LayerCache) {
        let Some(uploader) = self.uploader.get() else { return };
        while uploader.has_room()
            && let Some(upload) = cache.next_upload()
        {
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
    pub fn change(&self, change: Change) -> Result<(), String> {
        let layers = self.layers.lock();
        let bytes: usize = layers.values().map(|(_, layer)| layer.expert_bytes).sum();
        let slots = match change.slots {
            Some(Slots::Bytes(_)) if bytes == 0 => {
                return Err("the size in bytes is not known before the model has computed a token".into());
            }
            // One more slot than can be used: the one of zeros.
            Some(Slots::Bytes(size)) => {
                let slots = usize::try_from(size).unwrap_or(usize::MAX) / bytes;
                Some(Slots::PerLayer(slots.saturating_sub(1)))
            }
            other => other,
        };
        for (number, experts) in change.pins.iter().flatten() {
            let Some((_, layer)) = layers.get(number) else {
                return Err(format!("layer {number} has no experts"));
            };
            let known = layer.state.lock().cache.slots().experts();
            if let Some(expert) = experts.iter().find(|expert| **expert as usize >= known) {
                return Err(format!(
                    "layer {number} has {known} experts, not one with the number {expert}"
                ));
            }
        }
        drop(layers);
        let mut config = self.config.lock();
        if let Some(slots) = slots {
            config.slots = slots;
        }
        if let Some(kind) = change.policy {
            config.policy.kind = kind;
        }
        if let Some(pins) = change.pins {
            config.pins = pins;
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

    pub(super) fn record(&self, layer: u32, step: Step, per_token: usize, ids: &[u32]) {
        if self.recording.load(Ordering::Acquire)
            && let Some(recorder) = &mut *self.recorder.lock()
        {
            recorder.push(layer, step, per_token, ids);
        }
    }

    /// Waits until all uploads that were asked for are over.
    pub fn settle(&self) {
        if let Some(uploader) = self.uploader.get() {
            uploader.settle();
        }
    }

    /// The model's weights are about to go: nothing reads them from here on.
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
        // The layers first: who makes a layer holds them when it asks for its heat.
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
            Err(error) => tracing::warn!("{error}"),
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
                    experts: state.cache.slots().experts(),
                    slots: state.cache.slots().slots(),
                    expert_bytes: layer.expert_bytes,
                    in_use: state.cache.in_use(),
                    counts: state.counts(),
                    resident: state.cache.slots().residents().collect(),
                    selected: state.selected.clone(),
                }
            })
            .collect();
        let mut stats = ExpertStats {
            device: config.device,
            policy: config.policy.kind,
            active: config.active,
            minute: LayerCounts::default(),
            layers,
        };
        let then = self.history.lock().front().map(|(_, counts)| *counts);
        stats.minute = stats.total().since(then.unwrap_or_default());
        stats
    }
}
