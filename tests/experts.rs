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
    (texts, cache.map(|cache| cache.counts()).unwrap_or_default())
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

#[test]
fn the_same_tokens_with_any_number_of_copies() {
    let folder = tempfile::tempdir().unwrap();
    for (arch, mix) in [
        (Arch::Qwen3next, "f16"),
        (Arch::Qwen3next, "q4_k_m"),
        (Arch::Qwen3moe, "q8_0"),
        (Arch::GptOss, "mxfp4"),
    ] {
        let path = model(folder.path(), arch, mix);
        let (plain, _) = run(&path, None, 1);
        for share in [0.0, 0.1, 0.5, 1.0] {
            let (cached, counts) = run(&path, Some(share), 1);
            eprintln!("{arch:?} {mix} {share} {counts:?}");
            assert_eq!(plain, cached, "{arch:?} {mix} {share}");
            assert!(counts.selections > 0, "{arch:?} {mix}: the experts never came to us");
            assert_eq!(counts.uploads > 0, share > 0.0);
        }
    }
}
