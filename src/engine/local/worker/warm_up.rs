//! Passes before the first request, so that it is as fast as the next ones.

use std::sync::Arc;

use llama_cpp_2::token::LlamaToken;

use super::Worker;
use crate::engine::local::error::ComputeError;
use crate::experts::{Device, ExpertCache, MAX_QUEUED_TOKENS};

impl Worker<'_> {
    /// Computes one token, so that lazily mapped weights and kernels are there for the first request; with copies of experts
    /// on a GPU also a prompt, so that the memory and the kernels for long ones are.
    pub(in crate::engine::local) fn warm_up(&mut self) -> Result<(), ComputeError> {
        let on_gpu = |cache: &Arc<ExpertCache>| matches!(cache.device(), Device::Gpu(_));
        let long = MAX_QUEUED_TOKENS + 1;
        let most = self
            .batch_tokens
            .min(usize::try_from(self.context_length).unwrap_or(usize::MAX));
        self.teaches(false);
        let mut done = self.warm_up_with(1);
        if self.experts.as_ref().is_some_and(on_gpu) && long <= most {
            done = done.and_then(|()| self.warm_up_with(long));
        }
        self.teaches(true);
        done
    }

    /// Whether the cache of experts learns from the passes that follow.
    pub(super) fn teaches(&self, does: bool) {
        if let Some(experts) = &self.experts {
            experts.rehearse(!does);
        }
    }

    /// Computes so many tokens of nothing.
    fn warm_up_with(&mut self, tokens: usize) -> Result<(), ComputeError> {
        let token = LlamaToken(self.end_tokens.first().copied().unwrap_or(0));
        self.batch.clear();
        for place in 0..tokens {
            let position = i32::try_from(place).map_err(|_| ComputeError::Batch)?;
            let added = self.batch.add(token, position, &[0], place + 1 == tokens);
            added.map_err(|_| ComputeError::Batch)?;
        }
        let result = self.decode();
        self.context.synchronize();
        self.context.clear_kv_cache();
        result
    }
}
