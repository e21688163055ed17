//! The way of a block on a GPU: everything is put into llama.cpp's own queue, and the CPU waits once.
//!
//! In the queue stand, behind what computes the input: a graph that puts the input, the weights and the numbers of the
//! selected experts together; one copy of that to main memory, for which the CPU waits; the hot half, weighted and summed; one
//! copy of what the cold half came to. The main graph adds the two (see `tail`), behind them in the same queue, so nobody
//! waits for either. What a block still reads is released when the next one has waited.
//!
//! For a single token the hot half stands in the queue before the CPU knows which experts were selected: the GPU finds
//! their entries in a table, which is written anew when other experts have a copy, and experts without one in an entry of
//! zeros. For several tokens the CPU says which entries to compute with, in one more copy, since kernels for several tokens rely
//! on the entries of a token being different (see [`selection`](crate::experts::selection)).
//!
//! All that is drawn for a block is kept until the main graph has another one there: while tokens are decoded, nothing is
//! recognised, drawn or allocated.

use std::time::{Duration, Instant};

use super::area::Area;
use super::backend::{Backend, Event};
use super::block::{self, Block};
use super::cold::Pair;
use super::ffi;
use super::graphs::{Drawn, Graphs};
use super::halves::{Halves, Known};
use super::node::Node;
use super::registry::registered;
use super::sketch::Place;
use super::stage::{Size, Stage, ZEROS, add_weighted, floats};
use super::streamed::Streamed;
use super::tail::Tail;
use super::way::Way;
use crate::experts::handover;
use crate::experts::selection::MAX_BLOCK_TOKENS;
use crate::experts::work::Clock;
use crate::experts::{Part, WorkCounts};

/// llama.cpp's queue, and what stands in it.
pub(super) struct Queue {
    gpu: ffi::ggml_backend_dev_t,
    /// Known since llama.cpp gave us an input that the GPU computes.
    main: Option<Backend>,
    /// Whether some input of the graph at hand comes from elsewhere.
    foreign: bool,
    event: Option<Event>,
    stage: Stage,
    /// Where the weights of large blocks are put together.
    area: Area,
    graphs: Graphs<Course>,
    /// What the last block still reads.
    pending: Option<Pending>,
    before: Option<Before>,
    /// When the last block ended.
    left: Option<Instant>,
}

/// What becomes of a graph.
enum Course {
    /// It is divided into a hot and a cold half.
    Divided(Box<Way>),
    /// It is large: the GPU computes all of it.
    Streamed(Box<Streamed>),
}

/// What is remembered of the block before.
#[derive(Clone, Copy)]
struct Before {
    layer: u32,
    /// When it had waited.
    waited: Instant,
    /// How long its cold half took, and of how many experts.
    cold: Duration,
    experts: usize,
    /// Whether copies were used.
    copies: bool,
}

/// Entries of a layer that are acquired; all are if there is a table.
struct Pending {
    known: Known,
    entries: Vec<u32>,
    all: bool,
}

impl Queue {
    /// # Safety
    /// `gpu` is a device of ggml's registry.
    pub(super) unsafe fn new(gpu: ffi::ggml_backend_dev_t) -> Self {
        // SAFETY: as the caller says.
        let (event, stage, area) = unsafe { (Event::new(gpu), Stage::new(gpu), Area::new(gpu)) };
        Self {
            gpu,
            main: None,
            foreign: false,
            event,
            stage,
            area,
            graphs: Graphs::default(),
            pending: None,
            before: None,
            left: None,
        }
    }

    /// llama.cpp gives an input of the next graph, `from`, of which `to` shall be a copy. On the GPU it is none: what reads
    /// the copy reads the input, before anything that comes behind us in the queue can write there. False if llama.cpp
    /// shall copy.
    ///
    /// # Safety
    /// The scheduler of llama.cpp calls this with tensors of its graph and the backend that computes the input.
    pub(super) unsafe fn take_input(&mut self, backend: ffi::ggml_backend_t, from: Node, to: Node) -> bool {
        // SAFETY: backends have devices, which live for ever.
        let device = unsafe { ffi::ggml_backend_get_device(backend) };
        let Some(place) = Place::of(from).filter(|_| device == self.gpu) else {
            self.foreign = true;
            return false;
        };
        // SAFETY: the scheduler's own tensor, which nobody reads before this returns.
        unsafe {
            (*to.as_ptr()).data = place.data.cast();
            (*to.as_ptr()).buffer = place.buffer.as_ptr();
        }
        if !self.main.as_ref().is_some_and(|main| main.is(backend)) {
            // SAFETY: llama.cpp's backend, which lives as long as the context, and ours with it.
            self.main = Some(unsafe { Backend::borrowed(backend) });
        }
        true
    }

    /// Waits until all that was queued is done.
    fn finish(&self) {
        if let Some(main) = &self.main {
            main.synchronize();
        }
    }
}

impl Queue {
    /// Computes a graph that is one block with its tail; false if it is not, and nothing was done.
    ///
    /// # Safety
    /// The graph is being computed, its inputs were given to [`Queue::take_input`], and nobody else computes with it.
    pub(super) unsafe fn compute(&mut self, halves: &mut Halves, nodes: &[Node]) -> Option<bool> {
        // SAFETY: as the caller says.
        unsafe { halves.queued(self, nodes) }
    }

    /// llama.cpp is done with us, and its queue may be gone.
    pub(super) fn end(&mut self, halves: &mut Halves) {
        halves.release_pending(self);
    }
}

impl Halves {
    /// # Safety
    /// As [`Queue::compute`].
    unsafe fn queued(&mut self, queue: &mut Queue, nodes: &[Node]) -> Option<bool> {
        let foreign = std::mem::take(&mut queue.foreign);
        let (Some(_), false) = (&queue.main, foreign) else {
            self.leave(queue);
            return Some(false);
        };
        let mut graph = match queue.graphs.take(nodes) {
            Some(graph) => graph,
            None => {
                self.leave(queue);
                queue.graphs.make_room();
                // SAFETY: nothing is under way.
                let course = unsafe { self.course(queue, nodes) };
                queue.graphs.looked_at(course)
            }
        };
        let done = match &mut graph.drawn {
            // SAFETY: as the caller says; the way was drawn for these nodes.
            Some(Course::Divided(way)) => unsafe { self.go(queue, way).map(|()| true) },
            // SAFETY: as above.
            Some(Course::Streamed(way)) => unsafe { self.stream(queue, way).map(|()| true) },
            None => {
                self.leave(queue);
                Some(false)
            }
        };
        queue.graphs.keep(nodes, graph);
        done
    }

    /// Recognises and draws.
    ///
    /// # Safety
    /// As [`Queue::compute`], and nothing is under way.
    unsafe fn course(&mut self, queue: &mut Queue, nodes: &[Node]) -> Option<Course> {
        let block = (0..nodes.len()).find_map(|at| block::ending_at(nodes, at));
        let known = block.as_ref().and_then(|block| self.layer(block));
        let tokens = block::tokens(nodes)?;
        // SAFETY: as the caller says.
        let divided = || unsafe { self.divide(queue, nodes, block?, known.clone()?) };
        if tokens <= registered()?.divided
            && let Some(way) = divided()
        {
            return Some(Course::Divided(Box::new(way)));
        }
        if tokens <= MAX_BLOCK_TOKENS {
            return None;
        }
        let moves = queue.area.moves();
        // SAFETY: as the caller says.
        let streamed = unsafe { Streamed::draw(queue.gpu, &mut queue.area, queue.main.as_ref()?, nodes, known) };
        if queue.area.moves() != moves {
            queue.graphs.clear();
        }
        streamed.map(|streamed| Course::Streamed(Box::new(streamed)))
    }

    /// Draws a block that is divided.
    ///
    /// # Safety
    /// As [`Halves::course`].
    unsafe fn divide(&mut self, queue: &mut Queue, nodes: &[Node], block: Block, known: Known) -> Option<Way> {
        let alone = nodes.get(..block.first)?.iter().all(|node| node.is_view());
        // Scales are gathered by nodes of the main graph.
        if !alone || !block.factors.is_empty() || block.input.size(1) != 1 {
            return None;
        }
        let tail = Tail::behind(&block, nodes)?;
        if tail.product.size(0) != block.input.size(0) {
            return None;
        }
        let size = Size {
            width: block.input.size(0),
            experts_per_token: block.experts_per_token(),
        };
        // SAFETY: nothing is under way, as the caller says.
        let (layout, moved) = unsafe { queue.stage.layout(queue.gpu, size, block.tokens())? };
        if moved {
            queue.graphs.clear();
        }
        if block.tokens() == 1 {
            // SAFETY: as the caller says.
            unsafe { self.cold.prepare(&block)? };
        }
        known.cache.work.count(WorkCounts {
            recognitions: 1,
            ..WorkCounts::default()
        });
        // SAFETY: nothing is under way.
        let way = unsafe { Way::draw(queue.gpu, &queue.stage, layout, block, tail, known)? };
        way.fit_for(queue.main.as_ref()?)
    }

    /// Computes a block.
    ///
    /// # Safety
    /// As [`Queue::compute`], and the way was drawn for these nodes.
    unsafe fn go(&mut self, queue: &mut Queue, way: &mut Way) -> Option<()> {
        let cache = way.known.cache.clone();
        let mut clock = Clock::start(&cache.work, queue.left);
        let mut done = WorkCounts {
            blocks: 1,
            ..WorkCounts::default()
        };
        let main = queue.main.as_ref()?;
        // SAFETY: what is read was computed in this queue; what is written is our own.
        unsafe {
            way.gather.start(main, &mut done)?;
            let into = queue.stage.bytes(way.layout.input, way.layout.gathered())?.as_mut_ptr();
            main.read(way.gathered, into, way.layout.gathered())?;
        }
        done.downloads += 1;
        if let Some(event) = &queue.event {
            main.record(event);
        }
        let used = way.known.copies.count() > 0 && self.are_copies_used(&way.known);
        let ahead = used && way.ahead.is_some();
        if ahead {
            // SAFETY: as the caller says.
            unsafe { way.start_ahead(main, &mut done)? };
        }
        let main = queue.main.as_ref()?;
        match &queue.event {
            Some(event) => event.wait(),
            None => main.synchronize(),
        }
        done.waits += 1;
        let waited = clock.lap(Part::Wait);

        // All that stands before the mark is done.
        self.release_pending(queue);
        self.read_gathered(queue, way)?;
        let hot = match (&way.ahead, used) {
            (Some(found), true) => {
                self.entries.clear();
                let entry = |expert: &u32| u32::try_from(*found.table.get(*expert as usize)?).ok();
                let zeros = way.known.copies.spare().start;
                let entries = self
                    .ids
                    .iter()
                    .map(|expert| entry(expert).filter(|entry| *entry != zeros));
                self.entries.extend(entries);
                true
            }
            (_, used) => self.acquire_chosen(&way.block, &way.known, used),
        };
        self.choose_cold(&way.block)?;
        clock.lap(Part::Choose);

        if hot {
            queue.pending = Some(self.pend(&way.known, ahead));
            if !ahead {
                // SAFETY: as the caller says; the entries are acquired.
                unsafe { self.start_chosen(queue, way, &mut done)? };
            }
        }
        clock.lap(Part::Launch);

        if !self.pairs.is_empty() {
            // SAFETY: as the caller says.
            unsafe { self.compute_cold(queue, way)? };
            done.cold_graphs += 1;
        }
        let cold = clock.took(Part::Cold);

        let Way { tail, layout, .. } = &*way;
        let width = tail.product.size(0) * 4;
        let bytes = width * way.block.tokens();
        let [_, column, token, _] = tail.product.strides();
        let last = (way.block.experts_per_token() - 1) * column;
        let main = queue.main.as_ref()?;
        // SAFETY: both tensors are the block's own in the main graph, and the bytes stay until the next block has waited.
        unsafe {
            // Where the CPU knew that there is no cold half, the last row is that of a hot expert.
            if !self.pairs.is_empty() || ahead {
                let rows = if self.pairs.is_empty() { ZEROS } else { layout.rows };
                main.write_rows(tail.product, last, token, queue.stage.bytes(rows, bytes)?, width)?;
                done.uploads += 1;
            }
            if !hot {
                let zeros = queue.stage.bytes(ZEROS, bytes)?;
                main.write_rows(tail.sum, 0, tail.sum.strides()[1], zeros, width)?;
                done.uploads += 1;
            }
        }
        clock.lap(Part::Return);

        let computed = if hot { self.entries.iter().flatten().count() } else { 0 };
        self.observe(&way.known, way.block.experts_per_token(), computed);
        if !hot {
            // Nothing is released later.
            cache.upload_wanted(&way.known.layer, &mut way.known.layer.state.lock().cache);
        }
        // What large blocks take would say nothing about those that a text is continued with.
        let this = (way.block.tokens() <= MAX_BLOCK_TOKENS).then(|| Before {
            layer: way.known.layer.number,
            waited,
            cold,
            experts: self.pairs.len(),
            copies: hot,
        });
        let before = std::mem::replace(&mut queue.before, this);
        if let (Some(before), Some(this)) = (before, this)
            && before.layer < this.layer
        {
            let took = this.waited - before.waited;
            self.overhead.observe(took, before.cold, before.experts, before.copies);
        }
        cache.work.count(done);
        queue.left = Some(clock.lap(Part::Policy));
        Some(())
    }

    /// Computes a large block.
    ///
    /// # Safety
    /// As [`Queue::compute`], and the way was drawn for these nodes.
    unsafe fn stream(&mut self, queue: &mut Queue, way: &mut Streamed) -> Option<()> {
        // SAFETY: as the caller says.
        let bytes = unsafe { way.ask(&mut queue.area, queue.main.as_ref()?)? };
        // Waits.
        self.leave(queue);
        self.ids.clear();
        for id in queue.area.host_ids(bytes)?.as_chunks::<4>().0 {
            self.ids.push(u32::try_from(i32::from_ne_bytes(*id)).ok()?);
        }
        let known = way.known.clone();
        let copies = known.as_ref().filter(|known| known.copies.count() > 0);
        let table = queue.area.host_table(way.table())?;
        match copies {
            Some(known) => {
                let zeros = i32::try_from(known.copies.spare().start).ok()?;
                let mut state = known.layer.state.lock();
                let entries = state.cache.entries_mut();
                entries.hold();
                way.choose(&self.ids, Some((entries, zeros)), table);
            }
            None => way.choose(&self.ids, None, table),
        }
        // SAFETY: as the caller says; the table is written by nobody else.
        let computed = unsafe { way.compute(queue.main.as_ref()?, table) };
        if let Some(known) = copies {
            if computed.is_none() {
                queue.finish();
            }
            // All entries were read before the last tensor was fetched.
            known.layer.state.lock().cache.entries_mut().let_go();
        }
        computed?;
        let Some(known) = known else { return Some(()) };
        let [fetched, resident] = way.counts();
        known.cache.work.count(WorkCounts {
            large_blocks: 1,
            fetched,
            resident,
            ..WorkCounts::default()
        });
        let with_copies = self.ids.iter().filter(|id| way.has_copy(**id)).count();
        self.observe(&known, way.experts_per_token, with_copies);
        known
            .cache
            .upload_wanted(&known.layer, &mut known.layer.state.lock().cache);
        Some(())
    }

    /// The experts that were selected, and their weights.
    fn read_gathered(&mut self, queue: &mut Queue, way: &Way) -> Option<()> {
        let bytes = way.block.experts_per_token() * way.block.tokens() * 4;
        self.ids.clear();
        for id in queue.stage.bytes(way.layout.ids, bytes)?.as_chunks::<4>().0 {
            self.ids.push(u32::try_from(i32::from_ne_bytes(*id)).ok()?);
        }
        self.weights.clear();
        self.weights
            .extend(floats(queue.stage.bytes(way.layout.weights, bytes)?));
        Some(())
    }

    /// Acquires the entries that a hot half would need; false if there is none.
    fn acquire_chosen(&mut self, block: &Block, known: &Known, used: bool) -> bool {
        self.acquire(known, used);
        let any = used
            && self.stand_in(block, known)
            && self.entries.iter().any(Option::is_some)
            && self.hot.assign(&self.entries, block, &self.stand_ins, &known.copies);
        if !any {
            self.release(known);
            self.entries.fill(None);
        }
        any
    }

    /// Starts the hot half with the entries that were chosen for it.
    ///
    /// # Safety
    /// As [`Halves::go`], and the entries are acquired until the next block has waited.
    unsafe fn start_chosen(&mut self, queue: &mut Queue, way: &Way, done: &mut WorkCounts) -> Option<()> {
        let layout = &way.layout;
        let entries = queue.stage.bytes(layout.entries, self.entries.len() * 4)?;
        for (place, entry) in entries.as_chunks_mut::<4>().0.iter_mut().zip(self.hot.chosen()) {
            *place = entry.to_ne_bytes();
        }
        let mask = queue.stage.bytes(layout.mask, self.entries.len() * 4)?;
        for (place, entry) in mask.as_chunks_mut::<4>().0.iter_mut().zip(&self.entries) {
            *place = f32::from(u8::from(entry.is_some())).to_ne_bytes();
        }
        let drawing = match self.pairs.is_empty() {
            true => way.all.as_ref()?,
            false => way.some.as_ref()?,
        };
        let bytes = queue.stage.bytes(layout.entries, layout.to_gpu - layout.entries)?;
        let main = queue.main.as_ref()?;
        done.uploads += 1;
        // SAFETY: the bytes stay until the next block has waited; otherwise as the caller says.
        unsafe {
            main.write(way.given, 0, bytes)?;
            drawing.start(main, done)
        }
    }

    /// Computes the experts without a copy, and adds up what they come to, by token.
    ///
    /// # Safety
    /// As [`Halves::go`].
    unsafe fn compute_cold(&mut self, queue: &mut Queue, way: &Way) -> Option<()> {
        let layout = &way.layout;
        let width = way.tail.product.size(0) * 4;
        let input = queue.stage.bytes(layout.input, layout.gathered())?;
        // SAFETY: blocks are nodes of the graph that is being computed; the router selects experts that exist.
        let computed = unsafe { self.cold.compute(&way.block, &self.pairs, input)? };
        let sums = queue.stage.bytes(layout.rows, width * way.block.tokens())?;
        sums.fill(0);
        for (pair, computed) in self.pairs.iter().zip(computed.chunks_exact(width)) {
            let token = pair.row / way.block.experts_per_token().max(1);
            let sum = sums.get_mut(token * width..(token + 1) * width)?;
            add_weighted(sum, computed, *self.weights.get(pair.row)?);
        }
        Some(())
    }

    /// What the block still reads after this; all entries are held if a table was used.
    fn pend(&mut self, known: &Known, all: bool) -> Pending {
        let spare = known.copies.spare();
        let mut entries = std::mem::take(&mut self.pending_entries);
        entries.clear();
        if !all {
            entries.extend(self.entries.iter().flatten());
            entries.extend(self.stand_ins.iter().filter(|entry| !spare.contains(entry)));
        }
        self.stand_ins.clear();
        Pending {
            known: known.clone(),
            entries,
            all,
        }
    }

    /// The next graph goes another way.
    fn leave(&mut self, queue: &mut Queue) {
        queue.finish();
        self.release_pending(queue);
        (queue.before, queue.left) = (None, None);
    }

    /// Collects the experts without a copy; the input of each token is in its row of what came from the GPU.
    fn choose_cold(&mut self, block: &Block) -> Option<()> {
        self.pairs.clear();
        let (experts_per_token, row) = (block.experts_per_token().max(1), block.input.size(0) * 4);
        for (index, (entry, expert)) in self.entries.iter().zip(&self.ids).enumerate() {
            if entry.is_none() {
                self.pairs.push(Pair {
                    expert: i32::try_from(*expert).ok()?,
                    row: index,
                    input: index / experts_per_token * row,
                });
            }
        }
        Some(())
    }

    /// Nobody reads what the last block read: the queue was waited for. Uploads are chosen here, when entries can be had.
    fn release_pending(&mut self, queue: &mut Queue) {
        let Some(Pending { known, entries, all }) = queue.pending.take() else {
            return;
        };
        let mut state = known.layer.state.lock();
        if all {
            state.cache.entries_mut().let_go();
        }
        handover::release(&mut state.cache, entries.iter().copied());
        known.cache.upload_wanted(&known.layer, &mut state.cache);
        drop(state);
        self.pending_entries = entries;
    }
}

impl Drawn for Course {
    fn layer(&self) -> Option<&Known> {
        match self {
            Self::Divided(way) => Some(&way.known),
            Self::Streamed(way) => way.known.as_ref(),
        }
    }
}
