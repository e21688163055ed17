//! The best that any policy could do.

use std::ops::Range;

use crate::experts::trace::{Phase, Trace};

/// Hits of Belady's MIN in one layer and in these tokens, after `warm_up` decoded ones: of what is resident and what a token selects, keep
/// what is selected again soonest (Belady, *A study of replacement algorithms for a virtual-storage computer*, IBM Systems
/// Journal 5, 1966). What is not kept is computed on the CPU, so a miss need not be admitted. Nothing is fetched before
/// it was selected once, unless it starts `filled`, with what will be selected first; uploads are not bounded.
pub(super) fn hits(
    trace: &Trace,
    layer: usize,
    tokens: Range<usize>,
    capacity: usize,
    warm_up: usize,
    filled: bool,
) -> u64 {
    let tokens: Vec<usize> = tokens.filter(|token| trace.phases()[*token] == Phase::Decode).collect();
    // For each selection the position at which its expert is selected next.
    let mut next_of = vec![usize::MAX; trace.experts()];
    let mut next = vec![0; tokens.len() * trace.experts_per_token()];
    for (position, token) in tokens.iter().enumerate().rev() {
        let row = &mut next[position * trace.experts_per_token()..];
        for (next, id) in row.iter_mut().zip(trace.selection(*token, layer)) {
            *next = std::mem::replace(&mut next_of[usize::from(*id)], position);
        }
    }
    let mut hits = 0;
    // (next position, expert): sorted, and at most `capacity` after each token.
    let mut kept: Vec<(usize, u16)> = Vec::new();
    if filled {
        // `next_of` tells the first selections now.
        kept.extend(next_of.into_iter().zip(0..).filter(|(next, _)| *next != usize::MAX));
        kept.sort_unstable();
        kept.truncate(capacity);
    }
    for (position, token) in tokens.iter().enumerate() {
        // Who is selected now was kept for just that.
        let resident = kept.partition_point(|(next, _)| *next <= position);
        if position >= warm_up {
            hits += resident as u64;
        }
        kept.drain(..resident);
        let row = &next[position * trace.experts_per_token()..];
        let selected = row.iter().copied().zip(trace.selection(*token, layer).iter().copied());
        kept.extend(selected.filter(|(next, _)| *next != usize::MAX));
        kept.sort_unstable();
        kept.truncate(capacity);
    }
    hits
}
