//! What is put through the models, batch by batch.

use std::path::Path;
use std::sync::Arc;

use hearth::experts::policy::LayerCounts;
use hearth::experts::{Device, ExpertCache, MAX_BLOCK_TOKENS, MAX_QUEUED_TOKENS};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;

use super::cached::{Experts, cache_device, llama, load};

/// By step and token; none of steps that want none.
pub type Logits = Vec<Vec<Vec<f32>>>;

/// Tokens of one sequence in a batch.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    pub sequence: i32,
    pub tokens: usize,
}

/// One call of `llama_decode`.
#[derive(Debug, Clone)]
pub struct Step {
    pub parts: Vec<Part>,
    pub prompt: bool,
    /// No logits are wanted: the last layer is then computed for no token.
    pub silent: bool,
}

pub fn step(sequence: i32, tokens: usize) -> Step {
    Step {
        parts: vec![Part { sequence, tokens }],
        prompt: tokens > MAX_BLOCK_TOKENS,
        silent: false,
    }
}

/// Part of a prompt of which more follows.
fn silent(tokens: usize) -> Step {
    Step {
        silent: true,
        ..step(0, tokens)
    }
}

/// Tokens of prompts, more than are divided in main memory. On a GPU those of the first are divided, and of the second it
/// computes all.
pub fn prompts() -> &'static [usize] {
    match cache_device() {
        Device::Cpu => &[20],
        Device::Gpu(_) => &[20, MAX_QUEUED_TOKENS + 22],
    }
}

/// Prompts, single tokens, and as many as speculation or many streams have: beyond 8, CUDA takes other kernels, which rely on
/// the experts of a token being different. Then prompts in several parts.
pub fn one_sequence() -> Vec<Step> {
    let (first, others) = prompts().split_first().expect("a prompt");
    let sizes = [*first].into_iter().chain([1; 24]).chain([2, 8, 9, 12, 16, 1, 16, 1]);
    let sizes = sizes.chain(others.iter().flat_map(|tokens| [*tokens, 1]));
    let parts = prompts().iter().chain(&[1]);
    let parts = parts.flat_map(|tokens| [silent(*tokens), step(0, 1)]);
    sizes.map(|tokens| step(0, tokens)).chain(parts).collect()
}

/// Eight sequences that are decoded at once, each behind a prompt of its own.
pub fn eight_sequences(steps: usize) -> Vec<Step> {
    let prompts = (0..8).map(|sequence| step(sequence, 17 + sequence as usize));
    let together = Step {
        parts: (0..8).map(|sequence| Part { sequence, tokens: 1 }).collect(),
        prompt: false,
        silent: false,
    };
    prompts.chain(std::iter::repeat_n(together, steps)).collect()
}

/// Computes the steps; the logits of every token, step by step. `between` is called after each step.
pub fn compute(
    model: &LlamaModel,
    cache: Option<&ExpertCache>,
    steps: &[Step],
    mut between: impl FnMut(usize),
) -> Logits {
    let params = LlamaContextParams::default()
        .with_n_ctx(std::num::NonZeroU32::new(1024))
        .with_n_seq_max(8)
        .with_kv_unified(true)
        .with_n_threads(2)
        .with_n_threads_batch(2);
    let mut context: LlamaContext<'_> = model.new_context(llama(), params).unwrap();
    let mut batch = LlamaBatch::new(256, 8);
    let mut positions = [0; 8];
    let mut all = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        batch.clear();
        for part in &step.parts {
            let position = &mut positions[part.sequence as usize];
            for _ in 0..part.tokens {
                let token = LlamaToken(65 + (*position * 7 + part.sequence * 5) % 60);
                batch.add(token, *position, &[part.sequence], !step.silent).unwrap();
                *position += 1;
            }
        }
        let tokens = batch.n_tokens();
        if let Some(cache) = cache {
            cache.begin(if step.prompt { 0 } else { tokens as usize });
        }
        context.decode(&mut batch).unwrap();
        let wanted = if step.silent { 0 } else { tokens };
        all.push(
            (0..wanted)
                .map(|token| context.get_logits_ith(token).to_vec())
                .collect(),
        );
        if let Some(cache) = cache
            && step.prompt
        {
            cache.prompt_ended();
        }
        between(number);
    }
    all
}

/// Logits without a cache.
pub fn plain(path: &Path, experts: Experts<'_>, steps: &[Step]) -> Logits {
    compute(&load(path, experts), None, steps, |_| ())
}

/// Logits, and what the cache did.
pub fn run(path: &Path, cache: Option<Arc<ExpertCache>>, steps: &[Step]) -> (Logits, LayerCounts) {
    let model = load(path, cache.as_ref());
    let settle = |_| {
        if let Some(cache) = &cache {
            cache.settle();
        }
    };
    let logits = compute(&model, cache.as_deref(), steps, settle);
    // The counts go with the model.
    (logits, cache.map(|cache| cache.stats().total()).unwrap_or_default())
}
