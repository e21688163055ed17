//! Sets of characters.

/// A set of Unicode code points.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Class {
    /// Inclusive, sorted, and neither overlapping nor adjacent.
    ranges: Box<[(u32, u32)]>,
    /// Those below 128, a bit each.
    ascii: u128,
}

pub(super) const MAX_CHARACTER: u32 = 0x10_FFFF;

impl Class {
    pub(super) fn new(mut ranges: Vec<(u32, u32)>, negated: bool) -> Self {
        ranges.retain(|(low, high)| low <= high && *low <= MAX_CHARACTER);
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            let high = high.min(MAX_CHARACTER);
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        if negated {
            merged = complement(&merged);
        }
        let ascii = (0..128u32).filter(|character| contains(&merged, *character));
        Self {
            ascii: ascii.fold(0, |bits, character| bits | 1 << character),
            ranges: merged.into(),
        }
    }

    pub(super) fn contains(&self, character: u32) -> bool {
        match character {
            0..128 => self.ascii & (1 << character) != 0,
            _ => contains(&self.ranges, character),
        }
    }

    /// Whether any character of an inclusive range is in the set.
    pub(super) fn intersects(&self, low: u32, high: u32) -> bool {
        let first = self.ranges.partition_point(|range| range.1 < low);
        self.ranges.get(first).is_some_and(|range| range.0 <= high)
    }

    /// Whether all characters of an inclusive range are in the set.
    pub(super) fn covers(&self, low: u32, high: u32) -> bool {
        let first = self.ranges.partition_point(|range| range.1 < low);
        self.ranges
            .get(first)
            .is_some_and(|range| range.0 <= low && high <= range.1)
    }
}

fn contains(ranges: &[(u32, u32)], character: u32) -> bool {
    let first = ranges.partition_point(|range| range.1 < character);
    ranges.get(first).is_some_and(|range| range.0 <= character)
}

fn complement(ranges: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut next = 0;
    let mut out = Vec::with_capacity(ranges.len() + 1);
    for (low, high) in ranges {
        if *low > next {
            out.push((next, low - 1));
        }
        next = high + 1;
    }
    if next <= MAX_CHARACTER {
        out.push((next, MAX_CHARACTER));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sets_are_what_their_ranges_say(ranges in prop::collection::vec((0u32..300, 0u32..300), 0..8), negated: bool, low in 0u32..300, span in 0u32..40) {
            let class = Class::new(ranges.clone(), negated);
            let inside = |c: u32| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != negated;
            for character in 0..310 {
                prop_assert_eq!(class.contains(character), inside(character));
            }
            let high = low + span;
            prop_assert_eq!(class.intersects(low, high), (low..=high).any(inside));
            prop_assert_eq!(class.covers(low, high), (low..=high).all(inside));
        }
    }
}
