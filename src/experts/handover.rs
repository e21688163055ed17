//! Where the threads meet: one reads entries while another fills them.
//!
//! The lock is held only to look and to mark; computing and copying happen outside of it. An entry that is being read has
//! readers, so it is not given away; an entry that is being filled is not found, so it is not read.

use super::policy::LayerCache;
use super::residency::Upload;

/// A layer's cache behind a lock. The lock is a parameter so that a model checker can put its own in.
pub trait Guarded {
    /// Runs `action` with the lock held.
    fn with<R>(&self, action: impl FnOnce(&mut LayerCache) -> R) -> R;
}

/// Acquires the entries of those experts that have a complete copy, and adds them to `entries` in the order of the experts.
pub fn acquire(cache: &mut LayerCache, experts: &[u32], entries: &mut Vec<Option<u32>>) {
    entries.extend(experts.iter().map(|expert| cache.entries_mut().acquire(*expert)));
}

/// Ends what [`acquire`] began.
pub fn release(cache: &mut LayerCache, entries: impl IntoIterator<Item = u32>) {
    for entry in entries {
        cache.entries_mut().release(entry);
    }
}

/// Carries out an upload: `copy` writes the entry and returns whether all of it arrived. Only then readers find it.
pub fn fill(cache: &impl Guarded, upload: Upload, copy: impl FnOnce(Upload) -> bool) {
    let arrived = copy(upload);
    cache.with(|cache| match arrived {
        true => cache.complete(upload),
        false => cache.abandon(upload),
    });
}

#[cfg(test)]
mod tests {
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    use super::*;
    use crate::experts::policy::PolicyConfig;

    impl Guarded for Mutex<LayerCache> {
        fn with<R>(&self, action: impl FnOnce(&mut LayerCache) -> R) -> R {
            action(&mut self.lock().unwrap())
        }
    }

    /// One entry, two experts: a reader and a writer in all orders that threads can take. loom's cells fail the test when a
    /// read and a write overlap.
    #[test]
    fn nobody_reads_what_is_being_written() {
        loom::model(|| {
            let config = PolicyConfig {
                hysteresis: 1.0,
                ..PolicyConfig::default()
            };
            let mut cache = LayerCache::new(2, 1, config, None);
            cache.decoded(&[0]);
            let first = cache.next_upload().unwrap();
            cache.complete(first);
            let cache = Arc::new(Mutex::new(cache));
            let memory = Arc::new(UnsafeCell::new(0u32));
            let writer = thread::spawn({
                let (cache, memory) = (cache.clone(), memory.clone());
                move || {
                    let upload = cache.with(|cache| {
                        cache.decoded(&[1]);
                        cache.decoded(&[1]);
                        cache.next_upload()
                    });
                    if let Some(upload) = upload {
                        fill(&*cache, upload, |upload| {
                            memory.with_mut(|memory| write(memory, upload.expert));
                            true
                        });
                    }
                }
            });
            for _ in 0..2 {
                let mut entries = Vec::new();
                cache.with(|cache| acquire(cache, &[0, 1], &mut entries));
                for (expert, entry) in [0, 1].into_iter().zip(&entries) {
                    if entry.is_some() {
                        assert_eq!(memory.with(read), expert);
                    }
                }
                cache.with(|cache| release(cache, entries.iter().flatten().copied()));
            }
            writer.join().unwrap();
            let end = cache.with(|cache| cache.entries().residents().count());
            assert_eq!(end, 1);
        });
    }

    #[expect(
        unsafe_code,
        reason = "loom hands out pointers, and has checked that nobody else holds one"
    )]
    fn write(memory: *mut u32, value: u32) {
        // SAFETY: loom fails the test before this if anybody else has access.
        unsafe { *memory = value }
    }

    #[expect(unsafe_code, reason = "loom hands out pointers, and has checked that nobody writes")]
    fn read(memory: *const u32) -> u32 {
        // SAFETY: as in `write`.
        unsafe { *memory }
    }
}
