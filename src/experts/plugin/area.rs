//! Where the weights of a large block are put together: a piece of the GPU's memory, and one of pinned main memory for what is
//! told before.

use super::backend::Arena;
use super::ffi;
use super::sketch::Place;
use super::stage::pinned;

/// Bytes behind weights that are zeros: kernels read a row of quantized weights in pieces of 512 numbers, and what they read
/// too much must at least be numbers (CUDA's `MATRIX_ROW_PADDING`).
pub(super) const TAIL: usize = 512;

/// Bytes of the parts, which lie behind each other in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sizes {
    /// The numbers of selected experts.
    ids: usize,
    /// The entry of each expert.
    table: usize,
    /// A tensor, and [`TAIL`].
    weights: usize,
}

/// Both pieces; they only grow.
#[derive(Debug)]
pub(super) struct Area {
    gpu: Arena,
    host: Arena,
    alignment: usize,
    places: Option<(Place, Place)>,
    sizes: Sizes,
}

impl Area {
    /// # Safety
    /// `gpu` is a device of ggml's registry.
    pub(super) unsafe fn new(gpu: ffi::ggml_backend_dev_t) -> Self {
        // SAFETY: as the caller says; a device has a type of buffers.
        let alignment = unsafe { ffi::ggml_backend_buft_get_alignment(ffi::ggml_backend_dev_buffer_type(gpu)) };
        Self {
            gpu: Arena::new(),
            host: Arena::new(),
            alignment: alignment.max(4),
            places: None,
            sizes: Sizes::default(),
        }
    }

    /// Makes sure that there is room for so many numbers of selected experts, a table of `experts`, and weights of so many
    /// bytes; `None` without memory. All that was drawn is void if the pieces move for that (see [`Area::moves`]).
    ///
    /// # Safety
    /// `gpu` is always the same device, and nothing that uses the pieces is under way.
    pub(super) unsafe fn reserve(
        &mut self,
        gpu: ffi::ggml_backend_dev_t,
        selected: usize,
        experts: usize,
        weights: usize,
    ) -> Option<()> {
        let size = |bytes: usize, has: usize| bytes.next_multiple_of(self.alignment).max(has);
        let sizes = Sizes {
            ids: size(selected * 4, self.sizes.ids),
            table: size(experts * 4, self.sizes.table),
            weights: size(weights + TAIL, self.sizes.weights),
        };
        if self.places.is_some() && sizes == self.sizes {
            return Some(());
        }
        self.places = None;
        // SAFETY: ggml's own types of buffers, and nobody uses what is in the pieces, as the caller says.
        unsafe {
            let buffers = ffi::ggml_backend_dev_buffer_type(gpu);
            let on_gpu = self.gpu.piece(buffers, sizes.ids + sizes.table + sizes.weights)?;
            // Whatever lay there before is perhaps no number.
            self.gpu.clear();
            self.places = Some((on_gpu, self.host.piece(pinned(gpu), sizes.ids + sizes.table)?));
        }
        self.sizes = sizes;
        Some(())
    }

    /// How often a piece has moved.
    pub(super) fn moves(&self) -> u64 {
        self.gpu.moves() + self.host.moves()
    }

    /// Bytes of the GPU's piece.
    pub(super) fn bytes(&self) -> u64 {
        (self.sizes.ids + self.sizes.table + self.sizes.weights) as u64
    }

    fn on_gpu(&self, offset: usize) -> Option<Place> {
        let (gpu, _) = self.places?;
        Some(Place {
            // SAFETY: the parts lie in the piece.
            data: unsafe { gpu.data.add(offset) },
            buffer: gpu.buffer,
        })
    }

    /// On the GPU: the numbers of selected experts.
    pub(super) fn ids(&self) -> Option<Place> {
        self.on_gpu(0)
    }

    /// On the GPU: the entry of each expert.
    pub(super) fn table(&self) -> Option<Place> {
        self.on_gpu(self.sizes.ids)
    }

    /// On the GPU: the weights.
    pub(super) fn weights(&self) -> Option<Place> {
        self.on_gpu(self.sizes.ids + self.sizes.table)
    }

    /// In main memory: so many bytes for the numbers of selected experts.
    pub(super) fn host_ids(&mut self, length: usize) -> Option<&mut [u8]> {
        let (_, host) = self.places?;
        // SAFETY: within the piece, which is memory of our own and borrowed with this; any bytes are bytes.
        (length <= self.sizes.ids).then(|| unsafe { std::slice::from_raw_parts_mut(host.data, length) })
    }

    /// In main memory: so many bytes for the entry of each expert.
    pub(super) fn host_table(&mut self, length: usize) -> Option<&mut [u8]> {
        let (_, host) = self.places?;
        // SAFETY: as in `host_ids`, behind those.
        (length <= self.sizes.table)
            .then(|| unsafe { std::slice::from_raw_parts_mut(host.data.add(self.sizes.ids), length) })
    }
}
