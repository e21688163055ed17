//! llama.cpp's sampling chain for one request.

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;
use llama_cpp_2::token::logit_bias::LlamaLogitBias;

use super::error::ComputeError;
use super::thinking::Thinking;
use crate::engine::{SamplerKind, Sampling, Token};
use crate::grammar::Matcher;

/// Chooses the tokens of one request.
#[derive(Debug)]
pub(super) struct Sampler {
    choice: Choice,
    grammar: Option<Matcher>,
    thinking: Option<Thinking>,
    /// End tokens that may be chosen.
    ends: Vec<Token>,
    /// Memory for the tokens that are chosen from.
    candidates: Vec<LlamaTokenData>,
}

/// How a token is chosen from candidates.
#[derive(Debug)]
pub(super) enum Choice {
    /// The likeliest token, with nothing to look back upon: a plain maximum is faster than a chain over candidates.
    Greedy,
    Chain {
        chain: LlamaSampler,
        /// How many of the last prompt tokens the penalties want to see.
        look_back: usize,
    },
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampled {
    Token(Token),
    /// The grammar is complete, and no token may end the text.
    End,
}

/// Tokens by which the first version of Mirostat estimates how steep the distribution is: as in its paper.
const MIROSTAT_TOKENS: i32 = 100;

/// Tokens that are tried, one by one, in place of one that would make a trigger and go wrong right behind it.
const MAX_TRIES: usize = 16;

impl Choice {
    /// Builds the chain. `banned` tokens are never chosen; `context` bounds what the penalties look back upon.
    pub(super) fn new(sampling: &Sampling, banned: &[Token], model: &LlamaModel, context: u32) -> Self {
        let vocabulary = model.n_vocab();
        let context = i32::try_from(context).unwrap_or(i32::MAX);
        // llama.cpp's samplers allocate what they look back upon, and know no -1.
        let bounded = |last_n: i32| if last_n < 0 { context } else { last_n.min(context) };
        let mut samplers = Vec::new();
        let mut look_back = 0;

        if !sampling.logit_bias.is_empty() || !banned.is_empty() {
            let banned = banned.iter().map(|token| (*token, f32::NEG_INFINITY));
            let biases: Vec<LlamaLogitBias> = sampling
                .logit_bias
                .iter()
                .copied()
                .chain(banned)
                .map(|(token, bias)| LlamaLogitBias::new(LlamaToken(token), bias))
                .collect();
            samplers.push(LlamaSampler::logit_bias(vocabulary, &biases));
        }
        let seed = sampling.seed.unwrap_or_else(fresh_seed);
        if sampling.mirostat > 0 && sampling.temperature > 0.0 {
            // In the place of all others, as in llama.cpp.
            samplers.push(LlamaSampler::temp(sampling.temperature));
            let (tau, eta) = (sampling.mirostat_tau, sampling.mirostat_eta);
            samplers.push(match sampling.mirostat {
                1 => LlamaSampler::mirostat(vocabulary, seed, tau, eta, MIROSTAT_TOKENS),
                _ => LlamaSampler::mirostat_v2(seed, tau, eta),
            });
            return Self::Chain {
                chain: LlamaSampler::chain(samplers, true),
                look_back: 0,
            };
        }
        let greedy = sampling.temperature <= 0.0
            && sampling.dynatemp_range <= 0.0
            && sampling.samplers.contains(&SamplerKind::Temperature);
        for kind in &sampling.samplers {
            match kind {
                SamplerKind::Penalties => {
                    let off = |value: f32, neutral: f32| (value - neutral).abs() < f32::EPSILON;
                    let all_off = off(sampling.repeat_penalty, 1.0)
                        && off(sampling.presence_penalty, 0.0)
                        && off(sampling.frequency_penalty, 0.0);
                    let last_n = bounded(sampling.repeat_last_n);
                    if last_n > 0 && !all_off {
                        look_back = look_back.max(last_n);
                        samplers.push(LlamaSampler::penalties(
                            vocabulary,
                            last_n,
                            sampling.repeat_penalty,
                            sampling.frequency_penalty,
                            sampling.presence_penalty,
                        ));
                    }
                }
                SamplerKind::Dry => {
                    let dry = &sampling.dry;
                    let last_n = bounded(dry.penalty_last_n);
                    if last_n > 0 && dry.multiplier > 0.0 {
                        look_back = look_back.max(last_n);
                        samplers.push(LlamaSampler::dry(
                            model,
                            dry.multiplier,
                            dry.base,
                            dry.allowed_length,
                            last_n,
                            &dry.sequence_breakers,
                        ));
                    }
                }
                // Where the likeliest token is taken, it does not matter which others may be.
                _ if greedy => {}
                SamplerKind::TopNSigma if sampling.top_n_sigma > 0.0 => {
                    samplers.push(LlamaSampler::top_n_sigma(sampling.top_n_sigma));
                }
                SamplerKind::TopK if sampling.top_k > 0 => {
                    samplers.push(LlamaSampler::top_k(i32::try_from(sampling.top_k).unwrap_or(i32::MAX)));
                }
                SamplerKind::TypicalP if sampling.typical_p < 1.0 => {
                    samplers.push(LlamaSampler::typical(sampling.typical_p, 1));
                }
                SamplerKind::TopP if sampling.top_p < 1.0 => samplers.push(LlamaSampler::top_p(sampling.top_p, 1)),
                SamplerKind::MinP if sampling.min_p > 0.0 => samplers.push(LlamaSampler::min_p(sampling.min_p, 1)),
                SamplerKind::Xtc if sampling.xtc_probability > 0.0 => {
                    let (probability, threshold) = (sampling.xtc_probability, sampling.xtc_threshold);
                    samplers.push(LlamaSampler::xtc(probability, threshold, 1, seed));
                }
                SamplerKind::Temperature => samplers.push(LlamaSampler::temp_ext(
                    sampling.temperature,
                    sampling.dynatemp_range,
                    sampling.dynatemp_exponent,
                )),
                SamplerKind::TopNSigma
                | SamplerKind::TopK
                | SamplerKind::TypicalP
                | SamplerKind::TopP
                | SamplerKind::MinP
                | SamplerKind::Xtc => {}
            }
        }
        if greedy && samplers.is_empty() {
            return Self::Greedy;
        }
        samplers.push(match greedy {
            true => LlamaSampler::greedy(),
            false => LlamaSampler::dist(seed),
        });
        Self::Chain {
            chain: LlamaSampler::chain(samplers, true),
            look_back: usize::try_from(look_back).unwrap_or(0),
        }
    }

    /// Shows the penalties the end of the prompt.
    pub(super) fn prime(&mut self, prompt: &[Token]) {
        if let Self::Chain { chain, look_back } = self {
            let from = prompt.len().saturating_sub(*look_back);
            chain.accept_many(prompt[from..].iter().map(|token| LlamaToken(*token)));
        }
    }

    /// Chooses one of the candidates; `None` if there are none. What remains of them is of no use.
    fn of(&mut self, candidates: &mut Vec<LlamaTokenData>) -> Option<Token> {
        match self {
            Self::Greedy => {
                let likeliest = candidates
                    .iter()
                    .reduce(|best, other| if other.logit() > best.logit() { other } else { best });
                likeliest.map(|candidate| candidate.id().0)
            }
            Self::Chain { chain, .. } => {
                // llama.cpp's samplers need something to choose from.
                if candidates.is_empty() {
                    return None;
                }
                let mut array = LlamaTokenDataArray::new(std::mem::take(candidates), false);
                array.apply_sampler(chain);
                let chosen = array.selected_token();
                *candidates = array.data;
                chosen.map(|token| token.0)
            }
        }
    }

    fn accept(&mut self, token: Token) {
        if let Self::Chain { chain, .. } = self {
            chain.accept(LlamaToken(token));
        }
    }
}

/// What the next token of a sequence is chosen from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Logits<'l> {
    /// Those of a position of the last batch.
    Computed(i32),
    /// Those of an earlier one.
    Saved(&'l [f32]),
}

impl<'l> Logits<'l> {
    pub(super) fn of(self, context: &'l LlamaContext<'_>) -> &'l [f32] {
        match self {
            Self::Computed(index) => context.get_logits_ith(index),
            Self::Saved(logits) => logits,
        }
    }
}

impl Sampler {
    /// `ends` are the end tokens that may be chosen.
    pub(super) fn new(choice: Choice, grammar: Option<Matcher>, thinking: Option<Thinking>, ends: Vec<Token>) -> Self {
        Self {
            choice,
            grammar,
            thinking,
            ends,
            candidates: Vec::new(),
        }
    }

    /// Chooses a token, and remembers it. `within_character`: the text so far ends inside of a character.
    ///
    /// # Errors
    /// [`ComputeError::NotANumber`] if a logit is NaN: comparisons would choose some token all the same. Errors of the grammar.
    pub(super) fn sample(
        &mut self,
        context: &LlamaContext<'_>,
        from: Logits<'_>,
        within_character: bool,
    ) -> Result<Sampled, ComputeError> {
        let logits = from.of(context);
        if has_nan(logits) {
            return Err(ComputeError::NotANumber);
        }
        if self.grammar.is_none()
            && self.thinking.is_none()
            && let Logits::Computed(index) = from
        {
            // The way of nearly all requests.
            return Ok(Sampled::Token(match &mut self.choice {
                Choice::Greedy => argmax(logits),
                Choice::Chain { chain, .. } => chain.sample(context, index).0,
            }));
        }
        let forced = self
            .thinking
            .as_ref()
            .and_then(|thinking| thinking.forced(within_character));
        // Words in a thought are no triggers.
        let suspended =
            |grammar: &Matcher| grammar.is_waiting() && self.thinking.as_ref().is_some_and(Thinking::is_inside);
        let grammar = self.grammar.as_mut().filter(|grammar| !suspended(grammar));
        let sampled = match (forced, grammar) {
            (Some(token), grammar) => {
                if let Some(grammar) = grammar {
                    grammar.accept(token)?;
                }
                Sampled::Token(token)
            }
            (None, None) => {
                fill(&mut self.candidates, logits);
                Sampled::Token(self.choice.of(&mut self.candidates).unwrap_or_else(|| argmax(logits)))
            }
            (None, Some(grammar)) => {
                let from = Candidates {
                    logits,
                    ends: &self.ends,
                    memory: &mut self.candidates,
                };
                within(grammar, &mut self.choice, from)?
            }
        };
        if let Sampled::Token(token) = sampled {
            self.choice.accept(token);
            if let Some(thinking) = &mut self.thinking
                && thinking.accept(token, forced.is_some())
                && let Some(grammar) = &mut self.grammar
                && grammar.is_waiting()
            {
                // What closes a thought may be a trigger.
                for token in thinking.end() {
                    grammar.accept(*token)?;
                }
            }
        }
        Ok(sampled)
    }
}

/// What a token is chosen from.
struct Candidates<'s> {
    logits: &'s [f32],
    ends: &'s [Token],
    memory: &'s mut Vec<LlamaTokenData>,
}

/// Chooses a token that the grammar allows: mostly the one that would be chosen anyway; only if that is refused, all tokens are
/// looked at.
fn within(grammar: &mut Matcher, choice: &mut Choice, from: Candidates<'_>) -> Result<Sampled, ComputeError> {
    let Candidates { logits, ends, memory } = from;
    let first = match choice {
        Choice::Greedy => argmax(logits),
        Choice::Chain { .. } => {
            fill(memory, logits);
            choice.of(memory).unwrap_or_else(|| argmax(logits))
        }
    };
    if grammar.accept(first)? {
        return Ok(Sampled::Token(first));
    }
    let mut refused = vec![first];
    while grammar.is_waiting() && refused.len() < MAX_TRIES {
        fill(memory, logits);
        memory.retain(|candidate| !refused.contains(&candidate.id().0));
        let Some(token) = choice.of(memory) else { break };
        if grammar.accept(token)? {
            return Ok(Sampled::Token(token));
        }
        refused.push(token);
    }
    let candidate = |token: Token| {
        let logit = usize::try_from(token).ok().and_then(|token| logits.get(token));
        LlamaTokenData::new(LlamaToken(token), logit.copied().unwrap_or(f32::NEG_INFINITY), 0.0)
    };
    memory.clear();
    let may_end = grammar.allowed(|token| memory.push(candidate(token)))?;
    if may_end {
        memory.extend(ends.iter().map(|token| candidate(*token)));
    }
    // Tokens that the request bans stay banned, unless there are no others.
    match choice.of(memory) {
        Some(token) if grammar.accept(token)? => Ok(Sampled::Token(token)),
        None if may_end => Ok(Sampled::End),
        _ => Err(ComputeError::Stuck),
    }
}

fn fill(candidates: &mut Vec<LlamaTokenData>, logits: &[f32]) {
    candidates.clear();
    let all = (0..).zip(logits);
    candidates.extend(all.map(|(token, logit)| LlamaTokenData::new(LlamaToken(token), *logit, 0.0)));
}

/// The index of the largest logit; the first one of equals.
pub fn argmax(logits: &[f32]) -> Token {
    // Two passes over independent lanes: the compiler vectorises both, which it cannot do for a running index.
    const LANES: usize = 16;
    let mut best = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for (best, logit) in best.iter_mut().zip(chunk) {
            *best = if *logit > *best { *logit } else { *best };
        }
    }
    let best = best.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let index = logits.iter().position(|logit| *logit >= best).unwrap_or(0);
    Token::try_from(index).unwrap_or(0)
}

/// Whether a logit is no number.
fn has_nan(logits: &[f32]) -> bool {
    // No early end: this way the compiler vectorises it.
    logits.iter().fold(false, |found, logit| found | logit.is_nan())
}

/// A seed that differs from request to request.
fn fresh_seed() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    // RandomState is seeded from the system's randomness once per thread and differs with each instance.
    #[expect(clippy::cast_possible_truncation, reason = "any 32 bits of the hash will do")]
    let seed = RandomState::new().hash_one(0u8) as u32;
    seed
}

#[cfg(test)]
mod tests {
    use super::{argmax, has_nan};
    use proptest::prelude::*;

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[]), 0);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 3]), 0);
    }

    #[test]
    fn a_single_nan_is_found() {
        let mut logits = vec![0.5; 1000];
        logits[7] = f32::NEG_INFINITY;
        assert!(!has_nan(&logits));
        logits[990] = f32::NAN;
        assert!(has_nan(&logits));
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_loop(logits in prop::collection::vec(-50f32..50.0, 1..200)) {
            let mut expect = 0;
            for (index, logit) in logits.iter().enumerate() {
                if *logit > logits[expect] {
                    expect = index;
                }
            }
            prop_assert_eq!(argmax(&logits), i32::try_from(expect).unwrap());
        }
    }
}
