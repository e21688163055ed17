//! What the policies of the expert cache cost per token, and a whole replay: `cargo bench --bench simulator`.

use std::sync::LazyLock;

use divan::{Bencher, black_box};
use hearth::experts::policy::{LayerCache, PolicyConfig, PolicyKind};
use hearth::experts::simulate::{SimulationConfig, Synthetic, simulate};
use hearth::experts::trace::Trace;

/// Of the shape of Qwen3-Next-80B-A3B: 512 experts, 10 active.
static LARGE: LazyLock<Trace> = LazyLock::new(|| Synthetic::large().trace().expect("a sound shape"));

fn main() {
    divan::main();
}

/// One token in one layer with a quarter of the experts, uploads included.
#[divan::bench(args = PolicyKind::ALL)]
fn decode_one_token(bencher: Bencher, kind: &PolicyKind) {
    let policy = PolicyConfig {
        kind: *kind,
        ..PolicyConfig::default()
    };
    let heat = vec![1.0; LARGE.experts()];
    let mut cache = LayerCache::new(LARGE.experts(), LARGE.experts() / 4, policy, Some(&heat));
    let mut ids: Vec<u32> = Vec::new();
    let mut token = 0;
    bencher.bench_local(|| {
        ids.clear();
        ids.extend(LARGE.selection(token, 0).iter().copied().map(u32::from));
        token = (token + 1) % LARGE.phases().len();
        cache.decoded(black_box(&ids));
        while let Some(upload) = cache.next_upload() {
            cache.complete(upload);
        }
    });
}

/// The second half of a trace of 2048 decoded tokens, all policies, one size of the cache.
#[divan::bench(sample_count = 10)]
fn replay_all(bencher: Bencher) {
    let config = SimulationConfig {
        capacities: vec![0.25],
        ..SimulationConfig::default()
    };
    LazyLock::force(&LARGE);
    bencher.bench(|| simulate(black_box(&LARGE), &config));
}
