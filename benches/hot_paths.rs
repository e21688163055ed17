//! What happens once per token or per request: `cargo bench`.
//!
//! The whole system's overhead over llama.cpp is measured by `hearth benchmark --overhead`.

use std::sync::LazyLock;

use divan::{Bencher, black_box};
use hearth::config::{ModelConfig, ModelSource};
use hearth::demo::DemoModel;
use hearth::engine::local::text::TextAssembler;
use hearth::engine::local::{LoadSpec, LocalEngine, Placement, argmax};
use hearth::engine::{Event, GenerateRequest, Prompt, SamplingOverrides, Token, TokenEngine};
use hearth::gguf::Gguf;
use hearth::models::describe;
use hearth::telemetry::Metrics;
use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;

/// The vocabulary of Qwen3-Next.
const VOCABULARY: usize = 151_936;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
});

static ENGINE: LazyLock<LocalEngine> = LazyLock::new(|| {
    let path = DemoModel::Reasoner.unpack().expect("the built-in model");
    let config = ModelConfig::new("bench", ModelSource::File(path.clone()));
    let gguf = Gguf::open(&path).expect("a sound file");
    let info = describe(&config, &gguf).expect("a model");
    let spec = LoadSpec {
        path,
        context: 1024,
        parallel: 1,
        batch: 512,
        pool: false,
        yarn: None,
        draft_model: None,
        threads: 1.into(),
        max_pause: std::time::Duration::from_millis(500),
        prepares: false,
        prompt_cache: 0,
        saved: None,
        placement: Placement::default(),
        experts: None,
        embedding: None,
        draft: None,
    };
    let engine = LocalEngine::start(info, spec, 8, Metrics::new().model("bench")).expect("a thread");
    engine.wait_until_loaded(|_| ()).expect("the model loads");
    engine
});

fn main() {
    divan::main();
}

fn sentence() -> String {
    "What is the weather in Paris on Monday at noon? ".repeat(20)
}

#[divan::bench]
fn tokenize_1_kb(bencher: Bencher) {
    let text = sentence();
    bencher.bench(|| RUNTIME.block_on(ENGINE.tokenize(black_box(text.clone()), true, true)));
}

#[divan::bench]
fn detokenize_1_kb(bencher: Bencher) {
    let tokens: Vec<Token> = RUNTIME
        .block_on(ENGINE.tokenize(sentence(), true, true))
        .expect("tokens");
    bencher.bench(|| RUNTIME.block_on(ENGINE.token_pieces(black_box(tokens.clone()))));
}

#[divan::bench]
fn assemble_256_tokens_with_stops(bencher: Bencher) {
    bencher.bench(|| {
        let mut text = TextAssembler::new(vec!["</s>".into(), "\n\nUser:".into()]);
        for token in 0..256 {
            black_box(text.push(token, b" word"));
        }
    });
}

#[divan::bench]
fn encode_sse_chunk(bencher: Bencher) {
    bencher.bench(|| {
        hearth::api::sse_chunk(&serde_json::json!({
            "id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": {"content": black_box(" word")}, "finish_reason": null}],
        }))
    });
}

fn logits() -> Vec<f32> {
    (0..VOCABULARY)
        .map(|i| f32::from(u16::try_from(i * 7919 % 65_536).unwrap_or(0)) / 4096.0)
        .collect()
}

#[divan::bench]
fn greedy_150k(bencher: Bencher) {
    let logits = logits();
    bencher.bench(|| argmax(black_box(&logits)));
}

#[divan::bench]
fn chain_150k(bencher: Bencher) {
    let logits = logits();
    let mut chain = LlamaSampler::chain(
        [
            LlamaSampler::top_k(20),
            LlamaSampler::top_p(0.8, 1),
            LlamaSampler::temp(0.7),
            LlamaSampler::dist(1),
        ],
        true,
    );
    bencher.bench_local(|| {
        let candidates = (0..)
            .zip(&logits)
            .map(|(id, logit)| LlamaTokenData::new(LlamaToken(id), *logit, 0.0));
        let mut array = LlamaTokenDataArray::from_iter(candidates, false);
        array.apply_sampler(&mut chain);
        array.selected_token()
    });
}

/// From `submit` through the queue and one computed token to the end.
#[divan::bench]
fn submit_one_token(bencher: Bencher) {
    let greedy = SamplingOverrides {
        temperature: Some(0.0),
        ..SamplingOverrides::default()
    };
    let request = GenerateRequest {
        max_tokens: Some(1),
        ignore_eos: true,
        cache_prompt: false,
        ..GenerateRequest::new(
            Prompt::Tokens(vec![1, 2, 3]),
            greedy.resolve(Vec::new()).expect("in range"),
        )
    };
    bencher.bench(|| {
        RUNTIME.block_on(async {
            let mut events = ENGINE.submit(request.clone()).await.expect("a slot");
            while let Some(event) = events.next().await {
                if matches!(event, Event::Finished { .. }) {
                    return;
                }
            }
        });
    });
}
