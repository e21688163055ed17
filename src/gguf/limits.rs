//! What llama.cpp asserts of a model's numbers: where it does not hold, llama.cpp aborts the process or computes without end.
//!
//! Sources: `load_hparams` in `src/llama-model.cpp`, the graphs in `src/models/*.cpp`, and ggml's operations
//! (`ggml/src/ggml-cpu/ops.cpp`).

use super::keys::Keys;
use super::{GgufError, SsmGeometry, Value, ValueType};

/// Larger numbers than any model's; arithmetic on them stays far from overflow.
pub(super) const MAX_SIZE: u32 = 1 << 30;
/// llama.cpp aborts above these (`src/llama-hparams.h`).
pub const MAX_LAYERS: u32 = 512;
pub const MAX_EXPERTS: u32 = 1024;
/// The last of `llama_expert_gating_func_type`; llama.cpp aborts on others.
const MAX_GATING_FUNCTION: u32 = 4;
/// The kinds of rope scaling that llama.cpp knows; it aborts on others.
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];

/// What the graph of an architecture asserts. For all of them keys and values are of one length, and some elements of a head
/// are rotated.
struct Graph {
    architecture: &'static str,
    /// All elements of a head are rotated.
    rotates_whole_heads: bool,
    /// Recurrent layers are Gated DeltaNets, whose value heads are as long as key heads.
    delta_net: bool,
}

const fn graph(architecture: &'static str, rotates_whole_heads: bool, delta_net: bool) -> Graph {
    Graph {
        architecture,
        rotates_whole_heads,
        delta_net,
    }
}

/// Architectures whose graphs were read. Others are held to what is true of all.
const GRAPHS: [Graph; 16] = [
    graph("deepseek", true, false),
    graph("dots1", true, false),
    graph("ernie4_5-moe", true, false),
    graph("glm4moe", false, false),
    graph("gpt-oss", true, false),
    graph("llama", true, false),
    graph("llama4", true, false),
    graph("mistral3", true, false),
    graph("olmoe", true, false),
    graph("qwen2", true, false),
    graph("qwen2moe", true, false),
    graph("qwen3", true, false),
    graph("qwen35", false, true),
    graph("qwen35moe", false, true),
    graph("qwen3moe", true, false),
    graph("qwen3next", false, true),
];

fn graph_of(architecture: &str) -> Option<&'static Graph> {
    GRAPHS.iter().find(|graph| graph.architecture == architecture)
}

/// Elements of a head: of a key, of a value, and those of a key that are rotated (0 where the file does not say).
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) key: u32,
    pub(super) value: u32,
    pub(super) rope: u32,
}

/// A value for each block, where the file has an array of them.
pub(super) fn check_lengths(keys: &Keys<'_>, blocks: u32) -> Result<(), GgufError> {
    for name in [
        "attention.head_count",
        "attention.head_count_kv",
        "feed_forward_length",
        "expert_feed_forward_length",
        "expert_used_count",
    ] {
        if let Some(Value::Array(array)) = keys.gguf.get(&keys.key(name))
            && array.len != blocks as usize
        {
            let problem = format!("has {} entries, but the model has {blocks} blocks", array.len);
            return Err(keys.fault(name, &problem));
        }
    }
    Ok(())
}

/// Numbers that must be above zero where the file has them: llama.cpp divides by them or takes their logarithm.
const POSITIVE: [&str; 2] = ["rope.freq_base", "rope.freq_base_swa"];
/// Numbers that must not be negative where the file has them. ggml's norms assert it of their epsilon.
const NOT_NEGATIVE: [&str; 6] = [
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "attention.group_norm_epsilon",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
];

/// Every number with decimals is one: what is computed with NaN or infinity is no answer.
pub(super) fn check_finite(keys: &Keys<'_>) -> Result<(), GgufError> {
    let prefix = keys.key("");
    for (key, value) in keys.gguf.metadata() {
        let Some(name) = key.strip_prefix(prefix.as_str()) else {
            continue;
        };
        let finite = match &value {
            Value::Float(number) => number.is_finite(),
            Value::Array(array) if matches!(array.element, ValueType::F32 | ValueType::F64) => {
                array.iter().all(|number| number.as_f64().is_some_and(f64::is_finite))
            }
            _ => true,
        };
        if !finite {
            let problem = match value {
                Value::Float(number) => format!("is {number}, which is no number to compute with"),
                _ => "holds NaN or infinity, which are no numbers to compute with".to_owned(),
            };
            return Err(keys.fault(name, &problem));
        }
    }
    let number = |name: &str| keys.gguf.get(&keys.key(name)).and_then(|value| value.as_f64());
    for name in POSITIVE {
        if let Some(number) = number(name).filter(|number| *number <= 0.0) {
            return Err(keys.fault(name, &format!("is {}, but must be above 0", short(number))));
        }
    }
    for name in NOT_NEGATIVE {
        if let Some(number) = number(name).filter(|number| *number < 0.0) {
            return Err(keys.fault(name, &format!("is {}, but must not be negative", short(number))));
        }
    }
    Ok(())
}

/// Nearly all are 32-bit numbers, and read best as such.
#[expect(clippy::cast_possible_truncation, reason = "for messages")]
fn short(number: f64) -> f32 {
    number as f32
}

/// In each block the query heads are shared out evenly over the key-value heads.
pub(super) fn check_heads(keys: &Keys<'_>, blocks: u32) -> Result<(), GgufError> {
    let name = "attention.head_count_kv";
    let heads = keys.gguf.get(&keys.key("attention.head_count"));
    let (Some(heads), Some(kv_heads)) = (heads, keys.gguf.get(&keys.key(name))) else {
        return Ok(());
    };
    let each = |value: Value<'_>| -> Vec<u64> {
        match value {
            Value::Array(array) => array.iter().filter_map(|value| value.as_u64()).collect(),
            value => vec![value.as_u64().unwrap_or(0); blocks as usize],
        }
    };
    for (block, (heads, kv_heads)) in each(heads).into_iter().zip(each(kv_heads)).enumerate() {
        // Blocks without attention have zeros.
        if heads > 0 && kv_heads > 0 && !heads.is_multiple_of(kv_heads) {
            let problem = format!("is {kv_heads} in block {block}, which does not divide its {heads} heads");
            return Err(keys.fault(name, &problem));
        }
    }
    Ok(())
}

/// Lengths of heads, and how many of their elements are rotated.
pub(super) fn check_rope(keys: &Keys<'_>, heads: Heads) -> Result<(), GgufError> {
    let name = "rope.dimension_count";
    let Heads { key, value, rope } = heads;
    let graph = graph_of(keys.prefix);
    let told = keys.gguf.get(&keys.key(name)).is_some();
    if !rope.is_multiple_of(2) {
        return Err(keys.fault(name, &format!("is {rope}, not an even number")));
    }
    if told && rope == 0 && graph.is_some() {
        return Err(keys.fault(name, "is 0, but some elements of a head must be rotated"));
    }
    if key > 0 && rope > key {
        return Err(keys.fault(name, &format!("is {rope}, more than the {key} elements of a head")));
    }
    if told && rope != key && graph.is_some_and(|graph| graph.rotates_whole_heads) {
        let problem = format!("is {rope}, but {} rotates all {key} elements of a head", keys.prefix);
        return Err(keys.fault(name, &problem));
    }
    if key != value && graph.is_some() {
        let problem = format!(
            "is {value}, but keys have {key} elements, and the values of {} as many",
            keys.prefix
        );
        return Err(keys.fault("attention.value_length", &problem));
    }
    let name = "rope.dimension_sections";
    if let Some(Value::Array(sections)) = keys.gguf.get(&keys.key(name))
        && sections.iter().take(3).all(|section| section.as_u64() == Some(0))
    {
        return Err(keys.fault(
            name,
            "is all zeros, but the elements of a head are shared out over its sections",
        ));
    }
    let name = "rope.scaling.type";
    match keys.gguf.get(&keys.key(name)) {
        Some(Value::String(kind)) if !ROPE_SCALINGS.contains(&kind) => {
            let problem = format!("is `{kind}`, but llama.cpp knows only {}", ROPE_SCALINGS.join(", "));
            Err(keys.fault(name, &problem))
        }
        _ => Ok(()),
    }
}

/// Architectures whose layers have a window even where the file's is 0: nothing would be seen.
const WINDOWED: [&str; 1] = ["gpt-oss"];

/// The sliding window, in tokens; `None` for none.
pub(super) fn window(keys: &Keys<'_>) -> Result<Option<u32>, GgufError> {
    let name = "attention.sliding_window";
    match keys.number(name, MAX_SIZE)? {
        0 if WINDOWED.contains(&keys.prefix) && keys.gguf.get(&keys.key(name)).is_some() => {
            Err(keys.fault(name, "is 0, but every token must see at least itself"))
        }
        0 => Ok(None),
        window => Ok(Some(window)),
    }
}

/// Experts, and those of them that compute a token, with what llama.cpp asserts of them and their groups.
pub(super) fn experts(keys: &Keys<'_>) -> Result<(u32, u32), GgufError> {
    let experts = keys.number("expert_count", MAX_EXPERTS)?;
    let used = keys.number("expert_used_count", MAX_SIZE)?;
    if used > experts || (experts > 0 && used == 0) {
        let problem = format!("is {used}, but the model has {experts} experts");
        return Err(keys.fault("expert_used_count", &problem));
    }
    let groups = keys.number("expert_group_count", MAX_SIZE)?;
    let even = groups <= 1 || experts.is_multiple_of(groups);
    if groups > 0 && (groups >= experts || !even) {
        let problem = format!("is {groups}, which does not divide {experts} experts into groups");
        return Err(keys.fault("expert_group_count", &problem));
    }
    let used_groups = keys.number("expert_group_used_count", MAX_SIZE)?;
    if groups > 1 && (used_groups == 0 || used_groups >= groups) {
        let problem = format!("is {used_groups}, but the experts have {groups} groups");
        return Err(keys.fault("expert_group_used_count", &problem));
    }
    keys.number("expert_gating_func", MAX_GATING_FUNCTION)?;
    Ok((experts, used))
}

/// Heads of the recurrent state divide evenly. A file without groups (Mamba) has no heads.
pub(super) fn check_state(keys: &Keys<'_>, ssm: SsmGeometry) -> Result<(), GgufError> {
    let delta_net = graph_of(keys.prefix).is_some_and(|graph| graph.delta_net);
    let parts = [
        ("ssm.conv_kernel", ssm.conv_kernel),
        ("ssm.state_size", ssm.state_size),
        ("ssm.time_step_rank", ssm.time_step_rank),
        ("ssm.group_count", ssm.group_count),
        ("ssm.inner_size", ssm.inner_size),
    ];
    if delta_net
        && let Some((name, _)) = parts
            .iter()
            .find(|(name, size)| *size == 0 && keys.gguf.get(&keys.key(name)).is_some())
    {
        return Err(keys.fault(name, "is 0, but the model has recurrent layers"));
    }
    if ssm.group_count == 0 {
        return Ok(());
    }
    if !ssm.time_step_rank.is_multiple_of(ssm.group_count) {
        let problem = format!(
            "is {}, which {} groups do not divide",
            ssm.time_step_rank, ssm.group_count
        );
        return Err(keys.fault("ssm.time_step_rank", &problem));
    }
    if ssm.time_step_rank > 0 && !ssm.inner_size.is_multiple_of(ssm.time_step_rank) {
        let problem = format!(
            "is {}, which {} heads do not divide",
            ssm.inner_size, ssm.time_step_rank
        );
        return Err(keys.fault("ssm.inner_size", &problem));
    }
    let heads = u64::from(ssm.time_step_rank) * u64::from(ssm.state_size);
    if delta_net && u64::from(ssm.inner_size) != heads {
        let problem = format!(
            "is {}, but {} value heads of {} elements have {heads}",
            ssm.inner_size, ssm.time_step_rank, ssm.state_size
        );
        return Err(keys.fault("ssm.inner_size", &problem));
    }
    Ok(())
}

/// Every so many layers have attention: llama.cpp divides by it.
pub(super) fn interval(keys: &Keys<'_>) -> Result<Option<u32>, GgufError> {
    let name = "full_attention_interval";
    match keys.gguf.get(&keys.key(name)) {
        None => Ok(None),
        Some(_) => keys.required(name, MAX_LAYERS).map(Some),
    }
}
