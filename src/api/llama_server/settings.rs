//! `generation_settings`: what a request asks for, with the defaults of the model filled in.

use serde::Serialize;

use super::fields::Fields;
use crate::engine::{SamplerKind, Sampling, Token};
use crate::generation::{Options, OutputFormat};

/// llama-server prints this where a seed is drawn.
const RANDOM_SEED: u32 = u32::MAX;

/// As `/completion` tells them, or, without [`Texts`], `/props` and `/slots`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Settings {
    seed: u32,
    temperature: f32,
    dynatemp_range: f32,
    dynatemp_exponent: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    top_n_sigma: f32,
    xtc_probability: f32,
    xtc_threshold: f32,
    typical_p: f32,
    repeat_last_n: i32,
    repeat_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    dry_multiplier: f32,
    dry_base: f32,
    dry_allowed_length: i32,
    dry_penalty_last_n: i32,
    mirostat: u32,
    mirostat_tau: f32,
    mirostat_eta: f32,
    max_tokens: i64,
    n_predict: i64,
    n_keep: i64,
    n_discard: i64,
    ignore_eos: bool,
    stream: bool,
    n_probs: u32,
    samplers: Vec<SamplerKind>,
    timings_per_token: bool,
    #[serde(flatten)]
    fixed: Fixed,
    #[serde(flatten)]
    texts: Option<Texts>,
}

/// What is always the same here.
#[derive(Debug, Clone, Serialize)]
struct Fixed {
    adaptive_target: f32,
    adaptive_decay: f32,
    min_keep: u32,
    chat_format: &'static str,
    reasoning_format: &'static str,
    reasoning_in_content: bool,
    generation_prompt: &'static str,
    #[serde(rename = "speculative.types")]
    speculative_types: &'static str,
    post_sampling_probs: bool,
    backend_sampling: bool,
    lora: [(); 0],
}

const FIXED: Fixed = Fixed {
    adaptive_target: -1.0,
    adaptive_decay: 0.9,
    min_keep: 0,
    chat_format: "Content-only",
    reasoning_format: "none",
    reasoning_in_content: false,
    generation_prompt: "",
    speculative_types: "none",
    post_sampling_probs: false,
    backend_sampling: false,
    lora: [],
};

/// What may be long.
#[derive(Debug, Clone, Serialize)]
struct Texts {
    dry_sequence_breakers: Vec<String>,
    stop: Vec<String>,
    logit_bias: Vec<Bias>,
    /// As it was given; empty for a schema.
    grammar: String,
    grammar_lazy: bool,
    grammar_triggers: [(); 0],
    preserved_tokens: [(); 0],
}

#[derive(Debug, Clone, Serialize)]
struct Bias {
    token: Token,
    /// Null bans the token.
    bias: Option<f32>,
}

impl Settings {
    /// Of a model without a request.
    pub(super) fn of_model(sampling: &Sampling, max_tokens: Option<u32>) -> Self {
        let most = max_tokens.map_or(-1, i64::from);
        Self {
            seed: sampling.seed.unwrap_or(RANDOM_SEED),
            temperature: sampling.temperature,
            dynatemp_range: sampling.dynatemp_range,
            dynatemp_exponent: sampling.dynatemp_exponent,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            top_n_sigma: sampling.top_n_sigma,
            xtc_probability: sampling.xtc_probability,
            xtc_threshold: sampling.xtc_threshold,
            typical_p: sampling.typical_p,
            repeat_last_n: sampling.repeat_last_n,
            repeat_penalty: sampling.repeat_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            dry_multiplier: sampling.dry.multiplier,
            dry_base: sampling.dry.base,
            dry_allowed_length: sampling.dry.allowed_length,
            dry_penalty_last_n: sampling.dry.penalty_last_n,
            mirostat: sampling.mirostat,
            mirostat_tau: sampling.mirostat_tau,
            mirostat_eta: sampling.mirostat_eta,
            max_tokens: most,
            n_predict: most,
            n_keep: 0,
            n_discard: 0,
            ignore_eos: false,
            stream: false,
            n_probs: 0,
            samplers: sampling.samplers.clone(),
            timings_per_token: false,
            fixed: FIXED,
            texts: None,
        }
    }

    /// Of a request.
    pub(super) fn of_request(sampling: &Sampling, options: &Options, fields: &Fields, stream: bool) -> Self {
        let most = fields
            .predict
            .or(options.sampling.max_tokens.map(i64::from))
            .unwrap_or(-1);
        let biases = sampling.logit_bias.iter();
        Self {
            max_tokens: most,
            n_predict: most,
            n_keep: fields.keep,
            n_discard: fields.discard,
            ignore_eos: options.ignore_eos,
            stream,
            n_probs: fields.probabilities,
            timings_per_token: fields.timings_per_token,
            texts: Some(Texts {
                dry_sequence_breakers: sampling.dry.sequence_breakers.clone(),
                stop: options.stop.clone(),
                logit_bias: biases
                    .map(|(token, bias)| Bias {
                        token: *token,
                        bias: bias.is_finite().then_some(*bias),
                    })
                    .collect(),
                grammar: match &options.format {
                    OutputFormat::Grammar(grammar) => grammar.clone(),
                    _ => String::new(),
                },
                grammar_lazy: false,
                grammar_triggers: [],
                preserved_tokens: [],
            }),
            ..Self::of_model(sampling, None)
        }
    }
}
