//! A tensor of ggml, read through small accessors.

use std::ffi::CStr;
use std::ptr::NonNull;

use super::ffi::{self, ggml_op, ggml_tensor, ggml_type};

/// A tensor: a node of a graph, or a weight.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Node(NonNull<ggml_tensor>);

// SAFETY: only an address; who uses it from another thread keeps the promise of `new` there.
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

const OUTPUT: i32 = ffi::ggml_tensor_flag::GGML_TENSOR_FLAG_OUTPUT.cast_signed();

impl Node {
    /// `None` for null.
    ///
    /// # Safety
    /// `tensor` is null or a tensor of ggml whose sources are tensors too, and all of them stay as long as the node is used.
    pub(super) unsafe fn new(tensor: *const ggml_tensor) -> Option<Self> {
        NonNull::new(tensor.cast_mut()).map(Self)
    }

    fn get(&self) -> &ggml_tensor {
        // SAFETY: the promise of `new`.
        unsafe { self.0.as_ref() }
    }

    /// For calls into ggml.
    pub(super) fn as_ptr(self) -> *mut ggml_tensor {
        self.0.as_ptr()
    }

    /// What it computes.
    pub(super) fn op(self) -> ggml_op::Type {
        self.get().op
    }

    /// The data type.
    pub(super) fn kind(self) -> ggml_type::Type {
        self.get().type_
    }

    /// Whether its data type packs several numbers into blocks.
    pub(super) fn is_quantized(self) -> bool {
        // SAFETY: the type of a tensor.
        unsafe { ffi::ggml_is_quantized(self.kind()) }
    }

    /// Whether it has no elements.
    pub(super) fn is_empty(self) -> bool {
        self.elements() == 0
    }

    /// Elements by dimension.
    pub(super) fn shape(self) -> [i64; 4] {
        self.get().ne
    }

    /// Elements of one dimension.
    pub(super) fn size(self, dimension: usize) -> usize {
        usize::try_from(self.get().ne[dimension]).unwrap_or(0)
    }

    /// All elements.
    pub(super) fn elements(self) -> i64 {
        // SAFETY: a tensor.
        unsafe { ffi::ggml_nelements(self.as_ptr()) }
    }

    /// Bytes from one element, row, matrix to the next.
    pub(super) fn strides(self) -> [usize; 4] {
        self.get().nb
    }

    /// What it is computed from.
    pub(super) fn source(self, index: usize) -> Option<Self> {
        // SAFETY: null or a tensor, as promised to `new`.
        unsafe { Self::new(self.get().src[index]) }
    }

    /// All that it is computed from.
    pub(super) fn sources(self) -> impl Iterator<Item = Self> {
        (0..self.get().src.len()).filter_map(move |index| self.source(index))
    }

    /// The tensor whose memory it looks into, and where it begins there, in bytes.
    pub(super) fn view_of(self) -> Option<(Self, usize)> {
        // SAFETY: null or a tensor, as promised to `new`.
        let whole = unsafe { Self::new(self.get().view_src) };
        whole.map(|whole| (whole, self.get().view_offs))
    }

    /// Whether it computes nothing.
    pub(super) fn is_view(self) -> bool {
        matches!(
            self.op(),
            ggml_op::GGML_OP_NONE
                | ggml_op::GGML_OP_VIEW
                | ggml_op::GGML_OP_RESHAPE
                | ggml_op::GGML_OP_PERMUTE
                | ggml_op::GGML_OP_TRANSPOSE
        )
    }

    /// Whether somebody outside of the graph reads it.
    pub(super) fn is_output(self) -> bool {
        self.get().flags & OUTPUT != 0
    }

    pub(super) fn name(&self) -> &CStr {
        // SAFETY: names of tensors end with a zero.
        unsafe { CStr::from_ptr(self.get().name.as_ptr()) }
    }

    /// Bytes of its data.
    pub(super) fn bytes(self) -> usize {
        // SAFETY: a tensor.
        unsafe { ffi::ggml_nbytes(self.as_ptr()) }
    }

    /// Its place in memory, whosever that is.
    pub(super) fn data(self) -> *mut u8 {
        self.get().data.cast()
    }

    /// The buffer that it lies in, if it lies anywhere.
    pub(super) fn buffer(self) -> Option<NonNull<ffi::ggml_backend_buffer>> {
        let whole = self.view_of().map_or(self, |(whole, _)| whole);
        NonNull::new(whole.get().buffer)
    }

    /// The type of its buffer.
    pub(super) fn buffer_type(self) -> Option<ffi::ggml_backend_buffer_type_t> {
        // SAFETY: buffers of tensors live as long as they do.
        self.buffer().map(|buffer| unsafe { (*buffer.as_ptr()).buft })
    }

    /// Whether its buffer is one without memory: llama.cpp asks about weights before it places them.
    pub(super) fn is_unplaced(self) -> bool {
        // SAFETY: buffers of tensors live as long as they do.
        self.buffer()
            .is_some_and(|buffer| unsafe { (*buffer.as_ptr()).size } == 0)
    }

    /// Reads bytes of its data, which is complete, from whichever device it is on. `None` if it is shorter.
    pub(super) fn read(self, offset: usize, into: &mut [u8]) -> Option<()> {
        self.check(offset, into.len())?;
        // SAFETY: the range was checked, and the tensor lies in a buffer.
        unsafe { ffi::ggml_backend_tensor_get(self.as_ptr(), into.as_mut_ptr().cast(), offset, into.len()) };
        Some(())
    }

    /// Whether it lies somewhere, and has these bytes.
    pub(super) fn check(self, offset: usize, bytes: usize) -> Option<()> {
        self.buffer()?;
        let end = offset.checked_add(bytes)?;
        (!self.data().is_null() && end <= self.bytes()).then_some(())
    }

    /// The weights or biases that it computes with, one part per expert.
    pub(super) fn expert_weights(self) -> Option<Self> {
        match self.op() {
            ggml_op::GGML_OP_MUL_MAT_ID => self.source(0),
            ggml_op::GGML_OP_ADD_ID => self.source(1),
            _ => None,
        }
    }

    /// Of weights or biases, the dimension that counts experts: matrices have one more than biases.
    pub(super) fn expert_dimension(self) -> usize {
        if self.get().ne[2] > 1 { 2 } else { 1 }
    }

    /// Of weights or biases, the bytes of one expert.
    pub(super) fn expert_bytes(self) -> usize {
        self.strides()[self.expert_dimension()]
    }
}

/// The nodes of a graph, in the order in which they are computed.
///
/// # Safety
/// `graph` is a graph of ggml whose sources are complete, and stays as long as the nodes are used.
pub(super) unsafe fn nodes_of<'a>(graph: *mut ffi::ggml_cgraph) -> &'a [Node] {
    // SAFETY: as the caller says; nodes of a graph are tensors, and `Node` has the layout of a pointer that is not null.
    unsafe {
        match usize::try_from(ffi::ggml_graph_n_nodes(graph)) {
            Ok(count) if count > 0 => std::slice::from_raw_parts(ffi::ggml_graph_nodes(graph).cast(), count),
            _ => &[],
        }
    }
}
