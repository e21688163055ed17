//! What a model takes where, once it is decided how it is laid out.

use std::collections::BTreeMap;

use super::memory::{BATCH, Context};
use super::outcome::Experts;
use super::request::{Embeddings, ModelRequest};
use super::shape::{Component, LayerShape, ModelShape};
use crate::experts::selection::{MAX_QUEUED_TOKENS, allocated_entries};
use crate::memory::{Kind, KvTypes, Row, Tier};

/// How a model is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Layers on the GPU, as llama.cpp counts them.
    pub gpu_layers: u32,
    pub experts: Experts,
}

/// All layers of a model, as llama.cpp counts them: prediction blocks and the output are layers too.
pub(super) fn all_layers(shape: &ModelShape) -> u32 {
    let trunk = u32::try_from(shape.layers.len()).unwrap_or(u32::MAX - 1024);
    trunk + shape.mtp_layers + 1
}

impl Layout {
    /// Whether the layer with this number is on the GPU: the last ones are.
    fn has(&self, shape: &ModelShape, layer: usize) -> bool {
        layer >= (all_layers(shape) - self.gpu_layers.min(all_layers(shape))) as usize
    }

    /// Where a layer is.
    pub fn tier(&self, shape: &ModelShape, layer: usize) -> Tier {
        if self.has(shape, layer) { Tier::Gpu } else { Tier::Ram }
    }

    /// Where the output is.
    pub fn output(&self) -> Tier {
        if self.gpu_layers > 0 { Tier::Gpu } else { Tier::Ram }
    }

    /// Where the experts of a layer are, beside copies.
    pub fn experts(&self, shape: &ModelShape, layer: usize) -> Tier {
        match self.experts {
            Experts::Ram | Experts::Cache { .. } => Tier::Ram,
            Experts::None | Experts::Layers => self.tier(shape, layer),
        }
    }
}

/// What all models of a machine have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host {
    /// There is a GPU; it computes long prompts whatever lies where.
    pub gpu: bool,
    /// Files are mapped, with the prediction blocks in them.
    pub mapped: bool,
}

/// The rows of a model with these contexts.
pub(super) fn rows(request: &ModelRequest, layout: Layout, host: Host) -> Vec<Row> {
    let (shape, contexts) = (&request.shape, &request.contexts());
    let mut weights: BTreeMap<(Component, Tier), u64> = BTreeMap::new();
    let mut memory: BTreeMap<(Kind, Tier), u64> = BTreeMap::new();
    for (number, layer) in shape.layers.iter().enumerate() {
        let tier = layout.tier(shape, number);
        for (component, bytes) in &layer.weights {
            let tier = match component {
                Component::RoutedExperts => layout.experts(shape, number),
                _ => tier,
            };
            *weights.entry((*component, tier)).or_default() += bytes;
        }
        for context in contexts {
            *memory.entry((Kind::Kv, tier)).or_default() += context.kv(layer);
            *memory.entry((Kind::Recurrent, tier)).or_default() += context.state(shape, layer);
        }
    }
    outer(request, layout, host, &mut weights);
    if let Experts::Cache { device, capacity, .. } = layout.experts {
        let entries = allocated_entries(capacity as usize, shape.experts_per_token as usize);
        memory.insert((Kind::ExpertCache, device), request.cache_entry() * entries as u64);
    }
    for context in contexts {
        for (tier, bytes) in buffers(shape, *context, layout, host.gpu) {
            *memory.entry((Kind::Compute, tier)).or_default() += bytes;
        }
    }
    let weights = weights.into_iter().map(|((component, tier), bytes)| Row {
        component: component.name(),
        kind: match component {
            Component::RoutedExperts => Kind::Experts,
            _ => Kind::Weights,
        },
        tier,
        bytes,
    });
    let memory = memory.into_iter().map(|((kind, tier), bytes)| Row {
        component: kind.name(),
        kind,
        tier,
        bytes,
    });
    weights.chain(memory).filter(|row| row.bytes > 0).collect()
}

/// The component of rows for drafts.
pub const DRAFTS: &str = "drafts";

/// Tokens of a pass of the head at most. Beside `copies` of experts on a GPU they are so few that it needs no memory there to
/// put experts together.
#[must_use]
pub fn head_batch(copies: bool) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
    let few = MAX_QUEUED_TOKENS as u32;
    if copies { few } else { BATCH }
}

/// The rows of a head that makes drafts, in a context of its own: it lies where a layer behind the last would.
pub(super) fn of_head(request: &ModelRequest, head: &LayerShape, layout: Layout) -> Vec<Row> {
    let shape = &request.shape;
    let copies = matches!(layout.experts, Experts::Cache { device: Tier::Gpu, .. });
    let context = Context {
        batch: request.context.batch.min(head_batch(copies)),
        ..request.context
    };
    // Experts are computed for the tokens that are guessed from, one in each stream.
    let guessing = Context {
        batch: context.parallel,
        ..context
    };
    let buffers = context.compute_alone(shape, head) + if copies { guessing.apart(shape) } else { 0 };
    let number = shape.layers.len();
    let (tier, experts, output) = (
        layout.tier(shape, number),
        layout.experts(shape, number),
        layout.output(),
    );
    // On a GPU the inputs have a buffer in main memory: a state of the trunk and the embedding of a token.
    let inputs = match output {
        Tier::Gpu => context.inputs(shape, 2),
        Tier::Ram => 0,
    };
    let of_experts = head.experts();
    let weights = [
        (Kind::Weights, tier, head.bytes() - of_experts),
        (Kind::Experts, experts, of_experts),
    ];
    let weights = weights.map(|(kind, tier, bytes)| Row {
        component: Component::Mtp.name(),
        kind,
        tier,
        bytes,
    });
    let memory = [
        (Kind::Kv, tier, context.kv(head)),
        (Kind::Compute, output, buffers),
        (Kind::Compute, Tier::Ram, context.logits(shape) + inputs),
    ];
    let memory = memory.into_iter().map(|(kind, tier, bytes)| Row {
        component: DRAFTS,
        kind,
        tier,
        bytes,
    });
    weights.into_iter().chain(memory).filter(|row| row.bytes > 0).collect()
}

/// The rows of a small model that makes drafts, in a context of its own: all of it lies where the output is.
pub(super) fn of_draft_model(request: &ModelRequest, small: &ModelShape, layout: Layout, host: Host) -> Vec<Row> {
    let on_gpu = layout.output() == Tier::Gpu;
    let small = ModelRequest {
        shape: small.clone(),
        context: Context {
            kv_type: KvTypes::default(),
            batch: request.context.batch.min(BATCH),
            guesses: BATCH,
            ..request.context
        },
        embeddings: Embeddings::None,
        draft_model: None,
        head: false,
        ..request.clone()
    };
    let layout = Layout {
        gpu_layers: if on_gpu { all_layers(&small.shape) } else { 0 },
        experts: Experts::Layers,
    };
    let mut rows = rows(&small, layout, host);
    for row in &mut rows {
        row.component = DRAFTS;
    }
    rows
}

/// Weights outside of the layers. The embeddings stay in main memory, where llama.cpp looks tokens up.
fn outer(request: &ModelRequest, layout: Layout, host: Host, weights: &mut BTreeMap<(Component, Tier), u64>) {
    let shape = &request.shape;
    for (component, bytes) in &shape.outer {
        let (component, tier) = match component {
            // Placed as a layer.
            Component::Mtp if request.head().is_some() => continue,
            // Left in the file.
            Component::Mtp if !host.mapped => continue,
            Component::Mtp | Component::Embeddings => (*component, Tier::Ram),
            Component::Other => (Component::Norms, layout.output()),
            _ => (*component, layout.output()),
        };
        *weights.entry((component, tier)).or_default() += bytes;
    }
    if shape.tied && layout.output() == Tier::Gpu {
        *weights.entry((Component::Output, Tier::Gpu)).or_default() += shape.embeddings();
    }
}

/// The buffers of the largest graph on each tier, and the logits that are handed out.
fn buffers(shape: &ModelShape, context: Context, layout: Layout, gpu: bool) -> [(Tier, u64); 2] {
    let logits = context.logits(shape);
    if !gpu {
        // The backend that caches experts computes their blocks in a buffer of its own.
        let blocks = match layout.experts {
            Experts::Cache { .. } => context.blocks(shape),
            _ => 0,
        };
        return [
            (Tier::Gpu, 0),
            (
                Tier::Ram,
                logits + context.compute(shape, &shape.layers, true, 0) + blocks,
            ),
        ];
    }
    let on = |wanted: Tier| {
        let layers = shape.layers.iter().enumerate();
        layers.filter(move |(number, _)| layout.tier(shape, *number) == wanted)
    };
    // Of a long prompt the GPU computes all, and fetches what lies in main memory tensor by tensor.
    let copied = |(number, layer): (usize, &LayerShape)| match layout.tier(shape, number) {
        Tier::Ram => layer.largest,
        Tier::Gpu if layout.experts(shape, number) == Tier::Ram => layer.largest_experts,
        Tier::Gpu => 0,
    };
    let copied = shape.layers.iter().enumerate().map(copied).max().unwrap_or(0);
    let output = layout.output() == Tier::Gpu;
    let device = match layout.experts {
        Experts::Cache { device: Tier::Gpu, .. } => context.compute_with_copies(shape),
        _ => context.compute_on_gpu(shape, output, copied),
    };
    let host = if output {
        // Embeddings that may be given, those that are looked up, and what becomes of them on the way: four rows per token,
        // whatever the architecture (llama.cpp's own report, Vulkan).
        context.inputs(shape, 4)
    } else {
        context.compute(shape, on(Tier::Ram).map(|(_, layer)| layer), true, 0)
    };
    [(Tier::Gpu, device), (Tier::Ram, logits + host)]
}
