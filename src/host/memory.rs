//! Main memory.

use std::path::Path;

use sysinfo::System;

/// Main memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What there is, or what a container may take of it; 0 where the system does not tell.
    pub total: u64,
    /// What new programs may take.
    pub available: u64,
}

/// The machine's main memory, within the limit of the container.
#[must_use]
pub fn memory() -> Memory {
    let linux = linux(Path::new("/proc/meminfo"), Path::new("/sys/fs/cgroup"));
    linux.unwrap_or_else(|| {
        let mut system = System::new();
        system.refresh_memory();
        Memory {
            total: system.total_memory(),
            available: system.available_memory(),
        }
    })
}

/// Memory of Linux; `None` elsewhere.
fn linux(meminfo: &Path, cgroup: &Path) -> Option<Memory> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    let (total, available) = (field("MemTotal:")?, field("MemAvailable:")?);
    let number = |name: &str| {
        let text = std::fs::read_to_string(cgroup.join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    // A file cache that the container filled counts as used, but is given up when memory is asked for: only the limit
    // is believed.
    let limit = number("memory.max").unwrap_or(u64::MAX);
    Some(Memory {
        total: total.min(limit),
        available: available.min(limit),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_within_the_limit_of_the_container() {
        let folder = tempfile::tempdir().unwrap();
        let meminfo = folder.path().join("meminfo");
        let read = || {
            let memory = linux(&meminfo, folder.path())?;
            Some((memory.total, memory.available))
        };
        assert_eq!(read(), None);
        let text = "MemTotal:       2048 kB\nMemFree: 10 kB\nMemAvailable:   1024 kB\n";
        std::fs::write(&meminfo, text).unwrap();
        assert_eq!(read(), Some((2 << 20, 1 << 20)));
        std::fs::write(folder.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(read(), Some((2 << 20, 1 << 20)));
        std::fs::write(folder.path().join("memory.max"), "524288\n").unwrap();
        assert_eq!(read(), Some((1 << 19, 1 << 19)));
    }
}
