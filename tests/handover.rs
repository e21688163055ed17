//! What a block of experts costs beside arithmetic, held by counters, which are the same on any machine: a test fails when one
//! grows. docs/expert-cache.md has the same budget. `scripts/test-gpu-path` runs this on a GPU, real or in software.

#[path = "common/cached.rs"]
mod cached;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use cached::{cache_device, cache_with_heat, llama, load, model};
use hearth::experts::policy::PolicyKind;
use hearth::experts::{Device, ExpertCache, MAX_QUEUED_TOKENS, WorkCounts};
use hearth::gguf::Gguf;
use hearth::synthetic::Arch;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::token::LlamaToken;

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

/// What was done for the blocks of 32 decoded tokens, once nothing is new any more, and what was allocated in that time on the
/// thread that decodes.
fn decode(path: &Path, cache: &Arc<ExpertCache>) -> (WorkCounts, u64) {
    let model = load(path, Some(cache));
    let params = LlamaContextParams::default()
        .with_n_ctx(std::num::NonZeroU32::new(512))
        .with_n_threads(2);
    let mut context = model.new_context(llama(), params).unwrap();
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
    let path = model(folder.path(), Arch::Qwen3next, "q4_k_m");
    let layers = u64::from(Gguf::open(&path).unwrap().geometry().unwrap().layers);
    // Experts that are hot from the start, and stay so: all, every fourth, and none.
    for (share, every) in [(1.0, Some(1)), (0.25, Some(4)), (0.0, None)] {
        let cache = cache_with_heat(&path, share, PolicyKind::Static, every);
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
        match (cache_device(), every) {
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

/// Which experts a prompt selects is seen wherever it is computed. On a GPU only those without a copy come from main memory.
#[test]
fn a_prompt_is_seen_and_needs_no_expert_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path(), Arch::Qwen3next, "q4_k_m");
    for (share, every) in [(1.0, Some(1)), (0.25, Some(4)), (0.0, None)] {
        let cache = cache_with_heat(&path, share, PolicyKind::Static, every);
        let model = load(&path, Some(&cache));
        let mut context = model.new_context(llama(), LlamaContextParams::default()).unwrap();
        let tokens = MAX_QUEUED_TOKENS + 72;
        let mut batch = LlamaBatch::new(tokens, 1);
        let mut decode = |positions: std::ops::Range<usize>| {
            batch.clear();
            let last = positions.end - 1;
            for position in positions {
                let token = LlamaToken(65 + i32::try_from(position).unwrap() * 7 % 60);
                let position = i32::try_from(position).unwrap();
                batch.add(token, position, &[0], position as usize == last).unwrap();
            }
            cache.begin(0);
            context.decode(&mut batch).unwrap();
            cache.settle();
        };
        // The copies are there before the prompt.
        decode(0..1);
        decode(1..2);
        let before = cache.stats();
        decode(2..tokens + 2);
        let after = cache.stats();
        let work = after.work.since(before.work);
        println!("every {every:?}: {work:?}");
        let per_token = after.experts_per_token as usize;
        let (mut large, mut seen, mut with_copy) = (0, 0, 0);
        for (before, after) in before.layers.iter().zip(&after.layers) {
            let selected = |expert: usize| after.selected[expert] - before.selected[expert];
            let experts = 0..after.experts;
            // The last layer may compute the last token alone.
            let all: u64 = experts.clone().map(selected).sum();
            if all == per_token as u64 {
                continue;
            }
            assert_eq!(all, (tokens * per_token) as u64);
            large += 1;
            seen += experts.clone().filter(|expert| selected(*expert) > 0).count() as u64;
            let resident = |expert: &usize| after.resident.contains(&u32::try_from(*expert).unwrap());
            with_copy += experts
                .filter(|expert| selected(*expert) > 0 && resident(expert))
                .count() as u64;
        }
        assert!(large + 1 >= after.layers.len() as u64, "{large}");
        match cache_device() {
            Device::Cpu => assert_eq!(work.large_blocks, 0),
            Device::Gpu(_) if std::env::var_os("HEARTH_EXPERT_HANDOVER").is_some() => {}
            Device::Gpu(_) => {
                assert_eq!(work.large_blocks, large);
                assert_eq!((work.fetched, work.resident), (seen - with_copy, with_copy));
                assert_eq!(work.fetched == 0, every == Some(1));
                assert_eq!(work.resident == 0, every.is_none());
            }
        }
    }
}
