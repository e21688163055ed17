//! Descriptions of tensors and a graph of them, without data: how a block is rebuilt.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::ffi::{self, ggml_op, ggml_type};
use super::node::Node;

/// Tensors of a rebuilt block at most.
const MAX_TENSORS: usize = 48;

/// `GGML_TENSOR_FLAG_COMPUTE`: nodes without it are skipped.
const COMPUTE: i32 = ffi::ggml_tensor_flag::GGML_TENSOR_FLAG_COMPUTE.cast_signed();

/// Memory that a sketch is made in, again and again. Backends that remember graphs (CUDA) know them by their addresses.
#[derive(Debug, Default)]
pub(super) struct Paper(Vec<u64>);

impl Paper {
    /// For so many tensors, and a graph of `nodes` of them.
    fn for_sketch(&mut self, tensors: usize, nodes: usize) -> &mut [u64] {
        // SAFETY: functions without preconditions.
        let bytes =
            unsafe { ffi::ggml_tensor_overhead() * tensors + ffi::ggml_graph_overhead_custom(nodes, false) + 1024 };
        self.0.resize(bytes.div_ceil(8).max(self.0.len()), 0);
        &mut self.0
    }
}

/// Where the data of a tensor are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) data: *mut u8,
    pub(super) buffer: NonNull<ffi::ggml_backend_buffer>,
}

impl Place {
    /// That of a tensor; `None` if it has none.
    pub(super) fn of(tensor: Node) -> Option<Self> {
        let (data, buffer) = (tensor.data(), tensor.buffer()?);
        (!data.is_null()).then_some(Self { data, buffer })
    }
}

/// Tensors and a graph of them.
#[derive(Debug)]
pub(super) struct Sketch<'p> {
    context: *mut ffi::ggml_context,
    graph: *mut ffi::ggml_cgraph,
    /// Tensors and nodes for which there is memory: ggml aborts when there are more.
    tensors: usize,
    nodes: usize,
    _paper: PhantomData<&'p mut Paper>,
}

impl<'p> Sketch<'p> {
    /// An empty one, for a rebuilt block.
    pub(super) fn new(paper: &'p mut Paper) -> Self {
        Self::with(paper, MAX_TENSORS, MAX_TENSORS)
    }

    /// An empty one, for `tensors` tensors that are nodes of its graph or what they are computed from.
    pub(super) fn for_tensors(paper: &'p mut Paper, tensors: usize) -> Self {
        Self::with(paper, tensors, tensors)
    }

    /// A graph of nodes that exist.
    pub(super) fn of(paper: &'p mut Paper, nodes: &[Node]) -> Self {
        let mut sketch = Self::with(paper, 0, nodes.len());
        for node in nodes {
            // There is memory for just these.
            let _ = sketch.add(*node);
        }
        sketch
    }

    fn with(paper: &'p mut Paper, tensors: usize, nodes: usize) -> Self {
        let memory = paper.for_sketch(tensors, nodes);
        let (mem_buffer, mem_size) = (memory.as_mut_ptr().cast::<c_void>(), size_of_val(memory));
        let parameters = ffi::ggml_init_params {
            mem_size,
            mem_buffer,
            no_alloc: true,
        };
        // SAFETY: the memory is large enough, aligned, and borrowed as long as this lives.
        let (context, graph) = unsafe {
            let context = ffi::ggml_init(parameters);
            (context, ffi::ggml_new_graph_custom(context, nodes, false))
        };
        Self {
            context,
            graph,
            tensors,
            nodes,
            _paper: PhantomData,
        }
    }

    /// For calls into ggml.
    pub(super) fn graph(&self) -> *mut ffi::ggml_cgraph {
        self.graph
    }

    /// A tensor, without data yet; `None` if the sketch is full.
    pub(super) fn tensor(&mut self, kind: ggml_type::Type, shape: [i64; 4]) -> Option<Node> {
        self.tensors = self.tensors.checked_sub(1)?;
        // SAFETY: a live context with memory for one more.
        unsafe { Node::new(ffi::ggml_new_tensor(self.context, kind, 4, shape.as_ptr())) }
    }

    /// A tensor that is computed from nothing, over memory that exists; without `strides` it is contiguous. `None` if the
    /// sketch is full.
    pub(super) fn leaf(
        &mut self,
        kind: ggml_type::Type,
        shape: [i64; 4],
        strides: Option<[usize; 4]>,
        place: Place,
    ) -> Option<Node> {
        let leaf = self.tensor(kind, shape)?;
        // SAFETY: a fresh description, which nobody else knows.
        let tensor = unsafe { &mut *leaf.as_ptr() };
        if let Some(strides) = strides {
            tensor.nb = strides;
        }
        tensor.data = place.data.cast();
        tensor.buffer = place.buffer.as_ptr();
        Some(leaf)
    }

    /// What a node of another graph has computed, or a weight, as something that is computed from nothing.
    pub(super) fn known(&mut self, of: Node) -> Option<Node> {
        self.leaf(of.kind(), of.shape(), Some(of.strides()), Place::of(of)?)
    }

    /// Copies a tensor into the memory of another one with as many elements; the node of the copy.
    pub(super) fn copy(&mut self, from: Node, to: Node) -> Option<Node> {
        if from.elements() != to.elements() {
            return None;
        }
        self.tensors = self.tensors.checked_sub(1)?;
        // SAFETY: a live context with memory for one more, and two tensors of it that are equally large.
        unsafe {
            let copy = ffi::ggml_cpy(self.context, from.as_ptr(), to.as_ptr());
            (*copy).data = (*to.as_ptr()).data;
            (*copy).buffer = (*to.as_ptr()).buffer;
            Node::new(copy)
        }
    }

    /// The same numbers in one row; the node that says so.
    pub(super) fn in_a_row(&mut self, of: Node) -> Option<Node> {
        self.tensors = self.tensors.checked_sub(1)?;
        // SAFETY: a live context with memory for one more, and a contiguous tensor of it.
        unsafe {
            let row = ffi::ggml_reshape_1d(self.context, of.as_ptr(), of.elements());
            (*row).data = (*of.as_ptr()).data;
            (*row).buffer = (*of.as_ptr()).buffer;
            Node::new(row)
        }
    }

    /// Puts a node of this sketch at the end of the graph, behind what it is computed from, all of which is in this sketch.
    /// Unlike [`Sketch::add`] this counts who uses what, without which backends fuse nothing.
    pub(super) fn expand(&mut self, node: Node) {
        // SAFETY: a live graph with memory for all tensors of its sketch.
        unsafe { ffi::ggml_build_forward_expand(self.graph, node.as_ptr()) }
    }

    /// The graph, which stays as long as the paper does.
    pub(super) fn finish(self) -> *mut ffi::ggml_cgraph {
        self.graph
    }

    /// A part of the rows of a tensor; `None` if the sketch is full, or the tensor smaller.
    pub(super) fn rows_of(&mut self, whole: Node, shape: [i64; 3], offset: usize) -> Option<Node> {
        let [element, row, matrix, _] = whole.strides();
        let [width, rows, matrices] = shape;
        let elements = usize::try_from(width.checked_mul(rows)?.checked_mul(matrices)?).ok()?;
        if offset.checked_add(elements.checked_mul(element)?)? > whole.bytes() {
            return None;
        }
        self.tensors = self.tensors.checked_sub(1)?;
        // SAFETY: a live context with memory for one more, and a part of a tensor of it.
        unsafe {
            let view = ffi::ggml_view_3d(self.context, whole.as_ptr(), width, rows, matrices, row, matrix, offset);
            Node::new(view)
        }
    }

    /// A tensor that computes what `like` does, of another shape and from other sources.
    pub(super) fn operation(&mut self, like: Node, shape: [i64; 4], sources: [Option<Node>; 3]) -> Option<Node> {
        let new = self.tensor(like.kind(), shape)?;
        // SAFETY: a fresh description, which nobody else knows, and another tensor.
        let (new_tensor, like) = unsafe { (&mut *new.as_ptr(), &*like.as_ptr()) };
        new_tensor.op = like.op;
        new_tensor.op_params = like.op_params;
        new_tensor.flags |= COMPUTE;
        for (place, source) in new_tensor.src.iter_mut().zip(sources) {
            *place = source.map_or(std::ptr::null_mut(), Node::as_ptr);
        }
        Some(new)
    }

    /// A tensor that computes what `like` does, into the very memory of `like`. `twin` names the tensor that takes the place
    /// of one of the old ones.
    pub(super) fn over(&mut self, like: Node, twin: impl Fn(Node) -> Node) -> Option<Node> {
        let new = self.operation(like, like.shape(), [None; 3])?;
        let view_of = like.view_of();
        // SAFETY: as in `operation`.
        let (new_tensor, like_tensor) = unsafe { (&mut *new.as_ptr(), &*like.as_ptr()) };
        new_tensor.nb = like_tensor.nb;
        new_tensor.data = like_tensor.data;
        new_tensor.buffer = like_tensor.buffer;
        new_tensor.extra = like_tensor.extra;
        if let Some((whole, offset)) = view_of {
            new_tensor.view_src = twin(whole).as_ptr();
            new_tensor.view_offs = offset;
        }
        for (index, place) in new_tensor.src.iter_mut().enumerate() {
            *place = like
                .source(index)
                .map_or(std::ptr::null_mut(), |source| twin(source).as_ptr());
        }
        Some(new)
    }

    /// Has a tensor of this sketch computed from two others.
    pub(super) fn set_operation(&mut self, of: Node, operation: ggml_op::Type, sources: [Node; 2]) {
        // SAFETY: a description of this sketch, which is borrowed for writing.
        let tensor = unsafe { &mut *of.as_ptr() };
        tensor.op = operation;
        tensor.flags |= COMPUTE;
        for (place, source) in tensor.src.iter_mut().zip(sources) {
            *place = source.as_ptr();
        }
    }

    /// Gives a tensor of this sketch other sources.
    pub(super) fn set_source(&mut self, of: Node, index: usize, source: Node) {
        // SAFETY: a description of this sketch, which is borrowed for writing.
        unsafe { (*of.as_ptr()).src[index] = source.as_ptr() };
    }

    /// Puts a node at the end of the graph; `None` if that is full.
    pub(super) fn add(&mut self, node: Node) -> Option<()> {
        self.nodes = self.nodes.checked_sub(1)?;
        // SAFETY: a live graph with memory for one more.
        unsafe { ffi::ggml_graph_add_node(self.graph, node.as_ptr()) }
        Some(())
    }
}

impl Drop for Sketch<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `with`. What it describes lies in the paper, and stays there.
        unsafe { ffi::ggml_free(self.context) }
    }
}

/// Descriptions of tensors that stay; freed with this.
#[derive(Debug)]
pub(super) struct Tensors(*mut ffi::ggml_context);

impl Tensors {
    pub(super) fn new() -> Self {
        // SAFETY: functions without preconditions; ggml makes the memory.
        let context = unsafe {
            ffi::ggml_init(ffi::ggml_init_params {
                mem_size: ffi::ggml_tensor_overhead() * MAX_TENSORS,
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            })
        };
        Self(context)
    }

    /// Another tensor, without data yet; at most [`MAX_TENSORS`] are made.
    pub(super) fn tensor(&mut self, kind: ggml_type::Type, shape: [i64; 4]) -> Option<Node> {
        // SAFETY: a live context with memory for one more; the node is used no longer than this lives.
        unsafe {
            let used = ffi::ggml_used_mem(self.0) / ffi::ggml_tensor_overhead();
            (used < MAX_TENSORS).then(|| Node::new(ffi::ggml_new_tensor(self.0, kind, 4, shape.as_ptr())))?
        }
    }

    /// The same over memory that exists.
    pub(super) fn placed(&mut self, kind: ggml_type::Type, shape: [i64; 4], place: Place) -> Option<Node> {
        let tensor = self.tensor(kind, shape)?;
        // SAFETY: a fresh description, which nobody else knows.
        unsafe {
            (*tensor.as_ptr()).data = place.data.cast();
            (*tensor.as_ptr()).buffer = place.buffer.as_ptr();
        }
        Some(tensor)
    }
}

impl Drop for Tensors {
    fn drop(&mut self) {
        // SAFETY: made by `new`, freed once.
        unsafe { ffi::ggml_free(self.0) }
    }
}
