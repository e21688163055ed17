//! The cases of a benchmark: combinations of prompt length, generated tokens and streams.

use std::fmt;

use anyhow::bail;
use serde::Serialize;

use crate::config::ModelConfig;
use crate::engine::ModelInfo;

/// One combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Case {
    pub(super) prompt_tokens: u32,
    pub(super) generate: u32,
    pub(super) concurrency: u32,
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            prompt_tokens,
            generate,
            concurrency,
        } = self;
        let streams = if *concurrency == 1 { "stream" } else { "streams" };
        write!(out, "{prompt_tokens} + {generate} tokens in {concurrency} {streams}")
    }
}

/// Every combination once, in the order of the lists.
pub(super) fn combine(prompt_tokens: &[u32], generate: &[u32], concurrency: &[u32]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &prompt_tokens in prompt_tokens {
        for &generate in generate {
            for &concurrency in concurrency {
                let case = Case {
                    prompt_tokens,
                    generate,
                    concurrency,
                };
                if !cases.contains(&case) {
                    cases.push(case);
                }
            }
        }
    }
    cases
}

/// Checks that the configured model has the context and the slots for all cases.
pub(super) fn check(cases: &[Case], info: &ModelInfo) -> anyhow::Result<()> {
    for case in cases {
        let needed = u64::from(case.prompt_tokens) + u64::from(case.generate);
        if needed > u64::from(info.context) {
            bail!(
                "--prompt-tokens {} and --generate {} need a context of {needed} tokens, but that of model `{}` holds {}; \
                 raise --context (or `context` of the model in models.toml), or measure less",
                case.prompt_tokens,
                case.generate,
                info.name,
                info.context
            );
        }
        if case.concurrency > info.parallel {
            bail!(
                "--concurrency {} needs as many slots, but model `{}` has {}; raise --parallel (or `parallel` of the \
                 model in models.toml), or measure fewer streams",
                case.concurrency,
                info.name,
                info.parallel
            );
        }
    }
    Ok(())
}

/// Gives a model the context and the slots that the cases need, where it is left to hearth how much that is.
pub(super) fn fit(cases: &[Case], model: &mut ModelConfig) {
    let tokens = cases
        .iter()
        .map(|case| case.prompt_tokens.saturating_add(case.generate));
    let tokens = tokens.max().map(|tokens| tokens.next_multiple_of(256));
    let streams = cases.iter().map(|case| case.concurrency).max();
    model.context = model.context.or(tokens);
    model.parallel = model.parallel.or(streams);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_combination_comes_once() {
        let cases = combine(&[16, 32], &[8], &[1, 2, 1]);
        let texts: Vec<String> = cases.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "16 + 8 tokens in 1 stream",
                "16 + 8 tokens in 2 streams",
                "32 + 8 tokens in 1 stream",
                "32 + 8 tokens in 2 streams"
            ]
        );
    }
}
