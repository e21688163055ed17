//! The backend that caches experts: the same tokens as without it, whatever has a copy.

use std::path::Path;
use std::sync::Arc;

use hearth::config::{ModelConfig, ModelSource};
use hearth::engine::local::{LoadSpec, LocalEngine, describe};
use hearth::engine::{Engine, Event, GenerateRequest, Prompt, SamplingOverrides, Token};
use hearth::experts::ExpertCache;
use hearth::experts::layer::LayerCounts;
use hearth::gguf::Gguf;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use hearth::telemetry::Metrics;

const TOKENS: u32 = 64;

fn start(path: &Path, experts: Option<Arc<ExpertCache>>, parallel: u32) -> LocalEngine {
    let config = ModelConfig::new("test", ModelSource::File(path.to_owned()));
    let mut card = describe(&config, &Gguf::open(path).unwrap()).unwrap();
    card.context = 512;
    card.parallel = parallel;
    let spec = LoadSpec {
        path: path.to_owned(),
        context: 512,
        parallel,
        threads: Some(2),
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

/// Greedy tokens of `streams` prompts at once, and what the cache did.
fn run(path: &Path, share: Option<f32>, streams: u32) -> (Vec<Vec<Token>>, LayerCounts) {
    let cache = share.map(|share| Arc::new(ExpertCache::new(share)));
    let engine = start(path, cache.clone(), streams);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let prompts = (0..streams as i32).map(|stream| vec![65 + stream, 70, 75, 80 - stream]);
    let texts = runtime.block_on(futures_util::future::join_all(
        prompts.map(|prompt| generate(&engine, prompt)),
    ));
    (texts, cache.map(|cache| cache.stats().total()).unwrap_or_default())
}

fn model(folder: &Path, arch: Arch, mix: &str) -> std::path::PathBuf {
    let (_, shape) = Shape::presets(arch).pop().unwrap();
    let path = folder.join(format!("{}-{mix}.gguf", arch.as_str()));
    let synthetic = Synthetic {
        shape,
        mix: Mix::from_name(mix).unwrap(),
        skew: 0.5,
        seed: 7,
        header_only: false,
    };
    synthetic.write(&path, |_, _| ()).unwrap();
    path
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
    let baseline = if repacked { Some(0.0) } else { None };
    let (plain, _) = run(path, baseline, streams);
    for share in [0.0, 0.1, 0.5, 1.0] {
        let (cached, counts) = run(path, Some(share), streams);
        eprintln!("{name} {share}: {counts:?}");
        assert!(plain == cached, "{name} {share}:\n{plain:?}\n{cached:?}");
        assert!(counts.selections > 0, "{name}: the experts never came to us");
        assert_eq!(counts.uploads > 0, share > 0.0);
        assert_eq!(counts.hits > 0, share > 0.0);
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
fn the_same_tokens_for_eight_streams_at_once() {
    let folder = tempfile::tempdir().unwrap();
    compare_file(&model(folder.path(), Arch::Qwen3next, "f16"), false, 8);
}

#[cfg(feature = "demo")]
#[test]
fn the_same_tokens_for_the_built_in_reasoner() {
    let path = hearth::demo::DemoModel::Reasoner.unpack().unwrap();
    compare_file(&path, true, 1);
}
