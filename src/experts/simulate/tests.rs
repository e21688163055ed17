use proptest::prelude::*;

use super::*;

fn total(rows: &[Row], policy: PolicyKind) -> Vec<&Row> {
    rows.iter()
        .filter(|row| row.layer.is_none() && row.policy == policy)
        .collect()
}

/// Prints the numbers of docs/expert-policies.md: `cargo test --release policies_compared -- --nocapture`. Where nothing
/// follows from the token before, the default must do as well as those that look at the past alone.
#[test]
fn policies_compared() {
    for (name, shape) in [("small", Synthetic::small()), ("large", Synthetic::large())] {
        let rows = simulate(&shape.trace().unwrap(), &SimulationConfig::default());
        let rows: Vec<&Row> = rows.iter().filter(|row| row.layer.is_none()).collect();
        for row in &rows {
            println!(
                "| {name} | {:>10} | {:>3} | {:.3} | {:.3} | {:.3} | {:.2} |",
                row.policy.name(),
                row.capacity,
                row.hit_rate,
                row.optimum,
                row.of_optimum,
                row.uploads_per_token
            );
        }
        // Where there is nothing to foresee, foreseeing costs nothing, and counting is as good.
        for counting in [PolicyKind::LfuDecay, PolicyKind::Predictive] {
            for row in rows.iter().filter(|row| row.policy == counting) {
                let others = rows.iter().filter(|other| other.capacity == row.capacity);
                let best = others.map(|row| row.hit_rate).fold(0.0, f64::max);
                assert!(row.hit_rate > best - 0.02, "{name}: {row:?}");
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let shape = Synthetic {
        requests: 1,
        ..Synthetic::small()
    };
    let trace = shape.trace().unwrap();
    assert_eq!(shape.trace().unwrap(), trace);
    let other = Synthetic { seed: 2, ..shape };
    assert_ne!(other.trace().unwrap(), trace);
}

#[test]
fn all_or_nothing() {
    let trace = Synthetic::small().trace().unwrap();
    let config = SimulationConfig {
        capacities: vec![0.0, 1.0],
        ..SimulationConfig::default()
    };
    let rows = simulate(&trace, &config);
    for policy in PolicyKind::ALL {
        let [none, all] = total(&rows, policy)[..] else {
            panic!("two rows expected");
        };
        assert_eq!((none.counts.hits, none.counts.uploads), (0, 0));
        assert!(all.hit_rate > 0.99 || policy == PolicyKind::Static, "{all:?}");
    }
}

/// Hits of the best sequence of cache contents, by trying all of them.
fn best_by_force(tokens: &[Vec<u16>], kept: &[u16], capacity: usize) -> u64 {
    let Some((token, rest)) = tokens.split_first() else {
        return 0;
    };
    let hits = token.iter().filter(|id| kept.contains(id)).count() as u64;
    let mut all: Vec<u16> = kept.iter().chain(token).copied().collect();
    all.sort_unstable();
    all.dedup();
    let subsets = (0u32..1 << all.len()).filter(|set| set.count_ones() as usize <= capacity);
    let best = subsets.map(|set| {
        let next: Vec<u16> = (0..)
            .zip(&all)
            .filter(|(bit, _)| set >> bit & 1 == 1)
            .map(|(_, id)| *id)
            .collect();
        best_by_force(rest, &next, capacity)
    });
    hits + best.max().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn belady_is_the_best(
        tokens in prop::collection::vec(prop::sample::subsequence(vec![0u16, 1, 2, 3], 2), 0..7),
        capacity in 0usize..4,
    ) {
        let mut trace = Trace::new(vec![0], 4, 2).unwrap();
        for ids in &tokens {
            trace.push(Phase::Decode, ids).unwrap();
        }
        prop_assert_eq!(belady::hits(&trace, 0, capacity, 0), best_by_force(&tokens, &[], capacity));
    }

    #[test]
    fn policies_keep_their_bounds(
        skew in 0.0f64..2.0,
        locality in 0.0f64..3.0,
        capacity in 0usize..20,
        kind in prop::sample::select(PolicyKind::ALL.to_vec()),
        latency in 1usize..5,
        seed in any::<u64>(),
    ) {
        let shape = Synthetic { layers: 1, experts: 16, requests: 2, prompt: 8, decode: 40, skew, locality, seed, ..Synthetic::small() };
        let trace = shape.trace().unwrap();
        let policy = PolicyConfig { kind, ..PolicyConfig::default() };
        let mut cache = LayerCache::new(16, capacity, policy, Some(&[1.0; 16]));
        let mut on_the_way = VecDeque::new();
        for (token, phase) in trace.phases().iter().enumerate() {
            let ids: Vec<u32> = trace.selection(token, 0).iter().copied().map(u32::from).collect();
            let before = cache.counts();
            match phase {
                Phase::Prefill => cache.prefilled(&ids),
                Phase::Decode => {
                    cache.prompt_ended();
                    let waiting = on_the_way.len();
                    upload(&mut cache, &mut on_the_way, token + latency);
                    prop_assert!(on_the_way.len() - waiting <= policy.uploads_per_prompt);
                    while let Some(upload) = arrived(&mut on_the_way, token) {
                        prop_assert!(cache.entries().entry_of(upload.expert).is_none());
                        prop_assert!(cache.complete(upload));
                    }
                    let waiting = on_the_way.len();
                    cache.decoded(&ids);
                    upload(&mut cache, &mut on_the_way, token + latency);
                    prop_assert!(on_the_way.len() - waiting <= policy.uploads_per_token);
                }
            }
            prop_assert!(cache.counts().hits - before.hits <= ids.len() as u64);
            prop_assert!(cache.entries().residents().count() <= capacity);
        }
    }
}
