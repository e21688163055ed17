//! What a machine has, as plain data.

use serde::Serialize;

use super::gpu::Gpu;

/// A machine that models are planned for. All amounts are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// GPUs; none on a machine without.
    pub devices: Vec<Gpu>,
    pub ram_total: u64,
    /// What new programs may take.
    pub ram_available: u64,
    /// Physical cores.
    pub cores: u32,
}

/// A machine that is described instead of found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Described {
    /// Bytes of one GPU; 0 for none.
    pub vram: Option<u64>,
    /// Bytes of main memory.
    pub ram: Option<u64>,
    /// The GPU's memory is main memory.
    pub unified: bool,
}

impl Machine {
    /// The GPU that is used, by its position: layers are not spread over several, and copies of experts are worth more on the one
    /// with the most memory.
    #[must_use]
    pub fn gpu(&self) -> Option<usize> {
        (0..self.devices.len()).max_by_key(|device| (self.devices[*device].free, std::cmp::Reverse(*device)))
    }

    /// This machine, where somebody knows whether GPUs share main memory.
    #[must_use]
    pub fn sharing(mut self, unified: Option<bool>) -> Self {
        for device in &mut self.devices {
            device.unified = unified.unwrap_or(device.unified);
        }
        self
    }

    /// This machine with what is described in the place of what it has.
    #[must_use]
    pub fn described(mut self, other: Described) -> Self {
        let gpu = |bytes, unified| Gpu {
            name: "GPU".to_owned(),
            total: bytes,
            free: bytes,
            unified,
            backend: String::new(),
            id: None,
        };
        // Unified memory is one: either amount gives the other.
        let ram = if other.unified {
            other.vram.or(other.ram).or(Some(self.ram_total))
        } else {
            other.ram
        };
        if let Some(ram) = ram {
            self.ram_total = ram;
            self.ram_available = ram;
        }
        match other.vram {
            _ if other.unified => self.devices = vec![gpu(self.ram_total, true)],
            Some(0) => self.devices.clear(),
            Some(bytes) => self.devices = vec![gpu(bytes, false)],
            None => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn bare() -> Machine {
        Machine {
            devices: Vec::new(),
            ram_total: 32 * GIB,
            ram_available: 30 * GIB,
            cores: 8,
        }
    }

    #[test]
    fn what_is_described_replaces_what_there_is() {
        let machine = bare().described(Described {
            vram: Some(16 * GIB),
            ram: Some(100 * GIB),
            unified: false,
        });
        assert_eq!(machine.devices[0].free, 16 * GIB);
        assert_eq!(machine.ram_available, 100 * GIB);
        let none = machine.described(Described {
            vram: Some(0),
            ..Described::default()
        });
        assert!(none.devices.is_empty());
        assert_eq!(bare().described(Described::default()), bare());
    }

    #[test]
    fn who_knows_better_says_whether_memory_is_shared() {
        let described = |unified| {
            bare().described(Described {
                vram: Some(16 * GIB),
                ram: Some(16 * GIB),
                unified,
            })
        };
        for found in [false, true] {
            assert_eq!(described(found).sharing(None).devices[0].unified, found);
            for known in [false, true] {
                assert_eq!(described(found).sharing(Some(known)).devices[0].unified, known);
            }
        }
    }

    #[test]
    fn unified_memory_has_one_size() {
        for (vram, ram) in [(Some(128 * GIB), None), (None, Some(128 * GIB))] {
            let machine = bare().described(Described {
                vram,
                ram,
                unified: true,
            });
            assert_eq!(machine.devices[0].total, 128 * GIB);
            assert_eq!(machine.ram_total, 128 * GIB);
        }
    }
}
