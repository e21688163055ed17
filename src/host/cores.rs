//! The physical cores that this process may use, and NUMA nodes.
//!
//! A second thread on the same core (SMT) shares its vector units and makes the arithmetic slower, not faster.

use std::collections::BTreeSet;
use std::path::Path;

use sysinfo::System;

/// Physical cores that the process may run on, at least one.
#[must_use]
pub fn physical_cores() -> u32 {
    let usable = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = affinity_cores(Path::new("/proc/self/status"), Path::new("/sys/devices/system/cpu"))
        .or_else(System::physical_core_count)
        .unwrap_or(usable);
    u32::try_from(cores.min(usable).max(1)).unwrap_or(1)
}

/// NUMA nodes with memory, at least one.
#[must_use]
pub fn numa_nodes() -> usize {
    std::fs::read_to_string("/sys/devices/system/node/has_memory")
        .ok()
        .map_or(1, |list| parse_list(&list).len().max(1))
}

/// Distinct cores among the processors of the affinity mask (Linux); `None` where that cannot be read.
fn affinity_cores(status: &Path, cpus: &Path) -> Option<usize> {
    let status = std::fs::read_to_string(status).ok()?;
    let allowed = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cores = BTreeSet::new();
    for cpu in parse_list(allowed) {
        let siblings = cpus.join(format!("cpu{cpu}/topology/thread_siblings_list"));
        // The list of a core's processors names the core; any text will do.
        cores.insert(std::fs::read_to_string(siblings).ok()?);
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// The numbers of a Linux list such as `0-3,8`.
fn parse_list(list: &str) -> Vec<usize> {
    let mut numbers = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>())
            && last - first.min(last) < 65_536
        {
            numbers.extend(first..=last);
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        assert_eq!(parse_list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse_list(""), [] as [usize; 0]);
        assert_eq!(parse_list("5"), [5]);
    }

    #[test]
    fn siblings_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("status");
        std::fs::write(&status, "Name:\thearth\nCpus_allowed_list:\t0-3\n").unwrap();
        for (cpu, siblings) in [(0, "0,2"), (1, "1,3"), (2, "0,2"), (3, "1,3")] {
            let topology = dir.path().join(format!("cpu{cpu}/topology"));
            std::fs::create_dir_all(&topology).unwrap();
            std::fs::write(topology.join("thread_siblings_list"), siblings).unwrap();
        }
        assert_eq!(affinity_cores(&status, dir.path()), Some(2));
        assert_eq!(affinity_cores(&status, Path::new("/nonexistent")), None);
    }
}
