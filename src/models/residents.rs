//! What loaded models leave for another one, and who gives way.

use crate::config::{MemoryConfig, MemoryLimit};
use crate::engine::MemoryUse;
use crate::host::Machine;
use crate::memory::Tier;

/// What a loaded model takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Resident {
    pub(super) gpu: u64,
    /// Of main memory, without `mapped`.
    pub(super) ram: u64,
    /// Views of files in main memory. The system calls that memory available, but a model without it reads its weights from disk.
    pub(super) mapped: u64,
}

impl Resident {
    pub(super) fn of(memory: &MemoryUse) -> Self {
        let sum = |tier: Tier, mapped: bool| {
            let buffers = memory.actual.iter();
            let of_kind = buffers.filter(|buffers| buffers.tier == tier && buffers.mapped == mapped);
            of_kind.map(|buffers| buffers.bytes).sum()
        };
        Self {
            // What is mapped on a GPU's side is its own memory on a machine with one memory.
            gpu: sum(Tier::Gpu, false) + sum(Tier::Gpu, true),
            ram: sum(Tier::Ram, false),
            mapped: sum(Tier::Ram, true),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            gpu: self.gpu + other.gpu,
            ram: self.ram + other.ram,
            mapped: self.mapped + other.mapped,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            gpu: self.gpu.saturating_sub(other.gpu),
            ram: self.ram.saturating_sub(other.ram),
            mapped: self.mapped.saturating_sub(other.mapped),
        }
    }

    pub(super) fn sum(residents: &[Self]) -> Self {
        residents
            .iter()
            .fold(Self::default(), |sum, resident| sum.plus(*resident))
    }
}

/// The machine and the limits for a model beside those that are loaded, of which `leaving` will be gone. `machine` is as it is
/// now, with all of them.
pub(super) fn beside(
    mut machine: Machine,
    mut memory: MemoryConfig,
    loaded: Resident,
    leaving: Resident,
) -> (Machine, MemoryConfig) {
    let staying = loaded.minus(leaving);
    let gpu = machine.gpu();
    let unified = gpu.is_some_and(|gpu| machine.devices[gpu].unified);
    if let Some(gpu) = gpu {
        machine.devices[gpu].free += leaving.gpu;
    }
    machine.ram_available = (machine.ram_available + leaving.ram).saturating_sub(staying.mapped);
    let mut of_ram = staying.ram + staying.mapped;
    if unified {
        machine.ram_available += leaving.gpu;
        of_ram += staying.gpu;
    }
    let less = |limit: MemoryLimit, taken: u64| match limit {
        MemoryLimit::Auto => MemoryLimit::Auto,
        MemoryLimit::Bytes(bytes) => MemoryLimit::Bytes(bytes.saturating_sub(taken)),
    };
    memory.vram = less(memory.vram, staying.gpu);
    memory.ram = less(memory.ram, of_ram);
    (machine, memory)
}

/// Who must go so that what is asked about fits, by their positions: as few of the first as it takes, and none of them that makes
/// no difference. `None` if it does not fit without all of them either.
pub(super) fn victims(candidates: &[Resident], fits: impl Fn(Resident) -> bool) -> Option<Vec<usize>> {
    let of = |chosen: &[usize]| {
        chosen
            .iter()
            .fold(Resident::default(), |sum, index| sum.plus(candidates[*index]))
    };
    let mut chosen: Vec<usize> = Vec::new();
    for index in 0..candidates.len() {
        chosen.push(index);
        if fits(of(&chosen)) {
            // The one used last comes last; those before it may not have been needed.
            for spared in (0..chosen.len() - 1).rev() {
                let mut fewer = chosen.clone();
                fewer.remove(spared);
                if fits(of(&fewer)) {
                    chosen = fewer;
                }
            }
            return Some(chosen);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Gpu;

    const GIB: u64 = 1 << 30;

    fn gpu(bytes: u64) -> Resident {
        Resident {
            gpu: bytes,
            ..Resident::default()
        }
    }

    #[test]
    fn the_longest_unused_give_way_and_no_more_than_needed() {
        let candidates = [gpu(1), gpu(8), gpu(2), gpu(4)];
        let needs = |bytes: u64| victims(&candidates, move |freed| freed.gpu >= bytes);
        assert_eq!(needs(1), Some(vec![0]));
        // The first one alone is not enough, and makes no difference beside the second.
        assert_eq!(needs(5), Some(vec![1]));
        assert_eq!(needs(9), Some(vec![0, 1]));
        assert_eq!(needs(12), Some(vec![1, 3]));
        assert_eq!(needs(15), Some(vec![0, 1, 2, 3]));
        assert_eq!(needs(16), None);
        assert_eq!(victims(&[], |_| true), None);
    }

    #[test]
    fn limits_and_files_of_loaded_models_count() {
        let machine = Machine {
            devices: vec![Gpu {
                name: "GPU".into(),
                total: 24 * GIB,
                free: 10 * GIB,
                unified: false,
                backend: String::new(),
                id: None,
            }],
            ram_total: 64 * GIB,
            ram_available: 50 * GIB,
            cores: 8,
        };
        let memory = MemoryConfig {
            vram: MemoryLimit::Bytes(20 * GIB),
            ..MemoryConfig::default()
        };
        let one = Resident {
            gpu: 5 * GIB,
            ram: GIB,
            mapped: 20 * GIB,
        };
        let two = Resident {
            gpu: 8 * GIB,
            ram: 2 * GIB,
            mapped: 0,
        };
        let loaded = Resident::sum(&[one, two]);
        let (left, limits) = beside(machine.clone(), memory, loaded, Resident::default());
        assert_eq!((left.devices[0].free, left.ram_available), (10 * GIB, 30 * GIB));
        assert_eq!(
            (limits.vram, limits.ram),
            (MemoryLimit::Bytes(7 * GIB), MemoryLimit::Auto)
        );
        let (left, limits) = beside(machine.clone(), memory, loaded, one);
        assert_eq!((left.devices[0].free, left.ram_available), (15 * GIB, 51 * GIB));
        assert_eq!(limits.vram, MemoryLimit::Bytes(12 * GIB));
        // One memory: what the GPU gives back is main memory.
        let mut unified = machine;
        unified.devices[0].unified = true;
        let (left, _) = beside(unified, memory, loaded, two);
        assert_eq!((left.devices[0].free, left.ram_available), (18 * GIB, 40 * GIB));
    }
}
