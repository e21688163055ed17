//! One layer of a model: who has a copy, the copies, and the thread that makes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::block::Block;
use super::copies::{Copies, expert_bytes};
use super::registered;
use super::tensors::Backend;
use crate::experts::handover::{self, Guarded};
use crate::experts::policy::{DecayingCounts, LayerCache, LayerCounts};
use crate::experts::residency::Upload;

/// Uploads that may wait at once, over all layers: more would only be late.
const MOST_WAITING: usize = 256;
/// Tokens after which half of a layer's long-term heat is gone.
const HEAT_HALF_LIFE: f64 = 100_000.0;

/// One layer with its copies. Replaced as a whole when the number of slots changes.
#[derive(Debug)]
pub(in crate::experts) struct Layer {
    /// Its number in the model.
    pub(in crate::experts) number: u32,
    /// Of all weights together.
    pub(in crate::experts) expert_bytes: usize,
    pub(in crate::experts) state: Mutex<LayerState>,
    pub(super) copies: Copies,
}

/// What changes from token to token.
#[derive(Debug)]
pub(in crate::experts) struct LayerState {
    pub(in crate::experts) cache: LayerCache,
    /// By expert: selections since the model was loaded, decoded tokens and prompts.
    pub(in crate::experts) selected: Vec<u64>,
    /// The same, the past fading slowly; kept over restarts.
    pub(in crate::experts) heat: DecayingCounts,
    /// Counts of the caches that were here before.
    pub(in crate::experts) before: LayerCounts,
}

impl LayerState {
    pub(in crate::experts) fn new(cache: LayerCache, heat: &[f32]) -> Self {
        let experts = cache.slots().experts();
        let mut counts = DecayingCounts::new(experts, HEAT_HALF_LIFE);
        for (expert, heat) in (0..).zip(heat) {
            counts.add(expert, f64::from(*heat));
        }
        Self {
            cache,
            selected: vec![0; experts],
            heat: counts,
            before: LayerCounts::default(),
        }
    }

    /// Since the model was loaded.
    pub(in crate::experts) fn counts(&self) -> LayerCounts {
        let mut counts = self.before;
        counts += self.cache.counts();
        counts
    }

    /// Takes note of what one token selected.
    pub(super) fn note(&mut self, experts: &[u32]) {
        for expert in experts {
            if let Some(count) = self.selected.get_mut(*expert as usize) {
                *count += 1;
            }
        }
        self.heat.observe(experts);
    }
}

impl Guarded for Mutex<LayerState> {
    fn with<R>(&self, action: impl FnOnce(&mut LayerCache) -> R) -> R {
        action(&mut self.lock().cache)
    }
}

impl Layer {
    /// A layer with room for at most `slots` copies. A device without room gets fewer; `None` if it has none at all.
    ///
    /// # Safety
    /// The block is one of a graph that is being computed, and has a layer.
    pub(super) unsafe fn new(block: &Block, slots: usize, state: &mut dyn FnMut(usize) -> LayerState) -> Option<Self> {
        let plugin = registered()?;
        let mut slots = slots;
        // SAFETY: as the caller says; the device lives for ever.
        unsafe {
            let buffers = super::ffi::ggml_backend_dev_buffer_type(plugin.cache_device());
            let copies = loop {
                match Copies::new(block, slots, buffers) {
                    Some(copies) => break copies,
                    None if slots == 0 => return None,
                    None => {
                        tracing::warn!(
                            slots,
                            "the cache device has no room for so many experts of a layer; trying half of them"
                        );
                        slots /= 2;
                    }
                }
            };
            Some(Self {
                number: block.layer()?,
                expert_bytes: expert_bytes(block),
                state: Mutex::new(state(slots)),
                copies,
            })
        }
    }
}

/// The thread that copies experts to the cache device.
#[derive(Debug)]
pub(in crate::experts) struct Uploader {
    queue: Sender<(Arc<Layer>, Upload)>,
    shared: Arc<UploaderState>,
}

#[derive(Debug, Default)]
struct UploaderState {
    /// Uploads that were asked for and are not over.
    waiting: AtomicUsize,
    /// The weights are about to go.
    closed: AtomicBool,
    /// Held while an expert is being copied.
    copying: Mutex<()>,
}

impl Uploader {
    /// Starts the thread. `tick` is called about once a second until the uploader is dropped or `tick` returns false.
    pub(in crate::experts) fn start(tick: impl FnMut() -> bool + Send + 'static) -> std::io::Result<Self> {
        let (queue, uploads) = channel();
        let shared = Arc::new(UploaderState::default());
        std::thread::Builder::new().name("experts".into()).spawn({
            let shared = shared.clone();
            move || shared.run(&uploads, tick)
        })?;
        Ok(Self { queue, shared })
    }

    /// Whether more uploads would be of use now.
    pub(in crate::experts) fn has_room(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) < MOST_WAITING
    }

    /// Passes on an upload, which was reserved in the layer; false if the thread is gone.
    pub(in crate::experts) fn push(&self, layer: &Arc<Layer>, upload: Upload) -> bool {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = self.queue.send((layer.clone(), upload)).is_ok();
        if !sent {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        sent
    }

    /// From here on no weights are read any more; returns when none is being read.
    pub(in crate::experts) fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        drop(self.shared.copying.lock());
    }

    /// Waits until all uploads are over.
    pub(in crate::experts) fn settle(&self) {
        while self.shared.waiting.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl UploaderState {
    fn run(&self, uploads: &Receiver<(Arc<Layer>, Upload)>, mut tick: impl FnMut() -> bool) {
        let mut queue = None;
        let mut last = std::time::Instant::now();
        loop {
            match uploads.recv_timeout(Duration::from_secs(1)) {
                Ok((layer, upload)) => {
                    // SAFETY: the GPU's device lives for ever. A queue of its own, so that uploads run beside what is
                    // computed.
                    let queue = queue
                        .get_or_insert_with(|| registered().and_then(|plugin| unsafe { Backend::new(plugin.gpu?) }));
                    handover::fill(&layer.state, upload, |upload| {
                        let _copying = self.copying.lock();
                        if self.closed.load(Ordering::SeqCst) {
                            return false;
                        }
                        // SAFETY: the model is loaded: its buffers wait for `close` before they go. The residency hands out
                        // experts and slots that exist, and nobody reads the slot before `fill` is over.
                        unsafe { layer.copies.upload(upload.expert, upload.slot, queue.as_ref()) };
                        true
                    });
                    self.waiting.fetch_sub(1, Ordering::Release);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if last.elapsed() >= Duration::from_secs(1) {
                last = std::time::Instant::now();
                if !tick() {
                    return;
                }
            }
        }
    }
}
