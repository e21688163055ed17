//! The floor that the engine is measured against: `llama_decode` in a loop, with nothing around it.

use std::time::{Duration, Instant};

use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;

use super::load::{LoadSpec, new_context};
use super::sampler::argmax;
use crate::llama::log::Listener;

/// Computes `prompt` (at most one batch) and then `steps` greedy tokens, one by one; returns the time of the steps.
///
/// A context of its own is created as the engine's is, so that both compute the same graphs.
pub(super) fn decode(spec: &LoadSpec, model: &LlamaModel, prompt: &[i32], steps: u32) -> anyhow::Result<Duration> {
    let mut context = new_context(spec, model, &Listener::start())?;
    let mut batch = LlamaBatch::new(spec.batch as usize, 1);
    let mut position = 0;
    for token in prompt {
        let last = position + 1 == i32::try_from(prompt.len()).unwrap_or(i32::MAX);
        batch.add(LlamaToken(*token), position, &[0], last)?;
        position += 1;
    }
    context.decode(&mut batch)?;
    let mut token = argmax(context.get_logits_ith(position - 1));
    let started = Instant::now();
    for _ in 0..steps {
        batch.clear();
        batch.add(LlamaToken(token), position, &[0], true)?;
        context.decode(&mut batch)?;
        token = argmax(context.get_logits_ith(0));
        position += 1;
    }
    Ok(started.elapsed())
}
