//! The backend that caches experts: the same logits as without it, whatever has a copy.
//!
//! The same tokens are put through the same model, in the same batches, with a cache and without. In one sequence on the
//! CPU not a bit may differ. Elsewhere kernels differ by what is computed together, and by how they round.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use hearth::experts::heat::HeatMap;
use hearth::experts::policy::{LayerCounts, PolicyConfig, PolicyKind};
use hearth::experts::{self, CacheConfig, Capacity, Change, ChangeError, Device, ExpertCache, MAX_BLOCK_TOKENS};
use hearth::fingerprint::Fingerprint;
use hearth::gguf::Gguf;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};

/// What llama.cpp's own tests of its kernels (`test-backend-ops`) allow between two backends for one MUL_MAT_ID: the square
/// of the difference over the square of the values. Both round the input to 8 bits, each in its own way.
const ONE_PROJECTION: f64 = 5e-4;
/// Of one block.
const PROJECTIONS: f64 = 3.0;

/// `scripts/test-gpu-path` runs these tests on a GPU, real or in software.
fn cache_device() -> Device {
    let gpu = std::env::var_os("HEARTH_TEST_CACHE_DEVICE").is_some_and(|device| device == "gpu");
    if gpu {
        Device::Gpu(hearth::host::gpus(0)[0].id.expect("a GPU"))
    } else {
        Device::Cpu
    }
}

fn llama() -> &'static LlamaBackend {
    static BACKEND: OnceLock<LlamaBackend> = OnceLock::new();
    BACKEND.get_or_init(|| {
        // Nobody listens.
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().unwrap()
    })
}

fn load(path: &Path, cache: Option<&Arc<ExpertCache>>) -> LlamaModel {
    let layers = if cache_device() == Device::Cpu { 0 } else { 9999 };
    let params = LlamaModelParams::default().with_n_gpu_layers(layers);
    let mut params = pin!(params);
    let load = |params: &LlamaModelParams| LlamaModel::load_from_file(llama(), path, params).unwrap();
    let Some(cache) = cache else {
        return load(&params);
    };
    let pattern = experts::in_main_memory(None, true).unwrap();
    params.as_mut().add_cpu_buft_override(&pattern);
    experts::load_with(cache, || load(&params)).unwrap()
}

/// Tokens of one sequence in a batch.
#[derive(Debug, Clone, Copy)]
struct Part {
    sequence: i32,
    tokens: usize,
}

/// One call of `llama_decode`.
#[derive(Debug, Clone)]
struct Step {
    parts: Vec<Part>,
    prompt: bool,
}

fn step(sequence: i32, tokens: usize) -> Step {
    Step {
        parts: vec![Part { sequence, tokens }],
        prompt: tokens > MAX_BLOCK_TOKENS,
    }
}

/// A prompt that is longer than what is computed with copies, single tokens, and as many as speculation or many streams
/// have: beyond 8, CUDA takes other kernels, which rely on the experts of a token being different.
fn one_sequence() -> Vec<Step> {
    let sizes = [20].into_iter().chain([1; 24]).chain([2, 8, 9, 12, 16, 1, 16, 1]);
    sizes.map(|tokens| step(0, tokens)).collect()
}

/// Eight sequences that are decoded at once, each behind a prompt of its own.
fn eight_sequences(steps: usize) -> Vec<Step> {
    let prompts = (0..8).map(|sequence| step(sequence, 17 + sequence as usize));
    let together = Step {
        parts: (0..8).map(|sequence| Part { sequence, tokens: 1 }).collect(),
        prompt: false,
    };
    prompts.chain(std::iter::repeat_n(together, steps)).collect()
}

/// Computes the steps; the logits of every token, step by step. `between` is called after each step.
fn compute(
    model: &LlamaModel,
    cache: Option<&ExpertCache>,
    steps: &[Step],
    mut between: impl FnMut(usize),
) -> Vec<Vec<Vec<f32>>> {
    let params = LlamaContextParams::default()
        .with_n_ctx(std::num::NonZeroU32::new(1024))
        .with_n_seq_max(8)
        .with_kv_unified(true)
        .with_n_threads(2)
        .with_n_threads_batch(2);
    let mut context: LlamaContext<'_> = model.new_context(llama(), params).unwrap();
    let mut batch = LlamaBatch::new(64, 8);
    let mut positions = [0; 8];
    let mut all = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        batch.clear();
        for part in &step.parts {
            let position = &mut positions[part.sequence as usize];
            for _ in 0..part.tokens {
                let token = LlamaToken(65 + (*position * 7 + part.sequence * 5) % 60);
                batch.add(token, *position, &[part.sequence], true).unwrap();
                *position += 1;
            }
        }
        let tokens = batch.n_tokens();
        if let Some(cache) = cache {
            cache.begin(if step.prompt { 0 } else { tokens as usize });
        }
        context.decode(&mut batch).unwrap();
        all.push(
            (0..tokens)
                .map(|token| context.get_logits_ith(token).to_vec())
                .collect(),
        );
        if let Some(cache) = cache
            && step.prompt
        {
            cache.prompt_ended();
        }
        between(number);
    }
    all
}

/// Logits, and what the cache did.
fn run(path: &Path, cache: Option<Arc<ExpertCache>>, steps: &[Step]) -> (Vec<Vec<Vec<f32>>>, LayerCounts) {
    let model = load(path, cache.as_ref());
    let settle = |_| {
        if let Some(cache) = &cache {
            cache.settle();
        }
    };
    let logits = compute(&model, cache.as_deref(), steps, settle);
    // The counts go with the model.
    (logits, cache.map(|cache| cache.stats().total()).unwrap_or_default())
}

/// A cache with a share of the experts; for the static policy, with a heat map that likes the even ones.
fn cache(path: &Path, share: f32, kind: PolicyKind) -> Arc<ExpertCache> {
    let step = if kind == PolicyKind::Static { Some(2) } else { None };
    cache_with_heat(path, share, kind, step)
}

fn cache_with_heat(path: &Path, share: f32, kind: PolicyKind, every: Option<usize>) -> Arc<ExpertCache> {
    let shape = Gguf::open(path).unwrap().geometry().unwrap();
    let (layers, experts) = ((shape.layers + shape.mtp_layers) as usize, shape.experts as usize);
    let mut heat = HeatMap::new(Fingerprint::of([]), layers, experts);
    if let Some(every) = every {
        let liked: Vec<u32> = (0..shape.experts).step_by(every).collect();
        (0..layers).for_each(|layer| heat.observe(layer, &liked));
    }
    let config = CacheConfig {
        device: cache_device(),
        capacity: Capacity::Share(share),
        policy: PolicyConfig {
            kind,
            ..PolicyConfig::default()
        },
        experts_per_token: shape.experts_per_token,
        pinned: BTreeMap::new(),
    };
    ExpertCache::start(config, heat, None).unwrap()
}

fn model(folder: &Path, arch: Arch, mix: &str) -> PathBuf {
    let shape = Shape::preset(arch, "tiny").unwrap();
    write(folder, shape, mix)
}

fn write(folder: &Path, shape: Shape, mix: &str) -> PathBuf {
    let path = folder.join(format!("{}-{mix}.gguf", shape.arch.as_str()));
    let synthetic = Synthetic {
        skew: 0.5,
        seed: 7,
        ..Synthetic::new(shape, Mix::from_name(mix).unwrap())
    };
    synthetic.write(&path, |_, _| ()).unwrap();
    path
}

/// The normalised square of the difference of two tokens' logits.
fn difference(expected: &[f32], found: &[f32]) -> f64 {
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
/// a kind, the largest of all kinds: single tokens, up to 8 and up to 16 of them, for which GPUs have kernels of their own, and
/// prompts. What is wrong with a kind of batch shows in all of its tokens.
fn distance(expected: &[Vec<Vec<f32>>], found: &[Vec<Vec<f32>>]) -> f64 {
    assert_eq!(expected.len(), found.len());
    let mut kinds: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (expected, found) in expected.iter().zip(found) {
        let differences = expected
            .iter()
            .zip(found)
            .map(|(expected, found)| difference(expected, found));
        let kind = [1, 8, MAX_BLOCK_TOKENS].partition_point(|most| *most < expected.len());
        kinds.entry(kind).or_default().extend(differences);
    }
    kinds.into_values().fold(0.0, |largest: f64, mut differences| {
        // `f64::max` would hide what is no number.
        assert!(differences.iter().all(|difference| difference.is_finite()));
        differences.sort_by(f64::total_cmp);
        let at = match cache_device() {
            Device::Cpu => differences.len() - 1,
            Device::Gpu(_) => (differences.len() - 1) / 2,
        };
        largest.max(differences[at])
    })
}

fn tolerance(path: &Path) -> f64 {
    let layers = Gguf::open(path).unwrap().geometry().unwrap().layers;
    ONE_PROJECTION * PROJECTIONS * f64::from(layers)
}

/// Not a bit may differ as long as the CPU computes one token at a time, each row by itself whoever computes it. Rows that
/// are computed together are rounded in another order, which the keys and values of later tokens remember.
fn assert_same(path: &Path, steps: &[Step], expected: &[Vec<Vec<f32>>], found: &[Vec<Vec<f32>>], what: &str) {
    let alone = |step: &&Step| step.prompt || step.parts.iter().map(|part| part.tokens).sum::<usize>() == 1;
    let first = steps.iter().take_while(alone).count();
    let alone = distance(&expected[..first], &found[..first]);
    let together = distance(&expected[first..], &found[first..]);
    println!("{what}: {alone:e} alone, {together:e} together");
    assert!(cache_device() != Device::Cpu || alone == 0.0, "{what}: {alone:e}");
    assert!(
        alone.max(together) <= tolerance(path),
        "{what}: {alone:e}, {together:e}"
    );
}

/// llama.cpp repacks some types for its own CPU kernels, which round differently: there an empty cache, which computes all
/// experts with the plain kernels, is what must come out.
fn compare(path: &Path, repacked: bool, steps: &[Step]) {
    let name = path.file_stem().unwrap().display().to_string();
    let (stock, _) = run(path, None, steps);
    let (empty, _) = run(path, Some(cache(path, 0.0, PolicyKind::LfuDecay)), steps);
    let between = distance(&stock, &empty);
    assert!(between <= tolerance(path), "{name}: {between:e} from llama.cpp's own");
    let expected = if repacked { &empty } else { &stock };
    for kind in PolicyKind::ALL {
        for share in [0.1, 0.5, 1.0] {
            let (found, counts) = run(path, Some(cache(path, share, kind)), steps);
            let what = format!("{name} {} {share}: {counts:?}", kind.name());
            assert_same(path, steps, expected, &found, &what);
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
    let path = model(folder.path(), Arch::Qwen3next, "f16");
    // On a GPU prompts pass the cache by, so a single token comes first: what is changed must be there.
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
    assert_same(&path, &steps, &expected, &found, "changed while it was used");
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
