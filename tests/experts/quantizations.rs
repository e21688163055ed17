//! Every data type, in batches of every size that is computed with copies, with copies of nothing, of some, and of everything.
//!
//! Only weights in single precision are computed alike by all devices; there each token must be the same. With other types
//! the CPU rounds the input of a projection too, and a GPU does not, so runs are compared within a tolerance.

use std::path::Path;
use std::sync::Arc;

use hearth::experts::policy::{LayerCounts, PolicyKind};
use hearth::experts::{Device, ExpertCache, MAX_BLOCK_TOKENS};
use hearth::synthetic::{Arch, mix_names};

use super::cached::{Experts, cache, cache_device, cache_with_heat, load, model};
use super::compare::{assert_same_tokens, distance, tolerance};
use super::passes::{Logits, Step, compute, eight_sequences, plain, prompts, run, step};

/// Batches of every size in one sequence, each behind a single token, and prompts.
fn every_size() -> Vec<Step> {
    let sizes = (1..=MAX_BLOCK_TOKENS).chain(prompts().iter().copied());
    let sizes = sizes.flat_map(|tokens| [1, tokens]);
    sizes.map(|tokens| step(0, tokens)).collect()
}

/// Logits with one that is warm before the first token, and what it did for them.
fn warm(path: &Path, cache: &Arc<ExpertCache>) -> (Logits, LayerCounts) {
    let model = load(path, Some(cache));
    compute(&model, Some(cache), &[step(0, 1), step(0, 1)], |_| ());
    cache.settle();
    let before = cache.stats().total();
    let logits = compute(&model, Some(cache), &every_size(), |_| cache.settle());
    (logits, cache.stats().total().since(before))
}

/// Everything on a GPU; on the CPU, where other tests look too, one in the middle.
fn shares() -> &'static [f32] {
    match cache_device() {
        Device::Cpu => &[0.3],
        Device::Gpu(_) => &[0.0, 0.1, 0.5, 1.0],
    }
}

#[test]
fn the_same_tokens_in_single_precision() {
    let folder = tempfile::tempdir().unwrap();
    for arch in [Arch::Qwen3moe, Arch::Qwen3next, Arch::GptOss] {
        let path = model(folder.path(), arch, "f32");
        for (what, steps) in [("one sequence", every_size()), ("eight sequences", eight_sequences(16))] {
            let (expected, _) = run(&path, None, &steps);
            for share in shares() {
                let (found, counts) = run(&path, Some(cache(&path, *share, PolicyKind::LfuDecay)), &steps);
                let what = format!("{arch:?}, {what}, {share}: {counts:?}");
                assert_same_tokens(&expected, &found, &what);
                assert_eq!(counts.computed > 0, *share > 0.0, "{what}");
            }
        }
    }
}

/// `HEARTH_TEST_MIX` names one alone.
#[test]
fn every_quantization_in_batches_of_every_size() {
    let folder = tempfile::tempdir().unwrap();
    let asked = std::env::var("HEARTH_TEST_MIX").ok();
    // On the CPU some that no other test has.
    let few = ["q5_0", "q2_k", "q3_k_m", "iq2_xxs"];
    let wanted = |mix: &&str| match &asked {
        Some(asked) => mix == asked,
        None => cache_device() != Device::Cpu || few.contains(mix),
    };
    for mix in mix_names().filter(wanted) {
        let path = model(folder.path(), Arch::Qwen3moe, mix);
        let on_cpu = warm(&path, &cache(&path, 0.0, PolicyKind::LfuDecay)).0;
        let apart = |what: &str, expected: &Logits, found: &Logits| {
            let distance = distance(expected, found);
            println!("{mix}, {what}: {distance:e}");
            assert!(distance <= tolerance(&path), "{mix}, {what}: {distance:e}");
        };
        apart("nothing", &plain(&path, Experts::InMainMemory, &every_size()), &on_cpu);
        for share in shares().iter().filter(|share| (0.01..0.99).contains(*share)) {
            let (found, counts) = warm(&path, &cache(&path, *share, PolicyKind::LfuDecay));
            apart(&format!("{share}"), &on_cpu, &found);
            // Prompts are computed with copies too, and are no hits.
            let some = counts.computed > 0 && counts.hits < counts.selections;
            assert!(some, "{mix}: {counts:?}");
        }
        let everything = cache_with_heat(&path, 1.0, PolicyKind::LfuDecay, Some(1));
        let (found, counts) = warm(&path, &everything);
        apart("everything", &plain(&path, Experts::WithTheRest, &every_size()), &found);
        // Now and then a block is computed the other way, to see which is faster.
        assert!(counts.computed * 10 > counts.selections * 9, "{mix}: {counts:?}");
        std::fs::remove_file(path).unwrap();
    }
}
