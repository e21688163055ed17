//! What is asked of a plan, as far as the GPUs can compute it.

use super::error::ModelError;
use super::file::Prepared;
use crate::gguf::TensorType;
use crate::host::{Gpu, Machine};
use crate::llama::attention::{self, Heads};
use crate::memory::{KvType, KvTypes};
use crate::plan::{LayerShape, ModelRequest};

/// What a plan takes instead of F16 where that is left to it.
const QUANTISED: KvTypes = KvTypes::both(KvType::Q8_0);

/// What is asked for these models on this machine. Quantised keys and values need flash attention: where the GPU has none for
/// them, none are chosen.
///
/// # Errors
/// [`ModelError::Attention`] where they are configured.
pub fn requests(models: &[Prepared<'_>], machine: &Machine) -> Result<Vec<ModelRequest>, ModelError> {
    models.iter().map(|model| request(&model.request, machine)).collect()
}

fn request(request: &ModelRequest, machine: &Machine) -> Result<ModelRequest, ModelError> {
    let mut request = request.clone();
    let Some(heads) = heads(&request) else {
        return Ok(request);
    };
    let gpu = machine.gpu().filter(|_| request.gpu_layers != Some(0));
    if let Some(gpu) = gpu.map(|gpu| &machine.devices[gpu]) {
        let kinds = request.context.kv_type;
        if kinds != KvTypes::default() && !computes(gpu, heads, kinds) {
            return Err(ModelError::Attention {
                model: request.name,
                kv_type: kinds,
                gpu: gpu.name.clone(),
                length: heads.key_length,
            });
        }
        request.choices.kv_type &= computes(gpu, heads, QUANTISED);
    }
    Ok(request)
}

/// The attention of the model's layers.
fn heads(request: &ModelRequest) -> Option<Heads> {
    let shape = &request.shape;
    let attends = |layer: &&LayerShape| layer.keys > 0;
    let layer = shape.layers.iter().find(attends)?;
    Some(Heads {
        queries: layer.queries.checked_div(shape.key_length)?,
        keys: layer.keys.checked_div(shape.key_length)?,
        key_length: shape.key_length,
        value_length: shape.value_length,
    })
}

/// Of a GPU that is only described nothing is known, and the plan complains of heads without whole blocks.
fn computes(gpu: &Gpu, heads: Heads, kinds: KvTypes) -> bool {
    let kind = |kind: KvType, length: u64| {
        let kind = TensorType::from_name(kind.name())?;
        length.is_multiple_of(kind.block).then_some(kind.id)
    };
    match (
        gpu.id,
        kind(kinds.keys, heads.key_length),
        kind(kinds.values, heads.value_length),
    ) {
        (Some(id), Some(keys), Some(values)) => attention::supported(id.ggml_index(), heads, [keys, values]),
        _ => true,
    }
}
