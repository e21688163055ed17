//! The same logits for each architecture, policy and share.

use std::collections::BTreeMap;
use std::path::Path;

use hearth::experts::policy::PolicyKind;
use hearth::experts::{Capacity, Change, ChangeError, Device};
use hearth::gguf::Gguf;
use hearth::synthetic::{Arch, Shape};

use super::cached::{Experts, cache, cache_device, cache_with_heat, load, model, write};
use super::compare::{SINGLE_PRECISION, assert_same, assert_same_tokens, distance, distance_of_most, tolerance};
use super::passes::{Step, compute, eight_sequences, one_sequence, plain, run, step};

/// llama.cpp repacks some types for its own CPU kernels, which round differently: there an empty cache, which computes all
/// experts with the plain kernels, is what must come out.
///
/// An empty cache computes the experts where llama.cpp does if they are in main memory. Copies on a GPU round as the GPU does: of
/// types for which llama.cpp's own two devices are further apart than the tolerance, up to twice as far.
fn compare(path: &Path, repacked: bool, steps: &[Step]) {
    let name = path.file_stem().unwrap().display().to_string();
    let stock = plain(path, Experts::InMainMemory, steps);
    let (empty, _) = run(path, Some(cache(path, 0.0, PolicyKind::LfuDecay)), steps);
    let (between, limit) = match repacked {
        true => (distance_of_most(&stock, &empty), tolerance(path)),
        false => (distance(&stock, &empty), SINGLE_PRECISION),
    };
    assert!(between <= limit, "{name}: {between:e} from llama.cpp's own");
    let devices = match cache_device() {
        Device::Cpu => 0.0,
        Device::Gpu(_) => distance(&stock, &plain(path, Experts::WithTheRest, steps)),
    };
    println!("{name}: {between:e} from llama.cpp's own, whose devices are {devices:e} apart");
    let limit = tolerance(path).max(2.0 * devices);
    let expected = if repacked { &empty } else { &stock };
    for kind in PolicyKind::ALL {
        for share in [0.1, 0.5, 1.0] {
            let (found, counts) = run(path, Some(cache(path, share, kind)), steps);
            let what = format!("{name} {} {share}: {counts:?}", kind.name());
            assert_same(steps, expected, &found, limit, &what);
            assert!(counts.selections > 0 && counts.uploads > 0 && counts.hits > 0, "{what}");
            assert!(counts.computed > 0, "no copy was computed with: {what}");
        }
    }
}

fn compare_mixes(arch: Arch, mixes: &[(&str, bool)]) {
    let folder = tempfile::tempdir().unwrap();
    for (mix, repacked) in mixes {
        let path = model(folder.path(), arch, mix);
        compare(&path, *repacked, &one_sequence());
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_same_logits_for_qwen3next() {
    let mixes = [
        ("f16", false),
        ("q6_k", false),
        ("q4_k_m", true),
        ("q8_0", true),
        ("iq4_xs", false),
    ];
    compare_mixes(Arch::Qwen3next, &mixes);
}

#[test]
fn the_same_logits_for_qwen3moe() {
    let mixes = [("bf16", false), ("q4_0", true), ("q5_k_m", true), ("nvfp4", false)];
    compare_mixes(Arch::Qwen3moe, &mixes);
}

#[test]
fn the_same_logits_for_gpt_oss_with_its_biases() {
    let mixes = [("f16", false), ("mxfp4", true), ("iq3_xxs", false)];
    compare_mixes(Arch::GptOss, &mixes);
}

#[test]
fn the_same_logits_for_gate_and_up_in_one_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let mut shape = Shape::preset(Arch::Qwen3next, "tiny").unwrap();
    shape.fused_gate_up = true;
    compare(&write(folder.path(), shape, "f16"), false, &one_sequence());
}

#[test]
fn the_same_logits_for_eight_sequences_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (arch, mix, repacked) in [
        (Arch::Qwen3next, "f16", false),
        (Arch::Qwen3moe, "q4_0", true),
        (Arch::GptOss, "mxfp4", true),
    ] {
        compare(&model(folder.path(), arch, mix), repacked, &eight_sequences(24));
    }
}

#[cfg(feature = "demo")]
#[test]
fn the_same_logits_for_the_built_in_reasoner() {
    let path = hearth::demo::DemoModel::Reasoner.unpack().unwrap();
    compare(&path, true, &one_sequence());
}

/// What the tolerance is worth: when one of the layers takes each expert's weights from its neighbour, it shows.
#[test]
fn wrong_experts_in_one_layer_exceed_the_tolerance() {
    let folder = tempfile::tempdir().unwrap();
    for arch in [Arch::Qwen3next, Arch::Qwen3moe, Arch::GptOss] {
        let path = model(folder.path(), arch, "f16");
        let gguf = Gguf::open(&path).unwrap();
        let down = |name: &str| name == "blk.1.ffn_down_exps.weight";
        let tensor = gguf.tensors().iter().find(|tensor| down(&tensor.name)).unwrap();
        let weights = gguf.data(tensor);
        let mut bytes = std::fs::read(&path).unwrap();
        let start = bytes.windows(64).position(|window| window == &weights[..64]).unwrap();
        bytes[start..start + weights.len()].rotate_left(weights.len() / 32);
        let wrong = folder.path().join("wrong.gguf");
        std::fs::write(&wrong, bytes).unwrap();
        let steps = [step(0, 12), step(0, 1)];
        let difference = distance(&run(&path, None, &steps).0, &run(&wrong, None, &steps).0);
        assert!(difference > tolerance(&path), "{arch:?}: {difference:e}");
        println!("{arch:?}: {difference:e} against {:e}", tolerance(&path));
    }
}

/// Capacity, policy and pinned experts change while eight sequences are decoded: no token differs, and what is wrong with a
/// change is said.
#[test]
fn a_running_cache_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path(), Arch::Qwen3next, "f32");
    // What is changed must be there.
    let steps = [vec![step(0, 1)], eight_sequences(48)].concat();
    let (expected, _) = run(&path, None, &steps);
    let cache = cache(&path, 0.1, PolicyKind::LfuDecay);
    let model = load(&path, Some(&cache));
    let change = |step: usize| {
        // Uploads of one step run into the next, and the heat map is read while layers are made anew.
        assert!(cache.heat().experts() > 0);
        if step.is_multiple_of(3) {
            let change = Change {
                capacity: Some(Capacity::Share([0.5, 0.0, 1.0, 0.25][step / 3 % 4])),
                policy: Some([PolicyKind::Lru, PolicyKind::LfuDecay][step / 3 % 2]),
                pinned: Some(BTreeMap::from([(0, vec![3, 5])])),
                reset: step == 24,
            };
            cache.change(change).unwrap();
        }
    };
    let found = compute(&model, Some(&cache), &steps, change);
    let counts = cache.stats().total();
    assert!(
        counts.hits > 0 && counts.uploads > 0 && counts.computed > 0,
        "{counts:?}"
    );
    assert_same_tokens(&expected, &found, "changed while it was used");
    let pin = |layer, expert| Change {
        pinned: Some(BTreeMap::from([(layer, vec![expert])])),
        ..Change::default()
    };
    assert_eq!(cache.change(pin(99, 0)), Err(ChangeError::NoExperts(99)));
    let unknown = ChangeError::UnknownExpert {
        layer: 0,
        experts: 32,
        expert: 9999,
    };
    assert_eq!(cache.change(pin(0, 9999)), Err(unknown));
}

/// A heat map for more experts than two tokens may ask for at once: all of them come nevertheless, and nothing that tokens
/// want takes them away.
#[test]
fn a_warm_start_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let shape = Shape::preset(Arch::Qwen3moe, "tiny").unwrap();
    let shape = Shape { experts: 256, ..shape };
    let path = write(folder.path(), shape, "q8_0");
    for kind in PolicyKind::ALL {
        let cache = cache_with_heat(&path, 1.0, kind, Some(1));
        let model = load(&path, Some(&cache));
        compute(&model, Some(&cache), &[step(0, 1), step(0, 1)], |_| ());
        cache.settle();
        let stats = cache.stats();
        let resident: usize = stats.layers.iter().map(|layer| layer.resident.len()).sum();
        assert_eq!(resident, 3 * 256, "{kind:?}");
    }
}

/// A model without a cache is none of ours, whatever was loaded before: llama.cpp repacks its weights as ever, and that shows in
/// the last digits.
#[test]
fn other_models_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path(), Arch::Qwen3moe, "q4_0");
    run(&path, Some(cache(&path, 0.5, PolicyKind::LfuDecay)), &[step(0, 1)]);
    let (plain, _) = run(&path, None, &eight_sequences(2));
    let alone = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "logits::in_a_process_of_its_own", "--nocapture", "--ignored"])
        .env("HEARTH_TEST_MODEL", &path)
        .output()
        .unwrap();
    let alone = String::from_utf8(alone.stdout).unwrap();
    assert!(alone.contains(&format!("{:?}", plain.last())), "{alone}");
}

#[test]
#[ignore = "a helper of `other_models_are_left_alone`"]
fn in_a_process_of_its_own() {
    let Some(path) = std::env::var_os("HEARTH_TEST_MODEL") else {
        return;
    };
    let (plain, _) = run(Path::new(&path), None, &eight_sequences(2));
    println!("{:?}", plain.last());
}
