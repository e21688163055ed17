//! Copies of experts on the cache device.

use std::cell::OnceCell;
use std::sync::Arc;

use super::backend::{Arena, Backend};
use super::block::Block;
use super::ffi;
use super::node::Node;
use super::registry::registered;
use super::sketch::Tensors;
use crate::experts::layer::{Allocation, Copies};
use crate::experts::residency::Upload;
use crate::experts::selection;

/// Copies of some experts of one layer: for each weight of the block a tensor with as many experts as there are entries,
/// of which a few stay zeros (see [`selection`]).
#[derive(Debug)]
pub(super) struct Entries {
    /// Entries for copies, and all of them.
    capacity: usize,
    entries: usize,
    /// The original weights, and their copies.
    tensors: Vec<(Node, Node)>,
    /// Where the copies lie, and their descriptions.
    _arena: Arena,
    _descriptions: Tensors,
}

// SAFETY: the descriptions are written by `new` alone. Whoever writes the data of an entry holds it as being filled, whoever
// reads it has acquired it; the others are never written.
unsafe impl Send for Entries {}
// SAFETY: as above.
unsafe impl Sync for Entries {}

thread_local! {
    /// A queue of the GPU for this thread's uploads, so that they run beside what is computed.
    static QUEUE: OnceCell<Option<Backend>> = const { OnceCell::new() };
}

impl Entries {
    /// Entries for `capacity` copies of a block's experts; `None` when the device has not that much memory.
    pub(super) fn allocate(block: &Block, capacity: usize) -> Option<Allocation> {
        let entries = selection::allocated_entries(capacity, block.experts_per_token());
        let mut descriptions = Tensors::new();
        let mut tensors = Vec::new();
        let mut arena = Arena::new();
        let mut bytes = 0;
        if capacity > 0 {
            for weights in block.weights() {
                let mut shape = weights.shape();
                shape[weights.expert_dimension()] = i64::try_from(entries).ok()?;
                tensors.push((weights, descriptions.tensor(weights.kind(), shape)?));
            }
            let copies: Vec<Node> = tensors.iter().map(|(_, copy)| *copy).collect();
            let device = registered()?.cache_device();
            // SAFETY: the device lives for ever; fresh descriptions get places in a fresh arena, which nobody uses yet.
            unsafe {
                arena.place(ffi::ggml_backend_dev_buffer_type(device), &copies, &[])?;
                arena.clear();
            }
            bytes = copies.iter().map(|copy| copy.bytes() as u64).sum();
        }
        let copies = Self {
            capacity,
            entries,
            tensors,
            _arena: arena,
            _descriptions: descriptions,
        };
        Some(Allocation {
            copies: Arc::new(copies),
            expert_bytes: block.weights().map(Node::expert_bytes).sum(),
            bytes,
        })
    }

    /// The copies of a weight; `None` without entries.
    pub(super) fn of(&self, weights: Node) -> Option<Node> {
        let found = self.tensors.iter().find(|(original, _)| *original == weights);
        found.map(|(_, copy)| *copy)
    }

    /// All entries: those for copies, and the spare ones behind them.
    pub(super) fn count(&self) -> usize {
        self.entries
    }

    /// The entries that stay zeros, so that anyone may read them at any time.
    pub(super) fn spare(&self) -> std::ops::Range<u32> {
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        number(self.capacity)..number(self.entries)
    }

    /// Copies one part of an expert: `weights` is the original of `copy`.
    fn upload_part(weights: Node, copy: Node, upload: Upload, queue: Option<&Backend>) -> Option<()> {
        let bytes = weights.expert_bytes();
        let (from, to) = (upload.expert as usize * bytes, upload.entry as usize * bytes);
        weights.check(from, bytes)?;
        copy.check(to, bytes)?;
        // SAFETY: both ranges were checked. The weights lie in main memory and stay, nobody reads the entry, and the queue is
        // synchronized before the upload is over, as `Copies::upload` promises.
        unsafe {
            let source = std::slice::from_raw_parts(weights.data().add(from), bytes);
            match queue {
                Some(queue) => queue.write(copy, to, source)?,
                None => ffi::ggml_backend_tensor_set(copy.as_ptr(), source.as_ptr().cast(), to, bytes),
            }
        }
        Some(())
    }
}

impl Copies for Entries {
    fn upload(&self, upload: Upload) {
        QUEUE.with(|queue| {
            // SAFETY: the GPU's device lives for ever.
            let queue = queue.get_or_init(|| registered().and_then(|plugin| unsafe { Backend::new(plugin.gpu?) }));
            for (weights, copy) in &self.tensors {
                // The residency hands out experts and entries that exist.
                let _ = Self::upload_part(*weights, *copy, upload, queue.as_ref());
            }
            if let Some(queue) = queue {
                queue.synchronize();
            }
        });
    }
}
