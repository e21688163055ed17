//! Which expert of a layer is in which slot of the cache device.
//!
//! Plain data without locks: each layer has one [`SlotTable`] behind a lock of its own. Nothing here allocates after
//! [`SlotTable::new`], so that all of it may run once per token and layer.
//!
//! A slot goes from free to *loading* (its bytes are on the way, nobody sees it) to *resident* (readers may use it). When
//! its expert has to go while a reader still uses it, it is *evicting*: no new reader finds it, and the last one that
//! leaves makes it free. So a slot in use is never overwritten, and a half-written one never read.

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Holds nothing.
    Free,
    /// The expert is being copied into it.
    Loading(u32),
    /// Holds a complete copy of the expert.
    Resident(u32),
    /// Holds a copy that readers still use, and will be free after them.
    Evicting(u32),
}

/// An expert that is to be copied into a slot, until [`SlotTable::complete`] or [`SlotTable::abandon`] is told how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    pub expert: u32,
    pub slot: u32,
    /// Tells this upload from earlier ones into the same slot.
    ticket: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    state: SlotState,
    /// Readers between [`SlotTable::pin`] and [`SlotTable::unpin`].
    pins: u32,
    /// Of the last upload into this slot.
    ticket: u64,
}

/// The slots of one layer.
#[derive(Debug, Clone)]
pub struct SlotTable {
    /// By expert: the slot that it is in or on the way to, unless that is being evicted.
    slot_of: Vec<Option<u32>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    tickets: u64,
}

impl SlotTable {
    /// `slots` free slots, at most one per expert.
    #[must_use]
    pub fn new(experts: usize, slots: usize) -> Self {
        let empty = Slot {
            state: SlotState::Free,
            pins: 0,
            ticket: 0,
        };
        let slots = slots.min(experts);
        Self {
            slot_of: vec![None; experts],
            slots: vec![empty; slots],
            free: (0..).take(slots).collect(),
            tickets: 0,
        }
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.slot_of.len()
    }

    /// Number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Slots that an upload could begin into at once.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// The slot with a complete copy of the expert.
    #[must_use]
    pub fn slot_of(&self, expert: u32) -> Option<u32> {
        let slot = self.place_of(expert)?;
        match self.slots.get(slot as usize)?.state {
            SlotState::Resident(_) => Some(slot),
            _ => None,
        }
    }

    /// The slot that the expert is in or on the way to.
    #[must_use]
    pub fn place_of(&self, expert: u32) -> Option<u32> {
        self.slot_of.get(expert as usize).copied().flatten()
    }

    /// What a slot is doing; a slot that does not exist is free, and stays so.
    #[must_use]
    pub fn state(&self, slot: u32) -> SlotState {
        self.slots.get(slot as usize).map_or(SlotState::Free, |slot| slot.state)
    }

    /// All experts with a complete copy, in the order of slots.
    pub fn residents(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().filter_map(|slot| match slot.state {
            SlotState::Resident(expert) => Some(expert),
            _ => None,
        })
    }

    /// Experts with a complete copy that no reader uses: their slots can be had at once.
    pub fn idle(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().filter_map(|slot| match slot.state {
            SlotState::Resident(expert) if slot.pins == 0 => Some(expert),
            _ => None,
        })
    }

    /// The slot of the expert's copy, which stays as it is until [`SlotTable::unpin`].
    pub fn pin(&mut self, expert: u32) -> Option<u32> {
        let slot = self.slot_of(expert)?;
        let entry = self.slots.get_mut(slot as usize)?;
        entry.pins = entry.pins.checked_add(1)?;
        Some(slot)
    }

    /// Ends one [`SlotTable::pin`]. One too many does nothing.
    pub fn unpin(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let was = entry.pins;
        entry.pins = was.saturating_sub(1);
        if was == 1 && matches!(entry.state, SlotState::Evicting(_)) {
            entry.state = SlotState::Free;
            self.free.push(slot);
        }
    }

    /// Takes the copy of an expert away, as soon as nobody uses it. Returns whether its slot is free now.
    pub fn evict(&mut self, expert: u32) -> bool {
        let Some(slot) = self.slot_of(expert) else {
            return false;
        };
        self.slot_of[expert as usize] = None;
        let entry = &mut self.slots[slot as usize];
        if entry.pins > 0 {
            entry.state = SlotState::Evicting(expert);
            return false;
        }
        entry.state = SlotState::Free;
        self.free.push(slot);
        true
    }

    /// Begins to load an expert into a free slot. `None` if there is none, or the expert is there or on the way already.
    pub fn load(&mut self, expert: u32) -> Option<Upload> {
        let place = self.slot_of.get_mut(expert as usize)?;
        if place.is_some() {
            return None;
        }
        let slot = self.free.pop()?;
        *place = Some(slot);
        self.tickets += 1;
        let entry = &mut self.slots[slot as usize];
        entry.state = SlotState::Loading(expert);
        entry.ticket = self.tickets;
        Some(Upload {
            expert,
            slot,
            ticket: self.tickets,
        })
    }

    /// All bytes have arrived: from now on readers find the expert. Returns `false` for an upload that is not under way.
    pub fn complete(&mut self, upload: Upload) -> bool {
        let Some(entry) = self.under_way(upload) else {
            return false;
        };
        entry.state = SlotState::Resident(upload.expert);
        true
    }

    /// The upload failed: its slot is free again. Returns `false` for an upload that is not under way.
    pub fn abandon(&mut self, upload: Upload) -> bool {
        let Some(entry) = self.under_way(upload) else {
            return false;
        };
        entry.state = SlotState::Free;
        self.slot_of[upload.expert as usize] = None;
        self.free.push(upload.slot);
        true
    }

    fn under_way(&mut self, upload: Upload) -> Option<&mut Slot> {
        let entry = self.slots.get_mut(upload.slot as usize)?;
        let same = entry.ticket == upload.ticket && entry.state == SlotState::Loading(upload.expert);
        same.then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each slot is named by the expert it holds and by no other; free slots are listed once; only used slots are pinned.
    fn check(table: &SlotTable) -> Result<(), TestCaseError> {
        let mut free = table.free.clone();
        free.sort_unstable();
        let expected: Vec<u32> = (0..)
            .zip(&table.slots)
            .filter(|(_, slot)| slot.state == SlotState::Free)
            .map(|(number, _)| number)
            .collect();
        prop_assert_eq!(free, expected);
        for (number, slot) in (0..).zip(&table.slots) {
            let named: Vec<u32> = (0..)
                .zip(&table.slot_of)
                .filter(|(_, place)| **place == Some(number))
                .map(|(expert, _)| expert)
                .collect();
            match slot.state {
                SlotState::Free => prop_assert!(named.is_empty() && slot.pins == 0),
                SlotState::Loading(expert) => prop_assert!(named == [expert] && slot.pins == 0),
                SlotState::Resident(expert) => prop_assert!(named == [expert]),
                SlotState::Evicting(_) => prop_assert!(named.is_empty() && slot.pins > 0),
            }
        }
        Ok(())
    }

    #[test]
    fn a_pinned_slot_is_freed_by_its_last_reader() {
        let mut table = SlotTable::new(4, 1);
        let upload = table.load(2).unwrap();
        assert_eq!((table.slot_of(2), table.pin(2), table.load(3)), (None, None, None));
        assert!(table.complete(upload));
        assert_eq!((table.pin(2), table.pin(2)), (Some(0), Some(0)));
        assert!(!table.evict(2));
        assert_eq!((table.pin(2), table.load(3)), (None, None));
        table.unpin(0);
        assert_eq!(table.state(0), SlotState::Evicting(2));
        table.unpin(0);
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
        Pin(u32),
        Unpin(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u32..14).prop_map(Step::Load),
            any::<usize>().prop_map(Step::Complete),
            any::<usize>().prop_map(Step::Abandon),
            (0u32..14).prop_map(Step::Evict),
            (0u32..14).prop_map(Step::Pin),
            any::<usize>().prop_map(Step::Unpin),
        ]
    }

    proptest! {
        /// `memory` is what a device would hold: written when an upload completes, garbage while it is under way.
        #[test]
        fn readers_always_find_what_they_were_told(slots in 0usize..8, steps in prop::collection::vec(step(), 0..400)) {
            let mut table = SlotTable::new(12, slots);
            let mut memory = vec![None; slots];
            let mut uploads: Vec<Upload> = Vec::new();
            let mut readers: Vec<(u32, u32)> = Vec::new();
            for step in steps {
                match step {
                    Step::Load(expert) => {
                        if let Some(upload) = table.load(expert) {
                            memory[upload.slot as usize] = None;
                            uploads.push(upload);
                        }
                    }
                    Step::Complete(which) if !uploads.is_empty() => {
                        let upload = uploads.swap_remove(which % uploads.len());
                        memory[upload.slot as usize] = Some(upload.expert);
                        prop_assert!(table.complete(upload));
                    }
                    Step::Abandon(which) if !uploads.is_empty() => {
                        let upload = uploads.swap_remove(which % uploads.len());
                        prop_assert!(table.abandon(upload));
                    }
                    Step::Evict(expert) => {
                        table.evict(expert);
                        prop_assert_eq!(table.slot_of(expert), None);
                    }
                    Step::Pin(expert) => readers.extend(table.pin(expert).map(|slot| (expert, slot))),
                    Step::Unpin(which) if !readers.is_empty() => {
                        let (_, slot) = readers.swap_remove(which % readers.len());
                        table.unpin(slot);
                    }
                    _ => {}
                }
                check(&table)?;
                for (expert, slot) in &readers {
                    prop_assert_eq!(memory[*slot as usize], Some(*expert));
                }
                for expert in table.residents() {
                    let slot = table.slot_of(expert).unwrap();
                    prop_assert_eq!(memory[slot as usize], Some(expert));
                }
            }
            // Everything ends: all slots can be had again.
            for upload in uploads {
                table.abandon(upload);
            }
            for (_, slot) in readers {
                table.unpin(slot);
            }
            for expert in 0..12 {
                table.evict(expert);
            }
            check(&table)?;
            prop_assert_eq!(table.free(), table.slots());
        }
    }
}
