//! The thread that copies experts to the cache device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::handover;
use super::layer::Layer;
use super::residency::Upload;

const TICK: Duration = Duration::from_secs(1);

/// What the thread does beside its uploads.
pub(super) trait Errands: Send + 'static {
    /// The last upload that was asked for is done: asks for more, if there are any.
    fn drained(&mut self);

    /// About once a second. False ends the thread.
    fn tick(&mut self) -> bool;
}

/// A handle to the thread, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Uploader {
    queue: Sender<(Arc<Layer>, Upload)>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Uploads that were asked for and are not over.
    waiting: AtomicUsize,
    /// The weights are about to go.
    closed: AtomicBool,
    /// Held while an expert is being copied.
    copying: Mutex<()>,
}

impl Uploader {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system does not give one.
    pub(super) fn start(errands: impl Errands) -> std::io::Result<Self> {
        let (queue, uploads) = channel();
        let shared = Arc::new(Shared::default());
        std::thread::Builder::new().name("experts".into()).spawn({
            let shared = shared.clone();
            move || shared.run(&uploads, errands)
        })?;
        Ok(Self { queue, shared })
    }

    /// Uploads that were asked for and are not over.
    pub(super) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Passes on an upload, which was reserved in the layer; false if the thread is gone.
    pub(super) fn push(&self, layer: &Arc<Layer>, upload: Upload) -> bool {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = self.queue.send((layer.clone(), upload)).is_ok();
        if !sent {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        sent
    }

    /// Stops reading weights; returns when none are being read.
    pub(super) fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        drop(self.shared.copying.lock());
    }

    /// Waits until all uploads are over.
    pub(super) fn settle(&self) {
        while self.shared.waiting.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Shared {
    fn run(&self, uploads: &Receiver<(Arc<Layer>, Upload)>, mut errands: impl Errands) {
        let mut last = Instant::now();
        loop {
            match uploads.recv_timeout(TICK) {
                Ok((layer, upload)) => {
                    handover::fill(&layer.state, upload, |upload| {
                        let _copying = self.copying.lock();
                        let open = !self.closed.load(Ordering::SeqCst);
                        if open {
                            layer.copies.upload(upload);
                        }
                        open
                    });
                    // While this one still counts, so that nobody takes a queue that is filled again for one that is done.
                    if self.waiting.load(Ordering::Acquire) == 1 && !self.closed.load(Ordering::SeqCst) {
                        errands.drained();
                    }
                    self.waiting.fetch_sub(1, Ordering::Release);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if last.elapsed() >= TICK {
                last = Instant::now();
                if !errands.tick() {
                    return;
                }
            }
        }
    }
}
