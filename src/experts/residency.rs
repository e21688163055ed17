//! Which expert of a layer is in which entry of its cache.
//!
//! Plain data without locks: each layer has one [`EntryTable`] behind a lock of its own. Nothing here allocates after
//! [`EntryTable::new`], so that all of it may run once per token and layer.
//!
//! An entry goes from free to *loading* (its bytes are on the way, nobody sees it) to *resident* (readers may use it). When
//! its expert has to go while a reader still uses it, it is *evicting*: no new reader finds it, and the last one that
//! leaves makes it free. So an entry in use is never overwritten, and a half-written one never read.

/// What an entry is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// Holds nothing.
    Free,
    /// The expert is being copied into it.
    Loading(u32),
    /// Holds a complete copy of the expert.
    Resident(u32),
    /// Holds a copy that readers still use, and will be free after them.
    Evicting(u32),
}

/// An expert that is to be copied into an entry, until [`EntryTable::complete`] or [`EntryTable::abandon`] is told how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    pub expert: u32,
    pub entry: u32,
    /// Tells this upload from earlier ones into the same entry.
    ticket: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    state: EntryState,
    /// Readers between [`EntryTable::acquire`] and [`EntryTable::release`].
    readers: u32,
    /// Of the last upload into this entry.
    ticket: u64,
}

/// The entries of one layer.
#[derive(Debug, Clone)]
pub struct EntryTable {
    /// By expert: the entry that it is in or on the way to, unless that is being evicted.
    entry_of: Vec<Option<u32>>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    tickets: u64,
    /// Changes of who has a complete copy.
    changes: u64,
    /// Readers of all entries, between [`EntryTable::hold`] and [`EntryTable::let_go`].
    holders: u32,
}

impl EntryTable {
    /// `capacity` free entries, at most one per expert.
    #[must_use]
    pub fn new(experts: usize, capacity: usize) -> Self {
        let empty = Entry {
            state: EntryState::Free,
            readers: 0,
            ticket: 0,
        };
        let capacity = capacity.min(experts);
        Self {
            entry_of: vec![None; experts],
            entries: vec![empty; capacity],
            free: (0..).take(capacity).collect(),
            tickets: 0,
            changes: 0,
            holders: 0,
        }
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.entry_of.len()
    }

    /// Number of entries: experts that can have a copy at a time.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Entries that an upload could begin into at once.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// The entry with a complete copy of the expert.
    #[must_use]
    pub fn entry_of(&self, expert: u32) -> Option<u32> {
        let entry = self.place_of(expert)?;
        match self.entries.get(entry as usize)?.state {
            EntryState::Resident(_) => Some(entry),
            _ => None,
        }
    }

    /// The entry that the expert is in or on the way to.
    #[must_use]
    pub fn place_of(&self, expert: u32) -> Option<u32> {
        self.entry_of.get(expert as usize).copied().flatten()
    }

    /// What an entry is doing; an entry that does not exist is free, and stays so.
    #[must_use]
    pub fn state(&self, entry: u32) -> EntryState {
        self.entries
            .get(entry as usize)
            .map_or(EntryState::Free, |entry| entry.state)
    }

    /// All experts with a complete copy, in the order of entries.
    pub fn residents(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().filter_map(|entry| match entry.state {
            EntryState::Resident(expert) => Some(expert),
            _ => None,
        })
    }

    /// Experts with a complete copy that no reader uses: their entries can be had at once.
    pub fn idle(&self) -> impl Iterator<Item = u32> {
        let entries = self.entries.iter().filter(|_| self.holders == 0);
        entries.filter_map(|entry| match entry.state {
            EntryState::Resident(expert) if entry.readers == 0 => Some(expert),
            _ => None,
        })
    }

    /// A number that is another one whenever other experts have a complete copy.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Keeps all complete copies where they are until [`EntryTable::let_go`]: for a reader that does not say in advance which
    /// ones it needs.
    pub fn hold(&mut self) {
        self.holders = self.holders.saturating_add(1);
    }

    /// Ends one [`EntryTable::hold`].
    pub fn let_go(&mut self) {
        self.holders = self.holders.saturating_sub(1);
    }

    /// The entry of the expert's copy, which stays as it is until [`EntryTable::release`].
    pub fn acquire(&mut self, expert: u32) -> Option<u32> {
        let number = self.entry_of(expert)?;
        let entry = self.entries.get_mut(number as usize)?;
        entry.readers = entry.readers.checked_add(1)?;
        Some(number)
    }

    /// Acquires `count` entries with a complete copy, whatever is in them, and adds them to `acquired`. Acquires none, and
    /// returns `false`, when there are fewer.
    pub fn acquire_any(&mut self, count: usize, acquired: &mut Vec<u32>) -> bool {
        let start = acquired.len();
        for (number, entry) in (0..).zip(&mut self.entries) {
            if acquired.len() - start == count {
                break;
            }
            if let EntryState::Resident(_) = entry.state {
                entry.readers += 1;
                acquired.push(number);
            }
        }
        if acquired.len() - start == count {
            return true;
        }
        for number in acquired.drain(start..) {
            self.entries[number as usize].readers -= 1;
        }
        false
    }

    /// Ends one [`EntryTable::acquire`]. One too many does nothing.
    pub fn release(&mut self, number: u32) {
        let Some(entry) = self.entries.get_mut(number as usize) else {
            return;
        };
        let was = entry.readers;
        entry.readers = was.saturating_sub(1);
        if was == 1 && matches!(entry.state, EntryState::Evicting(_)) {
            entry.state = EntryState::Free;
            self.free.push(number);
        }
    }

    /// Takes the copy of an expert away, as soon as nobody uses it. Returns whether its entry is free now. Not to be called
    /// while all copies are held: then no expert is idle.
    pub fn evict(&mut self, expert: u32) -> bool {
        let Some(number) = self.entry_of(expert) else {
            return false;
        };
        self.entry_of[expert as usize] = None;
        self.changes += 1;
        let held = self.holders > 0;
        let entry = &mut self.entries[number as usize];
        debug_assert!(!held, "only idle experts are evicted, and none is while all are held");
        if entry.readers > 0 {
            entry.state = EntryState::Evicting(expert);
            return false;
        }
        entry.state = EntryState::Free;
        self.free.push(number);
        true
    }

    /// Begins to load an expert into a free entry. `None` if there is none, or the expert is there or on the way already.
    pub fn load(&mut self, expert: u32) -> Option<Upload> {
        let place = self.entry_of.get_mut(expert as usize)?;
        if place.is_some() {
            return None;
        }
        let number = self.free.pop()?;
        *place = Some(number);
        self.tickets += 1;
        let entry = &mut self.entries[number as usize];
        entry.state = EntryState::Loading(expert);
        entry.ticket = self.tickets;
        Some(Upload {
            expert,
            entry: number,
            ticket: self.tickets,
        })
    }

    /// All bytes have arrived: from now on readers find the expert. Returns `false` for an upload that is not under way.
    pub fn complete(&mut self, upload: Upload) -> bool {
        let Some(entry) = self.under_way(upload) else {
            return false;
        };
        entry.state = EntryState::Resident(upload.expert);
        self.changes += 1;
        true
    }

    /// The upload failed: its entry is free again. Returns `false` for an upload that is not under way.
    pub fn abandon(&mut self, upload: Upload) -> bool {
        let Some(entry) = self.under_way(upload) else {
            return false;
        };
        entry.state = EntryState::Free;
        self.entry_of[upload.expert as usize] = None;
        self.free.push(upload.entry);
        true
    }

    fn under_way(&mut self, upload: Upload) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(upload.entry as usize)?;
        let same = entry.ticket == upload.ticket && entry.state == EntryState::Loading(upload.expert);
        same.then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each entry is named by the expert it holds and by no other; free entries are listed once; only used entries have readers.
    fn check(table: &EntryTable) -> Result<(), TestCaseError> {
        let mut free = table.free.clone();
        free.sort_unstable();
        let expected: Vec<u32> = (0..)
            .zip(&table.entries)
            .filter(|(_, entry)| entry.state == EntryState::Free)
            .map(|(number, _)| number)
            .collect();
        prop_assert_eq!(free, expected);
        for (number, entry) in (0..).zip(&table.entries) {
            let named: Vec<u32> = (0..)
                .zip(&table.entry_of)
                .filter(|(_, place)| **place == Some(number))
                .map(|(expert, _)| expert)
                .collect();
            match entry.state {
                EntryState::Free => prop_assert!(named.is_empty() && entry.readers == 0),
                EntryState::Loading(expert) => prop_assert!(named == [expert] && entry.readers == 0),
                EntryState::Resident(expert) => prop_assert!(named == [expert]),
                EntryState::Evicting(_) => prop_assert!(named.is_empty() && entry.readers > 0),
            }
        }
        Ok(())
    }

    #[test]
    fn an_entry_in_use_is_freed_by_its_last_reader() {
        let mut table = EntryTable::new(4, 1);
        let upload = table.load(2).unwrap();
        assert_eq!((table.entry_of(2), table.acquire(2), table.load(3)), (None, None, None));
        assert!(table.complete(upload));
        assert_eq!((table.acquire(2), table.acquire(2)), (Some(0), Some(0)));
        assert!(!table.evict(2));
        assert_eq!((table.acquire(2), table.load(3)), (None, None));
        table.release(0);
        assert_eq!(table.state(0), EntryState::Evicting(2));
        table.release(0);
        let next = table.load(3).unwrap();
        // The first upload is history.
        assert!(!table.complete(upload) && !table.abandon(upload));
        assert!(table.abandon(next) && !table.complete(next));
        assert_eq!(table.free(), 1);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Load(u32),
        Complete(usize),
        Abandon(usize),
        Evict(u32),
        Acquire(u32),
        AcquireAny(usize),
        Release(usize),
        Hold,
        LetGo,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u32..14).prop_map(Step::Load),
            any::<usize>().prop_map(Step::Complete),
            any::<usize>().prop_map(Step::Abandon),
            (0u32..14).prop_map(Step::Evict),
            (0u32..14).prop_map(Step::Acquire),
            (0usize..5).prop_map(Step::AcquireAny),
            any::<usize>().prop_map(Step::Release),
            Just(Step::Hold),
            Just(Step::LetGo),
        ]
    }

    proptest! {
        /// `memory` is what a device would hold: written when an upload completes, garbage while it is under way.
        #[test]
        fn readers_always_find_what_they_were_told(capacity in 0usize..8, steps in prop::collection::vec(step(), 0..400)) {
            let mut table = EntryTable::new(12, capacity);
            let mut memory = vec![None; capacity];
            let mut uploads: Vec<Upload> = Vec::new();
            let mut readers: Vec<(u32, u32)> = Vec::new();
            let mut held: Vec<Vec<(u32, u32)>> = Vec::new();
            for step in steps {
                let before = (table.changes(), table.residents().collect::<Vec<_>>());
                match step {
                    Step::Hold => {
                        table.hold();
                        let residents = table.residents().map(|expert| (expert, table.entry_of(expert).unwrap()));
                        held.push(residents.collect());
                    }
                    Step::LetGo if !held.is_empty() => {
                        held.pop();
                        table.let_go();
                    }
                    // As an upload does: only what is idle has to go.
                    Step::Evict(_) if !held.is_empty() => prop_assert_eq!(table.idle().count(), 0),
                    Step::Load(expert) => {
                        if let Some(upload) = table.load(expert) {
                            memory[upload.entry as usize] = None;
                            uploads.push(upload);
                        }
                    }
                    Step::Complete(which) if !uploads.is_empty() => {
                        let upload = uploads.swap_remove(which % uploads.len());
                        memory[upload.entry as usize] = Some(upload.expert);
                        prop_assert!(table.complete(upload));
                    }
                    Step::Abandon(which) if !uploads.is_empty() => {
                        let upload = uploads.swap_remove(which % uploads.len());
                        prop_assert!(table.abandon(upload));
                    }
                    Step::Evict(expert) => {
                        table.evict(expert);
                        prop_assert_eq!(table.entry_of(expert), None);
                    }
                    Step::Acquire(expert) => readers.extend(table.acquire(expert).map(|entry| (expert, entry))),
                    Step::AcquireAny(count) => {
                        let residents = table.residents().count();
                        let mut any = Vec::new();
                        prop_assert_eq!(table.acquire_any(count, &mut any), count <= residents);
                        prop_assert_eq!(any.len(), if count <= residents { count } else { 0 });
                        prop_assert!(any.is_sorted_by(|a, b| a < b), "an entry was given out twice: {:?}", any);
                        for entry in any {
                            let EntryState::Resident(expert) = table.state(entry) else {
                                return Err(TestCaseError::fail("not resident"));
                            };
                            readers.push((expert, entry));
                        }
                    }
                    Step::Release(which) if !readers.is_empty() => {
                        let (_, entry) = readers.swap_remove(which % readers.len());
                        table.release(entry);
                    }
                    _ => {}
                }
                check(&table)?;
                let after = table.residents().collect::<Vec<_>>();
                prop_assert!(before.1 == after || before.0 != table.changes(), "a change was not counted");
                for (expert, entry) in readers.iter().chain(held.iter().flatten()) {
                    prop_assert_eq!(memory[*entry as usize], Some(*expert));
                }
                for expert in table.residents() {
                    let entry = table.entry_of(expert).unwrap();
                    prop_assert_eq!(memory[entry as usize], Some(expert));
                }
            }
            // Everything ends: all entries can be had again.
            for upload in uploads {
                table.abandon(upload);
            }
            for (_, entry) in readers {
                table.release(entry);
            }
            for expert in 0..12 {
                table.evict(expert);
            }
            check(&table)?;
            prop_assert_eq!(table.free(), table.capacity());
        }
    }
}
