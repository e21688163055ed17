//! Prompts of as many tokens as wanted, by the server's own count.

use anyhow::{Context, bail};
use serde::Serialize;

use super::client::Server;
use crate::cli::benchmark::prompts;

/// Characters of the first text that is counted.
const PROBE: usize = 400;
/// Its seed; it differs from those of measured prompts.
const PROBE_SEED: u64 = u64::MAX;
/// Counts per prompt at most. The search halves what is left at worst.
const ATTEMPTS: usize = 24;
/// Prompts that are only computed to be counted, per length.
const PROBES: usize = 4;
/// Good enough where a count costs a prefill.
const CLOSE: f64 = 0.01;

/// How the length of a server's prompts is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Count {
    /// Each prompt is counted by the server's `/tokenize`.
    Tokenize,
    /// A few prompts were computed, and `usage` told their lengths.
    Usage,
}

/// Makes the prompts for one server.
#[derive(Debug)]
pub(super) struct Prompts {
    count: Count,
    characters_per_token: f64,
    /// Tokens that the server adds to the text, by a chat template for example.
    added: u32,
    /// With [`Count::Usage`]: characters for each length in tokens.
    characters: Vec<(u32, usize)>,
}

impl Prompts {
    /// Finds out how a server counts, for prompts of these lengths. This is also the first request for the model.
    pub(super) async fn of(server: &Server, lengths: &[u32]) -> anyhow::Result<Self> {
        let text = prompts::text(PROBE, PROBE_SEED);
        let usage = server.probe(&text).await?.usage.map(|usage| usage.prompt_tokens);
        let tokens = server.tokenize(&text).await?.filter(|tokens| *tokens > 0);
        let mut prompts = Self {
            count: if tokens.is_some() {
                Count::Tokenize
            } else {
                Count::Usage
            },
            characters_per_token: 0.0,
            added: usage.zip(tokens).map_or(0, |(all, text)| all.saturating_sub(text)),
            characters: Vec::new(),
        };
        let count = tokens
            .or(usage)
            .filter(|count| *count > 0)
            .context("it has no /tokenize and tells no `usage`, so prompts of a known length cannot be made")?;
        prompts.characters_per_token = per_token(PROBE, count);
        if prompts.count == Count::Usage {
            for &length in lengths {
                let characters = prompts.by_probes(server, length).await?;
                prompts.characters.push((length, characters));
            }
        }
        Ok(prompts)
    }

    pub(super) fn count(&self) -> Count {
        self.count
    }

    /// A prompt of so many tokens.
    pub(super) async fn prompt(&self, server: &Server, tokens: u32, seed: u64) -> anyhow::Result<String> {
        let characters = match self.count {
            Count::Usage => {
                let known = self.characters.iter().find(|(length, _)| *length == tokens);
                known.map_or(0, |(_, characters)| *characters)
            }
            Count::Tokenize => {
                if tokens <= self.added {
                    bail!(
                        "the server adds {} tokens to each prompt, so none can have {tokens}; --prompt-tokens must be more",
                        self.added
                    );
                }
                let count = async |characters: usize| {
                    let counted = server.tokenize(&prompts::text(characters, seed)).await?;
                    counted.context("/tokenize works no more")
                };
                fit(tokens - self.added, self.characters_per_token, count).await?
            }
        };
        Ok(prompts::text(characters, seed))
    }

    /// How many characters make about so many tokens, by computing prompts.
    async fn by_probes(&self, server: &Server, tokens: u32) -> anyhow::Result<usize> {
        let mut characters = characters(tokens, self.characters_per_token);
        for seed in 1..=PROBES as u64 {
            let text = prompts::text(characters, PROBE_SEED - seed);
            let usage = server.probe(&text).await?.usage;
            let count = usage.context("it tells `usage` only sometimes")?.prompt_tokens.max(1);
            if (f64::from(count) / f64::from(tokens) - 1.0).abs() <= CLOSE {
                break;
            }
            characters = self::characters(tokens, per_token(characters, count));
        }
        Ok(characters)
    }
}

#[expect(clippy::cast_precision_loss, reason = "lengths of prompts")]
fn per_token(characters: usize, tokens: u32) -> f64 {
    characters as f64 / f64::from(tokens)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive lengths of prompts"
)]
fn characters(tokens: u32, per_token: f64) -> usize {
    (f64::from(tokens) * per_token).round().max(1.0) as usize
}

/// Finds the number of characters with exactly `target` tokens, or if there is none, with the most tokens below.
async fn fit(
    target: u32,
    characters_per_token: f64,
    count: impl AsyncFn(usize) -> anyhow::Result<u32>,
) -> anyhow::Result<usize> {
    let (mut low, mut high) = ((0, 0), None);
    let mut at = characters(target, characters_per_token);
    for _ in 0..ATTEMPTS {
        let tokens = count(at).await?;
        match tokens.cmp(&target) {
            std::cmp::Ordering::Equal => return Ok(at),
            std::cmp::Ordering::Less => low = (at, tokens),
            std::cmp::Ordering::Greater => high = Some((at, tokens)),
        }
        at = match high {
            // What was seen counts more than the guess, which may be far too small.
            None => at + characters(target - tokens, per_token(at, tokens.max(1)).max(characters_per_token)),
            Some((high, _)) if high <= low.0 + 1 => return Ok(low.0),
            Some((high, tokens)) => {
                let slope = per_token(high - low.0, tokens - low.1);
                (low.0 + characters(target - low.1, slope)).clamp(low.0 + 1, high - 1)
            }
        };
    }
    Ok(low.0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn fitted(target: u32, guess: f64, count: impl Fn(usize) -> u32) -> (usize, u32) {
        let calls = Cell::new(0);
        let counted = async |characters: usize| {
            calls.set(calls.get() + 1);
            anyhow::Ok(count(characters))
        };
        let fit = fit(target, guess, counted);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        (runtime.block_on(fit).unwrap(), calls.get())
    }

    #[test]
    fn lengths_are_exact_where_they_can_be() {
        // A token for each four characters, and one at the beginning.
        let count = |characters: usize| u32::try_from(characters.div_ceil(4)).unwrap() + 1;
        for (target, guess) in [(350, 4.0), (350, 0.5), (350, 40.0), (2, 4.0), (5000, 3.9)] {
            let (characters, calls) = fitted(target, guess, count);
            assert_eq!(count(characters), target, "{target} with {guess}");
            assert!(calls <= 6, "{calls} calls");
        }
        // Uneven text: 1 to 7 characters per token.
        let ends: Vec<usize> = (0..2000)
            .scan(0, |end, index| {
                *end += 1 + index * 5 % 7;
                Some(*end)
            })
            .collect();
        let count = |characters: usize| u32::try_from(ends.partition_point(|end| *end <= characters)).unwrap();
        for target in [1, 99, 350, 1000] {
            assert_eq!(count(fitted(target, 3.0, count).0), target);
        }
    }

    #[test]
    fn the_most_below_is_taken_where_none_is_exact() {
        // Two tokens at a time.
        let count = |characters: usize| u32::try_from(characters / 3).unwrap() * 2;
        assert_eq!(count(fitted(7, 2.0, count).0), 6);
    }
}
