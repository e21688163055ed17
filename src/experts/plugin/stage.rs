//! Where a block and its two halves meet: a piece of the GPU's memory, and one of pinned main memory.
//!
//! What comes from the GPU lies together, and what goes there, so that each way takes one copy.

use super::backend::Arena;
use super::ffi;
use super::sketch::Place;
use crate::experts::selection::MAX_QUEUED_TOKENS;

/// Where the zeros lie.
pub(super) const ZEROS: usize = 0;

/// Where what lies, in bytes from the beginning, in both pieces alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// From the GPU: the input of each token, the weights of its experts, their numbers. Before it, at the very beginning
    /// and in main memory alone, lie zeros for as many rows as there can be, which no layout puts anything over.
    pub(super) input: usize,
    pub(super) weights: usize,
    pub(super) ids: usize,
    pub(super) from_gpu: usize,
    /// To the GPU: the entries that its experts are computed with, and which of them count.
    pub(super) entries: usize,
    pub(super) mask: usize,
    pub(super) to_gpu: usize,
    /// In the GPU's memory alone: weights of the experts that count.
    pub(super) masked: usize,
    /// In main memory alone: a row for each token.
    pub(super) rows: usize,
    pub(super) end: usize,
}

impl Layout {
    /// Bytes that come from the GPU.
    pub(super) fn gathered(&self) -> usize {
        self.from_gpu - self.input
    }

    /// For so many tokens with inputs of `width` numbers.
    fn new(
        Size {
            width,
            experts_per_token,
        }: Size,
        tokens: usize,
        alignment: usize,
    ) -> Self {
        let mut end = 0;
        let mut next = |numbers: usize| {
            let start = end;
            end = (start + numbers * 4).next_multiple_of(alignment.max(4));
            start
        };
        let selected = experts_per_token * tokens;
        next(width * MAX_QUEUED_TOKENS);
        let input = next(width * tokens);
        let weights = next(selected);
        let ids = next(selected);
        let entries = next(selected);
        let mask = next(selected);
        let masked = next(selected);
        let rows = next(width * tokens);
        Self {
            input,
            weights,
            ids,
            from_gpu: ids + selected * 4,
            entries,
            mask,
            to_gpu: mask + selected * 4,
            masked,
            rows,
            end,
        }
    }
}

/// How large blocks are: numbers of an input, and experts of a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) width: usize,
    pub(super) experts_per_token: usize,
}

/// Both pieces.
#[derive(Debug)]
pub(super) struct Stage {
    gpu: Arena,
    host: Arena,
    alignment: usize,
    places: Option<(Place, Place)>,
    size: usize,
}

impl Stage {
    /// # Safety
    /// `gpu` is a device of ggml's registry.
    pub(super) unsafe fn new(gpu: ffi::ggml_backend_dev_t) -> Self {
        // SAFETY: as the caller says; a device has a type of buffers.
        let alignment = unsafe { ffi::ggml_backend_buft_get_alignment(ffi::ggml_backend_dev_buffer_type(gpu)) };
        Self {
            gpu: Arena::new(),
            host: Arena::new(),
            alignment,
            places: None,
            size: 0,
        }
    }

    /// The layout for so many tokens, and whether the pieces had to move for it: then all that was drawn with the old ones
    /// is void. `None` without memory.
    ///
    /// # Safety
    /// `gpu` is always the same device, and nothing that uses the pieces is under way.
    pub(super) unsafe fn layout(
        &mut self,
        gpu: ffi::ggml_backend_dev_t,
        size: Size,
        tokens: usize,
    ) -> Option<(Layout, bool)> {
        let largest = Layout::new(size, MAX_QUEUED_TOKENS, self.alignment).end;
        let moved = self.places.is_none() || self.size < largest;
        if moved {
            self.places = None;
            // SAFETY: ggml's own types of buffers, and nobody uses what is in the pieces, as the caller says.
            unsafe {
                let places = (
                    self.gpu.piece(ffi::ggml_backend_dev_buffer_type(gpu), largest)?,
                    self.host.piece(pinned(gpu), largest)?,
                );
                self.host.clear();
                self.places = Some(places);
            }
            self.size = largest;
        }
        let layout = Layout::new(size, tokens, self.alignment);
        Some((layout, moved))
    }

    /// A place in the GPU's piece.
    pub(super) fn on_gpu(&self, offset: usize) -> Option<Place> {
        let (gpu, _) = self.places?;
        Some(Place {
            // SAFETY: layouts lie in the piece.
            data: unsafe { gpu.data.add(offset) },
            buffer: gpu.buffer,
        })
    }

    /// Bytes of the piece in main memory, from which nothing is being copied.
    pub(super) fn bytes(&mut self, start: usize, length: usize) -> Option<&mut [u8]> {
        let (_, host) = self.places?;
        let end = start.checked_add(length)?;
        // SAFETY: within the piece, which is zeroed memory of our own and borrowed with this.
        (end <= self.size).then(|| unsafe { std::slice::from_raw_parts_mut(host.data.add(start), length) })
    }
}

/// The type of a GPU's pinned main memory, or of plain memory if it offers none.
///
/// # Safety
/// `gpu` is a device of ggml's registry.
pub(super) unsafe fn pinned(gpu: ffi::ggml_backend_dev_t) -> ffi::ggml_backend_buffer_type_t {
    // SAFETY: as the caller says.
    unsafe {
        let pinned = ffi::ggml_backend_dev_host_buffer_type(gpu);
        if pinned.is_null() {
            ffi::ggml_backend_cpu_buffer_type()
        } else {
            pinned
        }
    }
}

/// Numbers of four bytes, as they come from a device.
pub(super) fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes))
}

/// Adds a row of numbers, times a weight, to another one.
pub(super) fn add_weighted(sum: &mut [u8], row: &[u8], weight: f32) {
    let pairs = sum.as_chunks_mut::<4>().0.iter_mut().zip(row.as_chunks::<4>().0);
    for (sum, value) in pairs {
        *sum = (f32::from_ne_bytes(*sum) + weight * f32::from_ne_bytes(*value)).to_ne_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps() {
        for (width, experts_per_token, tokens) in [(64, 4, 1), (2048, 10, 16), (3, 2, 5)] {
            let size = Size {
                width,
                experts_per_token,
            };
            let layout = Layout::new(size, tokens, 128);
            let (row, selected) = (width * tokens * 4, experts_per_token * tokens * 4);
            let parts = [
                (0, width * MAX_QUEUED_TOKENS * 4),
                (layout.input, row),
                (layout.weights, selected),
                (layout.ids, selected),
                (layout.entries, selected),
                (layout.mask, selected),
                (layout.masked, selected),
                (layout.rows, row),
                (layout.end, 0),
            ];
            for [(start, length), (next, _)] in parts.array_windows() {
                assert!(start + length <= *next && next % 128 == 0);
            }
            assert!(layout.from_gpu <= layout.entries && layout.to_gpu <= layout.masked);
        }
    }

    #[test]
    fn rows_are_added_by_weight() {
        let bytes = |values: [f32; 3]| values.map(f32::to_ne_bytes).concat();
        let mut sum = bytes([1.0, 2.0, 3.0]);
        add_weighted(&mut sum, &bytes([10.0, 20.0, -4.0]), 0.5);
        assert!(floats(&sum).eq([6.0, 12.0, 1.0]));
    }
}
