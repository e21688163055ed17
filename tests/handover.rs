//! What a block of experts costs beside arithmetic, held by counters, which are the same on any machine: a test fails when one
//! grows. docs/expert-cache.md has the same budget. `scripts/test-gpu-path` runs this on a GPU, real or in software.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

use hearth::experts::heat::HeatMap;
use hearth::experts::policy::{PolicyConfig, PolicyKind};
use hearth::experts::{self, CacheConfig, Capacity, Device, ExpertCache, WorkCounts};
use hearth::fingerprint::Fingerprint;
use hearth::gguf::Gguf;
use hearth::synthetic::{Arch, Mix, Shape, Synthetic};
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what Rust code allocates, thread by thread; llama.cpp's own allocations are none of these.
struct Counting;

#[expect(unsafe_code, reason = "an allocator is made of such functions")]
// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn device() -> Device {
    let gpu = std::env::var_os("HEARTH_TEST_CACHE_DEVICE").is_some_and(|device| device == "gpu");
    if gpu {
        Device::Gpu(hearth::host::gpus(0)[0].id.expect("a GPU"))
    } else {
        Device::Cpu
    }
}

/// Experts that are hot from the start, every so many, and stay so.
fn cache(path: &Path, every: Option<usize>) -> Arc<ExpertCache> {
    let shape = Gguf::open(path).unwrap().geometry().unwrap();
    let (layers, experts) = ((shape.layers + shape.mtp_layers) as usize, shape.experts as usize);
    let mut heat = HeatMap::new(Fingerprint::of([]), layers, experts);
    let liked: Vec<u32> = every.map_or_else(Vec::new, |every| (0..shape.experts).step_by(every).collect());
    (0..layers).for_each(|layer| heat.observe(layer, &liked));
    let config = CacheConfig {
        device: device(),
        capacity: Capacity::PerLayer(liked.len()),
        policy: PolicyConfig {
            kind: PolicyKind::Static,
            ..PolicyConfig::default()
        },
        experts_per_token: shape.experts_per_token,
        pinned: BTreeMap::new(),
    };
    ExpertCache::start(config, heat, None).unwrap()
}

/// What was done for the blocks of 32 decoded tokens, once nothing is new any more, and what was allocated in that time on the
/// thread that decodes.
fn decode(path: &Path, cache: &Arc<ExpertCache>) -> (WorkCounts, u64) {
    send_logs_to_tracing(LogOptions::default());
    let llama = LlamaBackend::init().unwrap();
    let layers = if device() == Device::Cpu { 0 } else { 9999 };
    let mut params = pin!(LlamaModelParams::default().with_n_gpu_layers(layers));
    let pattern = experts::in_main_memory(None, true).unwrap();
    params.as_mut().add_cpu_buft_override(&pattern);
    let load = || LlamaModel::load_from_file(&llama, path, &params).unwrap();
    let model = experts::load_with(cache, load).unwrap();
    let params = LlamaContextParams::default()
        .with_n_ctx(std::num::NonZeroU32::new(512))
        .with_n_threads(2);
    let mut context = model.new_context(&llama, params).unwrap();
    let mut batch = LlamaBatch::new(1, 1);
    let mut decode = |positions: std::ops::Range<i32>| {
        for position in positions {
            batch.clear();
            let token = LlamaToken(65 + position * 7 % 60);
            batch.add(token, position, &[0], true).unwrap();
            cache.begin(1);
            context.decode(&mut batch).unwrap();
            cache.settle();
        }
    };
    decode(0..48);
    let (work, allocations) = (cache.stats().work, ALLOCATIONS.get());
    decode(48..80);
    let allocations = ALLOCATIONS.get() - allocations;
    (cache.stats().work.since(work), allocations)
}

/// One layer and token costs at most this.
#[test]
fn a_decoded_token_stays_within_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let shape = Shape::preset(Arch::Qwen3next, "tiny").unwrap();
    let layers = u64::from(shape.layers);
    let path = folder.path().join("model.gguf");
    let synthetic = Synthetic {
        seed: 7,
        ..Synthetic::new(shape, Mix::from_name("q4_k_m").unwrap())
    };
    synthetic.write(&path, |_, _| ()).unwrap();
    // Copies of all experts, of a quarter, and none.
    for every in [Some(1), Some(4), None] {
        let cache = cache(&path, every);
        let (work, allocations) = decode(&path, &cache);
        println!("every {every:?}: {work:?}, {allocations} allocations");
        let blocks = 32 * layers;
        assert_eq!(work.blocks, blocks);
        // The older way is measured only, for the table.
        if std::env::var_os("HEARTH_EXPERT_HANDOVER").is_some() {
            continue;
        }
        assert_eq!((work.recognitions, work.tables), (0, 0));
        // Four for a token: the batch.
        match (device(), every) {
            (Device::Gpu(_), None) => assert_eq!((work.waits, work.graphs, allocations), (blocks, blocks, 0)),
            (Device::Gpu(_), _) => {
                // Now and then a block is computed without copies, to know what they save: a graph less, an upload more.
                let tried = 2 * blocks - work.graphs;
                assert!(tried <= blocks / 32, "{work:?}");
                assert_eq!((work.waits, work.downloads), (blocks, blocks));
                assert_eq!(work.uploads, blocks + tried);
                assert_eq!(allocations, 0);
            }
            (Device::Cpu, Some(4)) => {}
            (Device::Cpu, _) => {
                assert_eq!((work.graphs, work.cold_graphs), (blocks, 0));
                assert_eq!(allocations, 0);
            }
        }
    }
}
