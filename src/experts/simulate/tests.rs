use proptest::prelude::*;

use super::*;

fn total(rows: &[Row], policy: PolicyKind) -> Vec<&Row> {
    rows.iter()
        .filter(|row| row.layer.is_none() && row.policy == policy)
        .collect()
}

/// Prints the numbers of docs/expert-policies.md: `cargo test --release policies_compared -- --nocapture`. Where nothing
/// follows from the token before, looking ahead must do as well as looking at the past alone.
#[test]
fn policies_compared() {
    let traces = [
        ("small", Synthetic::small().trace().unwrap()),
        ("large", Synthetic::large().trace().unwrap()),
        ("reasoner", reasoner()),
    ];
    for (name, trace) in traces {
        let config = SimulationConfig {
            capacities: vec![0.125, 0.25, 0.5],
            ..SimulationConfig::default()
        };
        let rows = simulate(&trace, &config);
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
        let of = |policy| rows.iter().filter(move |row| row.policy == policy);
        for (foreseeing, counting) in of(PolicyKind::Predictive).zip(of(PolicyKind::LfuDecay)) {
            assert!(foreseeing.hit_rate > counting.hit_rate - 0.01, "{name}: {foreseeing:?}");
        }
    }
}

/// Routing of the built-in reasoner over 40 prompts of many kinds, recorded by `hearth profile --model demo-reasoner
/// --threads 1 --samples 40 --generate 64 --output profile`, which is `profile/routing.trace`.
fn reasoner() -> Trace {
    let bytes = include_bytes!("../../../tests/data/routing/reasoner.trace");
    Trace::read(&bytes[..], 1 << 20).unwrap()
}

/// Rows of `benefit` and of `static`, by capacity.
fn with_few_uploads(trace: &Trace) -> Vec<(Row, Row)> {
    let config = SimulationConfig {
        policies: vec![PolicyKind::Benefit, PolicyKind::Static],
        capacities: vec![0.125, 0.25, 0.5],
        ..SimulationConfig::default()
    };
    let rows = simulate(trace, &config).into_iter().filter(|row| row.layer.is_none());
    let (benefit, fixed): (Vec<Row>, Vec<Row>) = rows.partition(|row| row.policy == PolicyKind::Benefit);
    benefit.into_iter().zip(fixed).collect()
}

#[test]
fn few_uploads_bring_the_reasoner_near_the_optimum() {
    let share = [0.84, 0.93, 0.98];
    for ((row, fixed), share) in with_few_uploads(&reasoner()).iter().zip(share) {
        println!("{:.3} of the optimum, static {:.3}", row.of_optimum, fixed.of_optimum);
        assert!(row.uploads_per_token <= 0.3, "{row:?}");
        assert!(row.of_optimum >= share, "{row:?}");
        assert!(row.hit_rate > fixed.hit_rate + 0.01, "{row:?} {fixed:?}");
    }
}

/// Whether routing hangs on a topic or on nothing, whether experts are alike or not.
#[test]
fn few_uploads_are_never_worse_than_none() {
    let (small, large) = (Synthetic::small(), Synthetic::large());
    let shapes = [
        small.clone(),
        large.clone(),
        Synthetic {
            locality: 0.0,
            ..small.clone()
        },
        Synthetic {
            locality: 0.0,
            skew: 1.2,
            ..small.clone()
        },
        Synthetic {
            locality: 0.0,
            skew: 0.0,
            ..small.clone()
        },
        Synthetic {
            locality: 0.5,
            skew: 1.2,
            topic: 8.0,
            ..small.clone()
        },
        Synthetic {
            locality: 1.0,
            skew: 1.5,
            topic: 4.0,
            prompt: 32,
            ..small
        },
        Synthetic {
            locality: 0.0,
            skew: 0.8,
            requests: 4,
            ..large.clone()
        },
        Synthetic {
            locality: 0.5,
            skew: 0.8,
            topic: 16.0,
            requests: 4,
            ..large
        },
    ];
    for shape in shapes {
        for (row, fixed) in with_few_uploads(&shape.trace().unwrap()) {
            println!("{:.4} {:.4} {:.3}", row.hit_rate, fixed.hit_rate, row.uploads_per_token);
            assert!(row.uploads_per_token <= 0.3, "{shape:?}: {row:?}");
            // Chance, where experts are alike: any of them are as good as any others.
            assert!(row.hit_rate >= fixed.hit_rate - 0.002, "{shape:?}: {row:?} {fixed:?}");
        }
    }
}

#[test]
fn the_second_half_begins_with_a_conversation() {
    let mut trace = Trace::new(vec![0], 4, 1).unwrap();
    let mut push = |phases: &str| {
        for phase in phases.chars() {
            let phase = if phase == 'p' { Phase::Prefill } else { Phase::Decode };
            trace.push(phase, &[0]).unwrap();
        }
        second_half(&trace)
    };
    assert_eq!(push(""), 0);
    assert_eq!(push("pppd"), 2, "there is only one");
    assert_eq!(push("dd"), 3);
    assert_eq!(push("pd"), 6);
    assert_eq!(push("ppdd"), 6, "of three, the first is the first half");
    assert_eq!(push("pddd"), 8);
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
        prop_assert_eq!(belady::hits(&trace, 0, 0..tokens.len(), capacity, 0, false), best_by_force(&tokens, &[], capacity));
        let fills = (0u32..16).filter(|set| set.count_ones() as usize <= capacity);
        let fills = fills.map(|set| (0u16..4).filter(|id| set >> id & 1 == 1).collect::<Vec<_>>());
        let best = fills.map(|kept| best_by_force(&tokens, &kept, capacity)).max();
        prop_assert_eq!(Some(belady::hits(&trace, 0, 0..tokens.len(), capacity, 0, true)), best);
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
                    let most = match kind {
                        PolicyKind::Benefit => 32,
                        _ => policy.uploads_per_prompt,
                    };
                    prop_assert!(on_the_way.len() - waiting <= most);
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
            if kind == PolicyKind::Benefit {
                // Two prompts of eight tokens, which earn less than one upload each.
                let earned = 0.25 * cache.counts().tokens as f64 + 0.4;
                prop_assert!(cache.counts().evictions as f64 <= earned);
            }
            prop_assert!(cache.counts().hits - before.hits <= ids.len() as u64);
            prop_assert!(cache.entries().residents().count() <= capacity);
        }
    }
}
