//! Which experts of one layer have a copy on the cache device, and which should get one.
//!
//! Plain data: who computes asks [`LayerResidency::slot_of`], reports what a token asked for, and carries out the uploads
//! that [`LayerResidency::wanted`] names. An expert has a slot here only once its copy is complete.

use std::ops::AddAssign;

/// What has happened in a layer since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct LayerCounts {
    /// Tokens that were computed.
    pub tokens: u64,
    /// Experts that were asked for, once per token and expert.
    pub selections: u64,
    /// Of them, those that had a copy on the cache device.
    pub hits: u64,
    /// Experts copied to the cache device.
    pub uploads: u64,
    /// Of them, those that took another expert's slot.
    pub evictions: u64,
}

impl AddAssign for LayerCounts {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.selections += other.selections;
        self.hits += other.hits;
        self.uploads += other.uploads;
        self.evictions += other.evictions;
    }
}

/// An expert that should be copied into a slot. Until [`LayerResidency::uploaded`] the slot belongs to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload {
    pub expert: u32,
    pub slot: u32,
}

/// The residency of one layer.
#[derive(Debug)]
pub struct LayerResidency {
    /// By expert: the slot of its copy.
    slot_of: Vec<Option<u32>>,
    /// By slot: the expert whose copy it holds.
    expert_in: Vec<Option<u32>>,
    /// By expert: how often it was asked for, in units of `unit`.
    heat: Vec<f32>,
    /// Grows from token to token, instead of all heat shrinking.
    unit: f32,
    counts: LayerCounts,
}

/// What a token leaves of the heat before it: half is gone after 70 tokens.
const DECAY: f32 = 0.99;
/// How much hotter a newcomer must be than the expert that it replaces, lest the two change places for ever.
const HYSTERESIS: f32 = 1.3;
/// Where the unit starts again at 1.
const LARGEST_UNIT: f32 = 1e9;

impl LayerResidency {
    /// Room for the copies of `slots` of `experts` experts; nothing has one yet.
    #[must_use]
    pub fn new(experts: usize, slots: usize) -> Self {
        Self {
            slot_of: vec![None; experts],
            expert_in: vec![None; slots.min(experts)],
            heat: vec![0.0; experts],
            unit: 1.0,
            counts: LayerCounts::default(),
        }
    }

    /// The slot that holds the copy of an expert.
    #[must_use]
    pub fn slot_of(&self, expert: u32) -> Option<u32> {
        self.slot_of.get(expert as usize).copied().flatten()
    }

    #[must_use]
    pub fn counts(&self) -> LayerCounts {
        self.counts
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.slot_of.len()
    }

    /// Number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.expert_in.len()
    }

    /// Takes in what one token asked for.
    pub fn observe(&mut self, experts: impl IntoIterator<Item = u32>) {
        self.counts.tokens += 1;
        self.unit /= DECAY;
        if self.unit > LARGEST_UNIT {
            self.heat.iter_mut().for_each(|heat| *heat /= self.unit);
            self.unit = 1.0;
        }
        for expert in experts {
            let Some(heat) = self.heat.get_mut(expert as usize) else {
                continue;
            };
            *heat += self.unit;
            self.counts.selections += 1;
            self.counts.hits += u64::from(self.slot_of[expert as usize].is_some());
        }
    }

    /// The expert without a copy that should get one now, and its slot, which is taken from the coldest expert if none is
    /// free. `None` when all is as it should be.
    pub fn wanted(&mut self) -> Option<Upload> {
        let hottest = |candidates: &mut dyn Iterator<Item = usize>| {
            candidates.max_by(|a, b| self.heat[*a].total_cmp(&self.heat[*b]))
        };
        let newcomer = hottest(&mut (0..self.heat.len()).filter(|expert| self.slot_of[*expert].is_none()))?;
        if self.heat[newcomer] <= 0.0 {
            return None;
        }
        let slot = match self.expert_in.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                let heat_in = |slot: usize| self.expert_in[slot].map_or(0.0, |expert| self.heat[expert as usize]);
                let coldest = (0..self.expert_in.len()).min_by(|a, b| heat_in(*a).total_cmp(&heat_in(*b)))?;
                if self.heat[newcomer] < heat_in(coldest) * HYSTERESIS {
                    return None;
                }
                coldest
            }
        };
        if let Some(old) = self.expert_in[slot].take() {
            self.slot_of[old as usize] = None;
            self.counts.evictions += 1;
        }
        Some(Upload {
            expert: u32::try_from(newcomer).ok()?,
            slot: u32::try_from(slot).ok()?,
        })
    }

    /// The copy is complete.
    pub fn uploaded(&mut self, upload: Upload) {
        self.slot_of[upload.expert as usize] = Some(upload.slot);
        self.expert_in[upload.slot as usize] = Some(upload.expert);
        self.counts.uploads += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn consistent(layer: &LayerResidency) -> bool {
        let forward =
            layer.slot_of.iter().enumerate().all(|(expert, slot)| {
                slot.is_none_or(|slot| layer.expert_in[slot as usize] == u32::try_from(expert).ok())
            });
        let backward = layer.expert_in.iter().enumerate().all(|(slot, expert)| {
            expert.is_none_or(|expert| layer.slot_of[expert as usize] == u32::try_from(slot).ok())
        });
        forward && backward
    }

    #[test]
    fn the_hot_ones_get_the_slots() {
        let mut layer = LayerResidency::new(8, 2);
        for _ in 0..50 {
            layer.observe([3, 5]);
            layer.observe([3, 1]);
            while let Some(upload) = layer.wanted() {
                layer.uploaded(upload);
            }
        }
        assert!(layer.slot_of(3).is_some());
        for _ in 0..200 {
            layer.observe([6, 7]);
            while let Some(upload) = layer.wanted() {
                layer.uploaded(upload);
            }
        }
        assert!(layer.slot_of(6).is_some() && layer.slot_of(7).is_some());
        assert_eq!(layer.counts().selections, 600);
    }

    #[test]
    fn without_slots_nothing_is_wanted() {
        let mut layer = LayerResidency::new(8, 0);
        layer.observe([1, 2]);
        assert_eq!(layer.wanted(), None);
    }

    proptest! {
        #[test]
        fn an_expert_has_one_slot_and_a_slot_one_expert(
            slots in 0usize..10,
            tokens in prop::collection::vec((prop::collection::vec(0u32..12, 1..5), any::<bool>()), 0..300),
        ) {
            let mut layer = LayerResidency::new(8, slots);
            for (experts, finish) in tokens {
                layer.observe(experts);
                if let Some(upload) = layer.wanted() {
                    // While it is copied nobody sees it.
                    prop_assert_eq!(layer.slot_of(upload.expert), None);
                    prop_assert!(consistent(&layer));
                    if finish {
                        layer.uploaded(upload);
                    }
                }
                prop_assert!(consistent(&layer));
            }
        }
    }
}
