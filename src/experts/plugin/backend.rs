//! A backend of ggml, and memory on its device.

use std::ffi::{c_int, c_void};
use std::ptr;

use super::ffi::{self, ggml_status};
use super::node::Node;
use super::sketch::Place;

/// One queue of a device, freed with this unless it is borrowed.
#[derive(Debug)]
pub(super) struct Backend {
    backend: ffi::ggml_backend_t,
    set_threads: Option<SetThreads>,
    borrowed: bool,
}

type SetThreads = unsafe extern "C" fn(ffi::ggml_backend_t, c_int);

impl Backend {
    /// `None` if the device has no more.
    ///
    /// # Safety
    /// `device` is a device of ggml's registry.
    pub(super) unsafe fn new(device: ffi::ggml_backend_dev_t) -> Option<Self> {
        // SAFETY: as the caller says.
        let backend = unsafe { ffi::ggml_backend_dev_init(device, ptr::null()) };
        if backend.is_null() {
            return None;
        }
        // SAFETY: a device has a registry; the function, if it is there, has this type.
        let set_threads = unsafe {
            let registry = ffi::ggml_backend_dev_backend_reg(device);
            let function = ffi::ggml_backend_reg_get_proc_address(registry, c"ggml_backend_set_n_threads".as_ptr());
            (!function.is_null()).then(|| std::mem::transmute::<*mut c_void, SetThreads>(function))
        };
        Some(Self {
            backend,
            set_threads,
            borrowed: false,
        })
    }

    /// Somebody else's queue.
    ///
    /// # Safety
    /// `backend` is one of ggml's, and lives longer than this.
    pub(super) unsafe fn borrowed(backend: ffi::ggml_backend_t) -> Self {
        Self {
            backend,
            set_threads: None,
            borrowed: true,
        }
    }

    /// Whether this is that queue.
    pub(super) fn is(&self, backend: ffi::ggml_backend_t) -> bool {
        self.backend == backend
    }

    /// Whether the device computes such nodes.
    pub(super) fn supports(&self, node: Node) -> bool {
        // SAFETY: a live backend, and a tensor whose sources are tensors.
        unsafe { ffi::ggml_backend_supports_op(self.backend, node.as_ptr()) }
    }

    /// How many threads compute, where that can be chosen.
    pub(super) fn set_threads(&self, threads: c_int) {
        if let Some(set) = self.set_threads {
            // SAFETY: a live backend, and its own function.
            unsafe { set(self.backend, threads) }
        }
    }

    /// The type of its own memory.
    pub(super) fn buffers(&self) -> ffi::ggml_backend_buffer_type_t {
        // SAFETY: a live backend.
        unsafe { ffi::ggml_backend_get_default_buffer_type(self.backend) }
    }

    /// Waits until everything that was started is done.
    pub(super) fn synchronize(&self) {
        // SAFETY: a live backend.
        unsafe { ffi::ggml_backend_synchronize(self.backend) }
    }

    /// Computes a graph and waits for it; `None` if that fails.
    ///
    /// # Safety
    /// All tensors of the graph have memory that this device reads and writes, and that nobody else uses now.
    pub(super) unsafe fn compute(&self, graph: *mut ffi::ggml_cgraph) -> Option<()> {
        // SAFETY: as the caller says.
        let status = unsafe { ffi::ggml_backend_graph_compute(self.backend, graph) };
        (status == ggml_status::GGML_STATUS_SUCCESS).then_some(())
    }

    /// Computes a graph behind what was started before; `None` if that fails.
    ///
    /// # Safety
    /// As [`Backend::compute`], until this is synchronized.
    pub(super) unsafe fn start(&self, graph: *mut ffi::ggml_cgraph) -> Option<()> {
        // SAFETY: as the caller says.
        let status = unsafe { ffi::ggml_backend_graph_compute_async(self.backend, graph) };
        (status == ggml_status::GGML_STATUS_SUCCESS).then_some(())
    }

    /// Reads bytes of a tensor on this device, behind what was started before; `None` if the tensor is shorter.
    ///
    /// # Safety
    /// The tensor lies in this device's own memory, and the bytes are there, and nobody else's, until this is synchronized.
    pub(super) unsafe fn read(&self, tensor: Node, into: *mut u8, bytes: usize) -> Option<()> {
        tensor.check(0, bytes)?;
        // SAFETY: the range was checked; otherwise as the caller says.
        unsafe { ffi::ggml_backend_tensor_get_async(self.backend, tensor.as_ptr(), into.cast(), 0, bytes) };
        Some(())
    }

    /// Writes bytes of a tensor on this device, behind what was started before; `None` if the tensor is shorter.
    ///
    /// # Safety
    /// The tensor lies in this device's memory. The bytes stay where they are, and nobody else uses that part of the
    /// tensor, until this is synchronized.
    pub(super) unsafe fn write(&self, tensor: Node, offset: usize, bytes: &[u8]) -> Option<()> {
        tensor.check(offset, bytes.len())?;
        let source = bytes.as_ptr().cast();
        // SAFETY: the range was checked; otherwise as the caller says.
        unsafe { ffi::ggml_backend_tensor_set_async(self.backend, tensor.as_ptr(), source, offset, bytes.len()) };
        Some(())
    }

    /// Writes rows that lie one behind the other into a tensor where they are `stride` bytes apart and the first one begins at
    /// `offset`: as [`Backend::write`], in one piece.
    ///
    /// # Safety
    /// As [`Backend::write`].
    pub(super) unsafe fn write_rows(
        &self,
        tensor: Node,
        offset: usize,
        stride: usize,
        rows: &[u8],
        row: usize,
    ) -> Option<()> {
        let count = rows.len().checked_div(row)?;
        tensor.check(offset, stride.checked_mul(count.checked_sub(1)?)?.checked_add(row)?)?;
        let (tensor, rows) = (tensor.as_ptr(), rows.as_ptr().cast());
        // SAFETY: the range was checked; otherwise as the caller says.
        unsafe { ffi::ggml_backend_tensor_set_2d_async(self.backend, tensor, rows, offset, row, count, stride, row) };
        Some(())
    }

    /// Notes how far the queue is.
    pub(super) fn record(&self, event: &Event) {
        // SAFETY: a live backend, and an event of its device.
        unsafe { ffi::ggml_backend_event_record(event.0, self.backend) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if !self.borrowed {
            // SAFETY: made by `new`, freed once.
            unsafe { ffi::ggml_backend_free(self.backend) }
        }
    }
}

/// A mark in a queue of a device.
#[derive(Debug)]
pub(super) struct Event(ffi::ggml_backend_event_t);

impl Event {
    /// `None` if the device has no such marks.
    ///
    /// # Safety
    /// `device` is a device of ggml's registry.
    pub(super) unsafe fn new(device: ffi::ggml_backend_dev_t) -> Option<Self> {
        // SAFETY: as the caller says.
        let event = unsafe { ffi::ggml_backend_event_new(device) };
        (!event.is_null()).then_some(Self(event))
    }

    /// Waits until the queue has reached the mark.
    pub(super) fn wait(&self) {
        // SAFETY: a live event.
        unsafe { ffi::ggml_backend_event_synchronize(self.0) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { ffi::ggml_backend_event_free(self.0) }
    }
}

/// Memory of a device that only grows.
#[derive(Debug)]
pub(super) struct Arena {
    buffer: ffi::ggml_backend_buffer_t,
    /// How often it has moved.
    moves: u64,
}

impl Arena {
    pub(super) const fn new() -> Self {
        Self {
            buffer: ptr::null_mut(),
            moves: 0,
        }
    }

    /// Gives tensors their places, one after the other, and then their views; `None` if the device has not that much memory.
    ///
    /// # Safety
    /// All are fresh descriptions without data, the views look into the tensors, nothing that uses this arena is being
    /// computed, and `buffers` is always the same type.
    pub(super) unsafe fn place(
        &mut self,
        buffers: ffi::ggml_backend_buffer_type_t,
        tensors: &[Node],
        views: &[Node],
    ) -> Option<()> {
        let size = tensors.iter().map(|tensor| padded(buffers, *tensor)).sum();
        // SAFETY: nothing uses the old buffer any more.
        unsafe { self.grow(buffers, size)? };
        let mut offset = 0;
        for tensor in tensors {
            // SAFETY: the buffer is large enough for all of them.
            unsafe {
                let place = ffi::ggml_backend_buffer_get_base(self.buffer).cast::<u8>().add(offset);
                ffi::ggml_backend_tensor_alloc(self.buffer, tensor.as_ptr(), place.cast());
            }
            offset += padded(buffers, *tensor);
        }
        for view in views {
            // SAFETY: what it looks into has its place now.
            unsafe { ffi::ggml_backend_view_init(view.as_ptr()) };
        }
        Some(())
    }

    /// Makes sure that there are so many bytes.
    ///
    /// # Safety
    /// Nothing uses what is in the arena.
    unsafe fn grow(&mut self, buffers: ffi::ggml_backend_buffer_type_t, size: usize) -> Option<()> {
        // SAFETY: its own buffer, which is freed before the next one is made, or null.
        unsafe {
            if self.buffer.is_null() || ffi::ggml_backend_buffer_get_size(self.buffer) < size {
                ffi::ggml_backend_buffer_free(self.buffer);
                self.buffer = ffi::ggml_backend_buft_alloc_buffer(buffers, size);
                self.moves += 1;
            }
        }
        (!self.buffer.is_null()).then_some(())
    }

    /// How often it has moved: what was placed before the last time lies nowhere. An address would not tell, as it may come
    /// back.
    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    /// So many bytes in one piece; `None` if the device has not that much memory.
    ///
    /// # Safety
    /// As [`Arena::grow`], and `buffers` is always the same type.
    pub(super) unsafe fn piece(&mut self, buffers: ffi::ggml_backend_buffer_type_t, size: usize) -> Option<Place> {
        // SAFETY: as the caller says; a buffer that was allocated has a base.
        unsafe {
            self.grow(buffers, size)?;
            Some(Place {
                data: ffi::ggml_backend_buffer_get_base(self.buffer).cast(),
                buffer: ptr::NonNull::new(self.buffer)?,
            })
        }
    }

    /// Zeros everything.
    ///
    /// # Safety
    /// Nothing that uses this arena is being computed.
    pub(super) unsafe fn clear(&mut self) {
        if !self.buffer.is_null() {
            // SAFETY: as the caller says.
            unsafe { ffi::ggml_backend_buffer_clear(self.buffer, 0) }
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: its own buffer, or null, which ggml accepts.
        unsafe { ffi::ggml_backend_buffer_free(self.buffer) }
    }
}

/// Bytes of a tensor in a buffer, with what keeps the next one aligned.
fn padded(buffers: ffi::ggml_backend_buffer_type_t, tensor: Node) -> usize {
    // SAFETY: a type of buffers of a live device, and a tensor.
    unsafe {
        let alignment = ffi::ggml_backend_buft_get_alignment(buffers).max(1);
        ffi::ggml_backend_buft_get_alloc_size(buffers, tensor.as_ptr()).next_multiple_of(alignment)
    }
}
