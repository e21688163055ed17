//! The way of a large block, as prompts have: the GPU computes all of it, with weights that are put together in its memory, one
//! tensor after the other. Experts with a copy come from that copy, the others that were selected from main memory.
//!
//! llama.cpp's scheduler does the same for weights in main memory, but it knows no copies, and tells nobody which experts
//! were selected. Before each tensor the CPU waits until the one before was read, as a GPU may copy in another queue than it
//! computes in; beside the time of the copies that is nothing.

use super::area::{Area, TAIL};
use super::backend::Backend;
use super::drawing::{Drawing, over, twin};
use super::ffi::{self, ggml_op, ggml_type};
use super::halves::Known;
use super::node::Node;
use super::registry::registered;
use super::sketch::{Paper, Place, Sketch, Tensors};
use crate::experts::WorkCounts;
use crate::experts::residency::EntryTable;

/// A block that is drawn.
pub(super) struct Streamed {
    /// `None` if the weights belong to no cache.
    pub(super) known: Option<Known>,
    pub(super) experts_per_token: usize,
    /// Puts the numbers of the selected experts together, and where they lie then.
    gather: Drawing,
    gathered: Node,
    /// The entry of each expert.
    table: Node,
    stretches: Vec<Stretch>,
    /// By expert: what becomes of it.
    experts: Vec<Expert>,
    _descriptions: Tensors,
}

/// The nodes up to the next one that computes with weights of experts, and that one; behind the last one there may be more.
struct Stretch {
    fetched: Option<Fetched>,
    compute: Drawing,
}

/// Weights that are put together before a stretch.
struct Fetched {
    /// Where they are in main memory.
    weights: Node,
    /// Where they come to, with [`TAIL`] bytes behind them.
    into: Node,
    /// Copies the experts that have an entry, and zeros into the places of the others.
    resident: Option<Drawing>,
}

/// An expert of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expert {
    /// No token selected it.
    Unused,
    /// It has a copy.
    Resident,
    /// It is in main memory alone.
    Missing,
}

static ZEROS: [u8; TAIL] = [0; TAIL];

impl Streamed {
    /// Draws a graph with experts of one layer; `None` for another one, without memory, and if `main` cannot compute it. The area
    /// may move for it, whatever comes of it.
    ///
    /// # Safety
    /// The nodes are those of the graph that is being computed on this GPU, and nothing else is under way.
    pub(super) unsafe fn draw(
        gpu: ffi::ggml_backend_dev_t,
        area: &mut Area,
        main: &Backend,
        nodes: &[Node],
        known: Option<Known>,
    ) -> Option<Self> {
        let plugin = registered()?;
        let ours = |node: &Node| node.expert_weights().filter(|weights| plugin.owns(*weights));
        let weights: Vec<Node> = nodes.iter().filter_map(ours).collect();
        let mut selections = nodes
            .iter()
            .filter(|node| ours(node).is_some())
            .map(|node| node.source(2));
        let ids = selections.next()??;
        let experts = weights.first().map(|first| first.size(first.expert_dimension()))?;
        let alike = |weights: &Node| weights.size(weights.expert_dimension()) == experts;
        if selections.any(|other| other != Some(ids)) || !weights.iter().all(alike) {
            return None;
        }
        let [experts_per_token, tokens] = [0, 1].map(|dimension| ids.size(dimension));
        let largest = weights.iter().map(|weights| weights.bytes()).max()?;
        let selected = experts_per_token * tokens;
        // SAFETY: nothing is under way, as the caller says.
        let reserved = unsafe { area.reserve(gpu, selected, experts, largest) };
        if reserved.is_none() {
            tracing::warn!(
                bytes = largest,
                "the GPU has not enough memory for the experts of prompts: the CPU computes them, which takes longer"
            );
            return None;
        }
        if let Some(known) = &known {
            known.cache.work.takes_area(area.bytes());
        }
        let mut descriptions = Tensors::new();
        let numbers = |count: usize| i64::try_from(count).ok().map(|count| [count, 1, 1, 1]);
        let integers = ggml_type::GGML_TYPE_I32;
        let gathered = descriptions.placed(integers, numbers(selected)?, area.ids()?)?;
        let table = descriptions.placed(integers, numbers(experts)?, area.table()?)?;
        let copies = known
            .as_ref()
            .map(|known| known.copies.clone())
            .filter(|copies| copies.count() > 0);
        let (mut stretches, mut start) = (Vec::new(), 0);
        for (at, node) in nodes.iter().enumerate() {
            let Some(weights) = ours(node) else { continue };
            let bytes = numbers(weights.bytes() + TAIL)?;
            let fetched = Fetched {
                weights,
                into: descriptions.placed(ggml_type::GGML_TYPE_I8, bytes, area.weights()?)?,
                resident: match &copies {
                    Some(copies) => Some(resident(area, weights, copies.of(weights)?)?),
                    None => None,
                },
            };
            stretches.push(Stretch::draw(area, &nodes[start..=at], Some(fetched))?);
            start = at + 1;
        }
        if nodes[start..].iter().any(|node| !node.is_view()) {
            stretches.push(Stretch::draw(area, &nodes[start..], None)?);
        }
        let streamed = Self {
            known,
            experts_per_token,
            gather: gather(area, ids)?,
            gathered,
            table,
            stretches,
            experts: vec![Expert::Unused; experts],
            _descriptions: descriptions,
        };
        let fit = streamed.drawings().all(|drawing| drawing.suits(main));
        fit.then_some(streamed)
    }

    fn drawings(&self) -> impl Iterator<Item = &Drawing> {
        let of_stretches = self.stretches.iter().flat_map(|stretch| {
            let resident = stretch.fetched.as_ref().and_then(|fetched| fetched.resident.as_ref());
            resident.into_iter().chain([&stretch.compute])
        });
        std::iter::once(&self.gather).chain(of_stretches)
    }

    /// Starts to tell main memory which experts were selected: so many bytes of the area.
    ///
    /// # Safety
    /// The nodes that this was drawn for are being computed, and what they read stands in the queue.
    pub(super) unsafe fn ask(&self, area: &mut Area, main: &Backend) -> Option<usize> {
        let bytes = self.gathered.bytes();
        // SAFETY: as the caller says; what is written is the area's.
        unsafe {
            self.gather.start(main, &mut WorkCounts::default())?;
            main.read(self.gathered, area.host_ids(bytes)?.as_mut_ptr(), bytes)?;
        }
        Some(bytes)
    }

    /// How many experts were selected and have no copy, and how many have one.
    pub(super) fn counts(&self) -> [u64; 2] {
        let count = |what: Expert| self.experts.iter().filter(|expert| **expert == what).count() as u64;
        [Expert::Missing, Expert::Resident].map(count)
    }

    /// Whether an expert that was selected has a copy.
    pub(super) fn has_copy(&self, expert: u32) -> bool {
        self.experts.get(expert as usize) == Some(&Expert::Resident)
    }

    /// Bytes of the table.
    pub(super) fn table(&self) -> usize {
        self.table.bytes()
    }

    /// Says what becomes of each expert: `ids` were selected. Those that `entries` has are resident, and `table` is told
    /// where; for the others it says `zeros`.
    pub(super) fn choose(&mut self, ids: &[u32], entries: Option<(&EntryTable, i32)>, table: &mut [u8]) {
        self.experts.fill(Expert::Unused);
        for id in ids {
            // The router selects experts that exist.
            if let Some(expert) = self.experts.get_mut(*id as usize) {
                *expert = Expert::Missing;
            }
        }
        let Some((entries, zeros)) = entries else { return };
        let places = table.as_chunks_mut::<4>().0.iter_mut();
        for ((number, expert), place) in (0..).zip(&mut self.experts).zip(places) {
            let entry = entries.entry_of(number).and_then(|entry| i32::try_from(entry).ok());
            *place = entry.unwrap_or(zeros).to_ne_bytes();
            if entry.is_some() && *expert == Expert::Missing {
                *expert = Expert::Resident;
            }
        }
    }

    /// Computes the block; the experts are chosen, and their entries held.
    ///
    /// # Safety
    /// The nodes that this was drawn for are being computed, what they read stands in the queue, and `table` stays until
    /// this returns.
    pub(super) unsafe fn compute(&self, main: &Backend, table: &[u8]) -> Option<()> {
        // What the drawings count is of no interest here.
        let mut counts = WorkCounts::default();
        // SAFETY: all that is written is the area's, which nobody else uses, and none of it is being read: the queue was
        // waited for.
        unsafe {
            main.write(self.table, 0, table)?;
            for stretch in &self.stretches {
                if let Some(fetched) = &stretch.fetched {
                    main.synchronize();
                    if let Some(resident) = &fetched.resident {
                        resident.start(main, &mut counts)?;
                        main.synchronize();
                    }
                    fetched.fetch(main, &self.experts)?;
                }
                stretch.compute.start(main, &mut counts)?;
            }
        }
        Some(())
    }
}

impl Fetched {
    /// Starts to copy what is missing.
    ///
    /// # Safety
    /// `main` is the GPU's queue, in which nothing reads or writes the area any more.
    unsafe fn fetch(&self, main: &Backend, experts: &[Expert]) -> Option<()> {
        let (bytes, whole) = (self.weights.expert_bytes(), self.weights.bytes());
        // SAFETY: a constant.
        unsafe { main.write(self.into, whole, &ZEROS)? };
        let mut next = 0;
        let missing = |expert: &Expert| *expert == Expert::Missing;
        while let Some(skipped) = experts.get(next..)?.iter().position(missing) {
            let first = next + skipped;
            let run = experts[first..].iter().take_while(|expert| missing(expert)).count();
            next = first + run;
            // With the beginning of the next one, where kernels may read too far.
            let end = (next * bytes + TAIL).min(whole);
            self.weights.check(first * bytes, end - first * bytes)?;
            // SAFETY: the range was checked; weights lie in main memory and stay.
            unsafe {
                let source = std::slice::from_raw_parts(self.weights.data().add(first * bytes), end - first * bytes);
                main.write(self.into, first * bytes, source)?;
            }
        }
        Some(())
    }
}

impl Stretch {
    /// Draws nodes over the memory of the main graph; the last one computes with what was fetched.
    fn draw(area: &Area, nodes: &[Node], fetched: Option<Fetched>) -> Option<Self> {
        let mut paper = Paper::default();
        // A node has three sources at most.
        let mut sketch = Sketch::for_tensors(&mut paper, 4 * nodes.len() + 4);
        let mut made: Vec<(Node, Node)> = Vec::with_capacity(4 * nodes.len());
        if let Some(Fetched { weights, .. }) = &fetched {
            let put_together = sketch.leaf(weights.kind(), weights.shape(), None, area.weights()?)?;
            made.push((*weights, put_together));
        }
        for node in nodes.iter().copied() {
            for source in node.sources() {
                if twin(&made, source).is_none() {
                    made.push((source, sketch.known(source)?));
                }
            }
            let new = over(&mut sketch, node, &made)?;
            made.push((node, new));
            sketch.expand(new);
        }
        let graph = sketch.finish();
        Some(Self {
            fetched,
            compute: Drawing::new(graph, paper),
        })
    }
}

/// The graph that puts the numbers of the selected experts together, whose rows may be far apart.
fn gather(area: &Area, ids: Node) -> Option<Drawing> {
    let mut paper = Paper::default();
    let mut sketch = Sketch::new(&mut paper);
    let from = sketch.known(ids)?;
    let to = sketch.leaf(ids.kind(), ids.shape(), None, area.ids()?)?;
    let copy = sketch.copy(from, to)?;
    sketch.expand(copy);
    let graph = sketch.finish();
    Some(Drawing::new(graph, paper))
}

/// The graph that copies experts from their entries to their places, and zeros where the table says so. An expert is a row
/// of plain numbers.
fn resident(area: &Area, weights: Node, copies: Node) -> Option<Drawing> {
    let mut paper = Paper::default();
    let mut sketch = Sketch::new(&mut paper);
    let bytes = weights.expert_bytes();
    let rows = |of: Node| i64::try_from(of.bytes() / bytes.max(1)).ok();
    let [numbers, experts, entries] = [i64::try_from(bytes / 4).ok(), rows(weights), rows(copies)];
    if !bytes.is_multiple_of(4) || copies.expert_bytes() != bytes {
        return None;
    }
    let kind = ggml_type::GGML_TYPE_F32;
    let from = sketch.leaf(kind, [numbers?, entries?, 1, 1], None, Place::of(copies)?)?;
    let table = sketch.leaf(ggml_type::GGML_TYPE_I32, [experts?, 1, 1, 1], None, area.table()?)?;
    let to = sketch.leaf(kind, [numbers?, experts?, 1, 1], None, area.weights()?)?;
    sketch.set_operation(to, ggml_op::GGML_OP_GET_ROWS, [from, table]);
    sketch.expand(to);
    let graph = sketch.finish();
    Some(Drawing::new(graph, paper))
}
