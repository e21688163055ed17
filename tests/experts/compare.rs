//! How far two runs are apart.

use std::collections::BTreeMap;
use std::path::Path;

use hearth::experts::{Device, MAX_BLOCK_TOKENS, MAX_QUEUED_TOKENS};
use hearth::gguf::Gguf;

use super::cached::cache_device;
use super::passes::{Logits, Step};

/// What llama.cpp's own tests of its kernels (`test-backend-ops`) allow between two backends for one MUL_MAT_ID: the square
/// of the difference over the square of the values. Both round the input to 8 bits, each in its own way.
pub const ONE_PROJECTION: f64 = 5e-4;
/// Of one block.
pub const PROJECTIONS: f64 = 3.0;

/// The normalised square of the difference of two tokens' logits.
pub fn difference(expected: &[f32], found: &[f32]) -> f64 {
    assert_eq!(expected.len(), found.len());
    let square = |value: f64| value * value;
    let pairs = || expected.iter().zip(found).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let error: f64 = pairs().map(|(a, b)| square(a - b)).sum();
    let scale: f64 = pairs().map(|(a, _)| square(a)).sum();
    assert!(scale > 0.0, "logits are all zero");
    error / scale
}

/// How far the tokens are apart: on the CPU the largest difference of any token.
///
/// A GPU rounds otherwise than the CPU, which computes the experts without a copy. Where two experts are nearly equal the router
/// then selects the other one, and that token is another one altogether. So there it is the median of the tokens in batches of
/// a kind, the largest of all kinds: single tokens, up to 8 and up to 16 of them, for which GPUs have kernels of their own, short and
/// long prompts. What is wrong with a kind of batch shows in all of its tokens.
pub fn distance(expected: &[Vec<Vec<f32>>], found: &[Vec<Vec<f32>>]) -> f64 {
    distance_of(expected, found, cache_device() == Device::Cpu)
}

/// The same between two ways of rounding on the CPU, which select another expert now and then as well.
pub fn distance_of_most(expected: &[Vec<Vec<f32>>], found: &[Vec<Vec<f32>>]) -> f64 {
    distance_of(expected, found, false)
}

fn distance_of(expected: &[Vec<Vec<f32>>], found: &[Vec<Vec<f32>>], of_all: bool) -> f64 {
    assert_eq!(expected.len(), found.len());
    let mut kinds: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (expected, found) in expected.iter().zip(found) {
        let differences = expected
            .iter()
            .zip(found)
            .map(|(expected, found)| difference(expected, found));
        let kind = [1, 8, MAX_BLOCK_TOKENS, MAX_QUEUED_TOKENS].partition_point(|most| *most < expected.len());
        kinds.entry(kind).or_default().extend(differences);
    }
    kinds.into_values().fold(0.0, |largest: f64, mut differences| {
        // `f64::max` would hide what is no number.
        assert!(differences.iter().all(|difference| difference.is_finite()));
        differences.sort_by(f64::total_cmp);
        let at = (differences.len() - 1) / if of_all { 1 } else { 2 };
        largest.max(differences[at])
    })
}

pub fn tolerance(path: &Path) -> f64 {
    let layers = Gguf::open(path).unwrap().geometry().unwrap().layers;
    ONE_PROJECTION * PROJECTIONS * f64::from(layers)
}

/// Not a bit may differ as long as the CPU computes one token at a time, each row by itself whoever computes it. Rows that
/// are computed together are rounded in another order, which the keys and values of later tokens remember.
pub fn assert_same(steps: &[Step], expected: &[Vec<Vec<f32>>], found: &[Vec<Vec<f32>>], limit: f64, what: &str) {
    let alone = |step: &&Step| step.prompt || step.parts.iter().map(|part| part.tokens).sum::<usize>() == 1;
    let first = steps.iter().take_while(alone).count();
    let alone = distance(&expected[..first], &found[..first]);
    let together = distance(&expected[first..], &found[first..]);
    println!("{what}: {alone:e} alone, {together:e} together");
    assert!(cache_device() != Device::Cpu || alone == 0.0, "{what}: {alone:e}");
    assert!(alone.max(together) <= limit, "{what}: {alone:e}, {together:e}");
}

/// Of weights in single precision: kernels add in another order, and some cards round what they multiply to 10 bits. On a
/// GPU in software it was 1e-9.
pub const SINGLE_PRECISION: f64 = 1e-5;

/// That each token has the same logits, and that the same one follows: for weights in single precision, whatever computes.
pub fn assert_same_tokens(expected: &Logits, found: &Logits, what: &str) {
    assert_eq!(expected.len(), found.len());
    let mut largest: f64 = 0.0;
    for (number, (expected, found)) in expected.iter().zip(found).enumerate() {
        assert_eq!(expected.len(), found.len());
        for (token, (expected, found)) in expected.iter().zip(found).enumerate() {
            let difference = difference(expected, found);
            let place = format!("{what}: token {token} of {} in batch {number}", found.len());
            assert!(difference <= SINGLE_PRECISION, "{place}: {difference:e}");
            assert_eq!(best(found), best(expected), "{place}: {difference:e}");
            largest = largest.max(difference);
        }
    }
    println!("{what}: {largest:e}");
}

fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
}
