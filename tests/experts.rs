//! The backend that caches experts: the same tokens as without it, whatever has a copy.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hearth::config::{ModelConfig, ModelSource};
use hearth::engine::local::{ALL_LAYERS, LoadSpec, LocalEngine, Placement, describe};
use hearth::engine::{Engine, Event, GenerateRequest, Prompt, SamplingOverrides, Token};
use hearth::experts::heat::{Fingerprint, HeatMap};
use hearth::experts::policy::{LayerCounts, PolicyConfig, PolicyKind};
use hearth::experts::{CacheConfig, Change, Device, ExpertCache, Slots};
use hearth::gguf::Gguf;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use hearth::telemetry::Metrics;

const TOKENS: u32 = 64;

fn start(path: &Path, experts: Option<Arc<ExpertCache>>, experts_in_ram: bool, parallel: u32) -> LocalEngine {
    let config = ModelConfig::new("test", ModelSource::File(path.to_owned()));
    let mut card = describe(&config, &Gguf::open(path).unwrap()).unwrap();
    card.context = 512;
    card.parallel = parallel;
    let spec = LoadSpec {
        path: path.to_owned(),
        context: 512,
        parallel,
        threads: 2.into(),
        max_pause: std::time::Duration::from_millis(500),
        placement: Placement {
            gpu: (cache_device() != Device::Cpu).then_some(0),
            experts_in_ram: if experts_in_ram { ALL_LAYERS } else { 0 },
            ..Placement::default()
        },
        experts,
    };
    let engine = LocalEngine::start(card, spec, 64, Metrics::new().model("test")).unwrap();
    engine.wait_until_loaded(|_| ()).unwrap();
    engine
}

async fn generate(engine: &LocalEngine, prompt: Vec<Token>) -> Vec<Token> {
    let greedy = SamplingOverrides {
        temperature: Some(0.0),
        ..SamplingOverrides::default()
    };
    let request = GenerateRequest {
        prompt: Prompt::Tokens(prompt),
        sampling: greedy.resolve(Vec::new()).unwrap(),
        max_tokens: Some(TOKENS),
        stop: Vec::new(),
        stop_tokens: Vec::new(),
        ignore_eos: true,
        cache_prompt: false,
        special: true,
        progress: false,
    };
    let mut events = engine.submit(request).await.unwrap();
    let mut out = Vec::new();
    loop {
        match events.next().await.expect("an end") {
            Event::Delta { tokens, .. } => out.extend(tokens),
            Event::Finished { .. } => return out,
            Event::Failed(error) => panic!("{error}"),
            Event::Progress(_) => {}
        }
    }
}

/// `scripts/test-gpu-path` runs these tests on a GPU, real or in software.
fn cache_device() -> Device {
    match std::env::var_os("HEARTH_TEST_CACHE_DEVICE").is_some_and(|device| device == "gpu") {
        true => Device::Gpu(0),
        false => Device::Cpu,
    }
}

/// A cache with a share of the experts; for the static policy, with a heat map that likes the even ones.
fn cache(path: &Path, share: f32, kind: PolicyKind) -> Arc<ExpertCache> {
    let shape = Gguf::open(path).unwrap().geometry().unwrap();
    let (layers, experts) = ((shape.layers + shape.mtp_layers) as usize, shape.experts as usize);
    let mut heat = HeatMap::new(Fingerprint::of([]), layers, experts);
    if kind == PolicyKind::Static {
        let even: Vec<u32> = (0..shape.experts).step_by(2).collect();
        (0..layers).for_each(|layer| heat.observe(layer, &even));
    }
    let config = CacheConfig {
        device: cache_device(),
        slots: Slots::Share(share),
        policy: PolicyConfig {
            kind,
            ..PolicyConfig::default()
        },
        active: shape.experts_used,
        pins: BTreeMap::new(),
    };
    ExpertCache::start(config, heat, None).unwrap()
}

/// Greedy tokens of `streams` prompts at once, and what the cache did. The prompts are longer than what counts as decoding.
fn run(path: &Path, cache: Option<Arc<ExpertCache>>, streams: u32) -> (Vec<Vec<Token>>, LayerCounts) {
    // The counts go with the model.
    let engine = start(path, cache.clone(), false, streams);
    let texts = texts(&engine, streams);
    (texts, cache.map(|cache| cache.stats().total()).unwrap_or_default())
}

/// The same without a cache, and with all experts on the CPU.
fn run_in_ram(path: &Path, streams: u32) -> Vec<Vec<Token>> {
    texts(&start(path, None, true, streams), streams)
}

fn texts(engine: &LocalEngine, streams: u32) -> Vec<Vec<Token>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let prompts = (0..streams as i32).map(|stream| (0..20).map(|at| 65 + (stream + at * 7) % 60).collect());
    runtime.block_on(futures_util::future::join_all(
        prompts.map(|prompt| generate(engine, prompt)),
    ))
}

fn model(folder: &Path, arch: Arch, mix: &str) -> std::path::PathBuf {
    let (_, shape) = Shape::presets(arch).pop().unwrap();
    let path = folder.join(format!("{}-{mix}.gguf", arch.as_str()));
    synthetic(shape, mix).write(&path, |_, _| ()).unwrap();
    path
}

fn synthetic(shape: Shape, mix: &str) -> Synthetic {
    Synthetic {
        shape,
        mix: Mix::from_name(mix).unwrap(),
        skew: 0.5,
        seed: 7,
        header_only: false,
    }
}

/// A GPU rounds otherwise than the CPU, and otherwise for other batches: the tokens of random models, which are seldom sure
/// of anything, part company after a while, from each of the `plain` ways to compute them. Wrong results part at once.
fn assert_same(plain: &[Vec<Vec<Token>>], cached: &[Vec<Token>], what: &str) {
    assert!(same(plain, cached, what), "{what}:\n{plain:?}\n{cached:?}");
}

fn same(plain: &[Vec<Vec<Token>>], cached: &[Vec<Token>], what: &str) -> bool {
    let exact = cache_device() == Device::Cpu || what.contains("demo-");
    let least = if exact { TOKENS as usize } else { 3 };
    cached.iter().enumerate().all(|(stream, cached)| {
        let same = |plain: &Vec<Vec<Token>>| plain[stream].iter().zip(cached).take_while(|(a, b)| a == b).count();
        let same = plain.iter().map(same).max().unwrap();
        println!("{what}: {same} of {TOKENS} tokens are the same");
        same >= least
    })
}

/// llama.cpp repacks some types for its own CPU kernels, which round differently: there the tokens of an empty cache, which
/// computes all experts with the plain kernels, are what must come out.
fn compare(folder: &Path, arch: Arch, mix: &str, repacked: bool) {
    let path = model(folder, arch, mix);
    compare_file(&path, repacked, 1);
    std::fs::remove_file(path).unwrap();
}

fn compare_file(path: &Path, repacked: bool, streams: u32) {
    let name = path.display();
    let empty = || cache(path, 0.0, PolicyKind::LfuDecay);
    let mut plain = vec![run(path, repacked.then(empty), streams).0];
    if cache_device() != Device::Cpu {
        plain.push(run_in_ram(path, streams));
    }
    for kind in PolicyKind::ALL {
        for share in [0.0, 0.1, 0.5, 1.0] {
            if share == 0.0 && kind != PolicyKind::LfuDecay {
                continue;
            }
            let (mut cached, mut counts) = run(path, Some(cache(path, share, kind)), streams);
            let mut what = format!("{name} {} {share}: {counts:?}", kind.name());
            // Who is decoded with whom is a matter of time, and llama.cpp rounds otherwise in other batches: without the
            // cache, too, one of these runs in twenty differs from the others. What is wrong differs each time.
            for _ in 1..streams.min(5) {
                if same(&plain, &cached, &what) {
                    break;
                }
                plain.push(run(path, repacked.then(empty), streams).0);
                (cached, counts) = run(path, Some(cache(path, share, kind)), streams);
                what = format!("{name} {} {share}: {counts:?}", kind.name());
            }
            assert_same(&plain, &cached, &what);
            assert!(counts.selections > 0, "the experts never came to us: {what}");
            assert_eq!(counts.uploads > 0, share > 0.0, "{what}");
            assert_eq!(counts.hits > 0, share > 0.0, "{what}");
        }
    }
}

#[test]
fn the_same_tokens_for_qwen3next() {
    let folder = tempfile::tempdir().unwrap();
    for (mix, repacked) in [
        ("f16", false),
        ("q6_k", false),
        ("q4_k_m", true),
        ("q8_0", true),
        ("iq4_xs", false),
    ] {
        compare(folder.path(), Arch::Qwen3next, mix, repacked);
    }
}

#[test]
fn the_same_tokens_for_qwen3moe() {
    let folder = tempfile::tempdir().unwrap();
    for (mix, repacked) in [("bf16", false), ("q4_0", true), ("q5_k_m", true), ("nvfp4", false)] {
        compare(folder.path(), Arch::Qwen3moe, mix, repacked);
    }
}

#[test]
fn the_same_tokens_for_gpt_oss_with_its_biases() {
    let folder = tempfile::tempdir().unwrap();
    for (mix, repacked) in [("f16", false), ("mxfp4", true), ("iq3_xxs", false)] {
        compare(folder.path(), Arch::GptOss, mix, repacked);
    }
}

#[test]
fn the_same_tokens_for_gate_and_up_in_one_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut shape) = Shape::presets(Arch::Qwen3next).pop().unwrap();
    shape.fused_gate_up = true;
    let path = folder.path().join("fused.gguf");
    synthetic(shape, "f16").write(&path, |_, _| ()).unwrap();
    compare_file(&path, false, 1);
}

#[test]
fn the_same_tokens_for_eight_streams_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (arch, mix, repacked) in [
        (Arch::Qwen3next, "f16", false),
        (Arch::Qwen3moe, "q4_0", true),
        (Arch::GptOss, "mxfp4", true),
    ] {
        // Of eight streams with quantised weights one soon meets a token where a GPU's rounding decides.
        let (mix, repacked) = match cache_device() {
            Device::Cpu => (mix, repacked),
            Device::Gpu(_) => ("f16", false),
        };
        compare_file(&model(folder.path(), arch, mix), repacked, 8);
    }
}

fn change_all_the_time(cache: &ExpertCache) {
    let start = std::time::Instant::now();
    while cache.stats().layers.is_empty() && start.elapsed().as_secs() < 60 {
        std::thread::yield_now();
    }
    for round in 0..40 {
        let change = Change {
            slots: Some(Slots::Share([0.5, 0.0, 1.0, 0.25][round % 4])),
            policy: Some([PolicyKind::Lru, PolicyKind::LfuDecay][round % 2]),
            pins: Some(BTreeMap::from([(0, vec![3, 5])])),
            reset: round == 20,
        };
        // When the model is gone, so are its layers.
        if cache.change(change).is_err() {
            return;
        }
        // What saves the heat map reads it while layers are made anew.
        assert!(cache.heat().experts() > 0);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Size, policy and pins change while eight streams are decoded: no token differs, and the pinned experts stay.
#[test]
fn a_running_cache_can_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path(), Arch::Qwen3next, "f16");
    let mut plain = vec![run(&path, None, 8).0];
    let what = "changed while it was used";
    // More than once for the same reason as in `compare_file`.
    let mut attempts = 0;
    let (cache, changed) = loop {
        let cache = cache(&path, 0.1, PolicyKind::LfuDecay);
        let changes = std::thread::spawn({
            let cache = cache.clone();
            move || change_all_the_time(&cache)
        });
        let (changed, counts) = run(&path, Some(cache.clone()), 8);
        changes.join().unwrap();
        assert!(counts.hits > 0 && counts.uploads > 0, "{counts:?}");
        attempts += 1;
        if attempts == 5 || same(&plain, &changed, what) {
            break (cache, changed);
        }
        plain.push(run(&path, None, 8).0);
    };
    assert_same(&plain, &changed, what);
    let unknown = |pins| Change {
        pins: Some(pins),
        ..Change::default()
    };
    for (pins, message) in [
        (BTreeMap::from([(99, vec![0])]), "layer 99 has no experts"),
        (BTreeMap::from([(0, vec![9999])]), "not one with the number 9999"),
    ] {
        // The model is gone, and its layers with it.
        let error = cache.change(unknown(pins)).unwrap_err();
        assert!(error.contains(message) || error.contains("has no experts"), "{error}");
    }
}

#[cfg(feature = "demo")]
#[test]
fn the_same_tokens_for_the_built_in_reasoner() {
    let path = hearth::demo::DemoModel::Reasoner.unpack().unwrap();
    compare_file(&path, true, 1);
}
