//! Which entries a batch is computed with, and how many entries a cache needs for that.
//!
//! The hot half of a block has the shape of the whole block, so every selected expert needs an entry, also one without a
//! copy. It gets a *stand-in*: any entry that nobody writes. What comes out of it is replaced by the cold half.
//!
//! No token may name an entry twice. A router never does, and kernels rely on it: those that sort a batch by experts count
//! an expert once per token. With duplicates CUDA writes through uninitialised indices or aborts (`mm_ids_helper` in
//! `mmid.cu`, the fallback of `ggml_cuda_mul_mat_id`), Metal adds indices up (`kernel_mul_mm_id_map0`). Which kernel runs
//! hangs on card, data type, shape and number of tokens, so the rule holds for all batches. A single token is never sorted: with
//! quantized weights it may be computed with one entry of zeros for all experts without a copy.

/// Tokens of a block that is divided into a hot and a cold half at most. Larger batches are prefill: in main memory copies are
/// of no use there, and a GPU of which the CPU has to wait for several times is left to llama.cpp's own way.
pub const MAX_BLOCK_TOKENS: usize = 16;

/// The same where blocks stand in the GPU's own queue. Beyond it the GPU computes all experts, and those without a copy come
/// to it. An estimate: with 512 experts of 1.9 MB, 10 per token, the CPU (60 GB/s, 0.5 TFLOP/s) computes those that lack a
/// copy sooner than PCIe 4.0 (25 GB/s) brings them for up to 200 to 500 tokens; with slower memory or cores it is fewer.
pub const MAX_QUEUED_TOKENS: usize = 128;

/// Uploads of a layer that may be under way, and leave entries out, without a cache of the least size being useless.
const UNDER_WAY: usize = 2;

/// Entries of zeros beside those for copies, none of them ever written: so many that with `capacity` copies, but for
/// [`UNDER_WAY`], there are stand-ins for all experts of a token.
#[must_use]
pub fn spare_entries(capacity: usize, experts_per_token: usize) -> usize {
    match capacity {
        0 => 0,
        _ => (experts_per_token + UNDER_WAY).saturating_sub(capacity).max(1),
    }
}

/// Entries that are allocated in each layer for so many copies.
#[must_use]
pub fn allocated_entries(capacity: usize, experts_per_token: usize) -> usize {
    capacity + spare_entries(capacity, experts_per_token)
}

/// The most copies per layer that so many allocated entries hold.
#[must_use]
pub fn capacity_of(entries: usize, experts_per_token: usize) -> usize {
    match entries {
        entries if entries < experts_per_token + UNDER_WAY => 0,
        entries => entries.saturating_sub(1),
    }
}

/// Stand-ins beside the spare entries that have to be acquired before [`HotIds::assign`]: enough for the token that has the
/// fewest copies. `hot` has the entries of the selected experts, token by token; `None` is an expert without a copy.
#[must_use]
pub fn missing_stand_ins(hot: &[Option<u32>], experts_per_token: usize, spare: usize) -> usize {
    let tokens = hot.chunks(experts_per_token.max(1));
    let cold = |token: &[Option<u32>]| token.iter().filter(|entry| entry.is_none()).count();
    match tokens.map(cold).max() {
        // Any entry may be one of a token's own: only so many are enough for sure.
        Some(cold) if cold > spare => experts_per_token.saturating_sub(spare),
        _ => 0,
    }
}

/// The ids of hot halves; kept, so that nothing is allocated per token.
#[derive(Debug, Default)]
pub struct HotIds {
    ids: Vec<i32>,
    /// By entry: the last token that was given it.
    given_to: Vec<u32>,
    token: u32,
}

impl HotIds {
    /// The entry of each selected expert, in the order of `hot`. `stand_ins` differ from each other; all entries are below
    /// `entries`.
    ///
    /// `None` if a token would name an entry twice, because its experts do or because there are too few stand-ins: then the
    /// block cannot be computed with copies.
    pub fn assign(
        &mut self,
        hot: &[Option<u32>],
        experts_per_token: usize,
        stand_ins: &[u32],
        entries: usize,
    ) -> Option<&[i32]> {
        self.ids.clear();
        if self.given_to.len() < entries || self.token > u32::MAX / 2 {
            self.given_to.clear();
            self.given_to.resize(entries, 0);
            self.token = 0;
        }
        for token in hot.chunks(experts_per_token.max(1)) {
            self.token += 1;
            for entry in token.iter().flatten() {
                self.give(*entry)?;
            }
            let mut others = stand_ins.iter().copied();
            for entry in token {
                let entry = match entry {
                    Some(entry) => *entry,
                    None => others.find(|other| self.give(*other).is_some())?,
                };
                self.ids.push(i32::try_from(entry).ok()?);
            }
        }
        Some(&self.ids)
    }

    /// What [`HotIds::assign`] has chosen last.
    pub fn get(&self) -> &[i32] {
        &self.ids
    }

    /// Marks an entry as the current token's; `None` if it is already, or does not exist.
    fn give(&mut self, entry: u32) -> Option<()> {
        let given_to = self.given_to.get_mut(entry as usize)?;
        (std::mem::replace(given_to, self.token) != self.token).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(count: usize) -> u32 {
        u32::try_from(count).unwrap()
    }

    fn twice(ids: &[i32]) -> bool {
        (1..ids.len()).any(|at| ids[..at].contains(&ids[at]))
    }

    #[test]
    fn experts_without_a_copy_get_entries_of_their_own() {
        let mut ids = HotIds::default();
        let hot = [Some(3), None, None, None, Some(0), Some(1)];
        assert_eq!(ids.assign(&hot, 3, &[4, 0, 1], 5), Some(&[3, 4, 0, 4, 0, 1][..]));
        // Two stand-ins, but one of them is the second token's own.
        assert_eq!(
            ids.assign(&[None, None, Some(1), None], 2, &[1, 4], 5),
            Some(&[1, 4, 1, 4][..])
        );
        assert_eq!(ids.assign(&[None, None, None], 3, &[1, 4], 5), None);
        // No router selects an expert twice; should one do so, nothing is computed with it.
        assert_eq!(ids.assign(&[Some(1), Some(1)], 2, &[], 5), None);
        assert_eq!(ids.assign(&[Some(5)], 1, &[], 5), None);
    }

    #[test]
    fn what_is_allocated() {
        assert_eq!(allocated_entries(0, 10), 0);
        assert_eq!(
            [1, 10, 11, 12, 100].map(|capacity| allocated_entries(capacity, 10)),
            [12, 12, 12, 13, 101]
        );
        assert_eq!(
            [0, 11, 12, 13, 101].map(|entries| capacity_of(entries, 10)),
            [0, 0, 11, 12, 100]
        );
    }

    proptest! {
        #[test]
        fn a_capacity_is_the_largest_that_fits(entries in 0usize..200, experts_per_token in 1usize..20) {
            let capacity = capacity_of(entries, experts_per_token);
            prop_assert!(allocated_entries(capacity, experts_per_token) <= entries);
            prop_assert!(allocated_entries(capacity + 1, experts_per_token) > entries);
        }

        /// Any batch, any copies: the acquired entries are enough, each selected expert gets one entry, those with a copy
        /// their own, and none of a token's is named twice.
        #[test]
        fn no_token_names_an_entry_twice(
            capacity in 1usize..40,
            experts_per_token in 1usize..12,
            tokens in 1usize..=MAX_BLOCK_TOKENS,
            resident in 0usize..40,
            seed in any::<u64>(),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let resident = resident.min(capacity);
            let mut hot = Vec::new();
            for _ in 0..tokens {
                let mut own: Vec<u32> = (0..number(resident)).collect();
                random.shuffle(&mut own);
                let mut own = own.into_iter();
                hot.extend((0..experts_per_token).map(|_| if random.bool() { own.next() } else { None }));
            }
            let spare = spare_entries(capacity, experts_per_token);
            let entries = allocated_entries(capacity, experts_per_token);
            let missing = missing_stand_ins(&hot, experts_per_token, spare);
            // With all copies there, but for those under way, there always are enough.
            prop_assert!(missing <= capacity.saturating_sub(UNDER_WAY));
            let acquired = 0..number(missing.min(resident));
            let stand_ins: Vec<u32> = (number(capacity)..number(entries)).chain(acquired).collect();
            let mut ids = HotIds::default();
            let Some(ids) = ids.assign(&hot, experts_per_token, &stand_ins, entries) else {
                prop_assert!(resident < missing);
                return Ok(());
            };
            prop_assert_eq!(ids.len(), hot.len());
            for (id, entry) in ids.iter().zip(&hot) {
                let id = u32::try_from(*id).unwrap();
                prop_assert!(id < number(entries));
                prop_assert!(entry.is_none_or(|entry| entry == id));
            }
            prop_assert!(!ids.chunks(experts_per_token).any(twice), "{:?}", ids);
        }
    }
}
