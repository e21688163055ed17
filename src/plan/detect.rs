//! The machine that this process runs on.

use std::path::Path;

use llama_cpp_2::{LlamaBackendDeviceType, list_llama_ggml_backend_devices};

use super::machine::{Device, Machine};

/// GPUs as ggml sees them, and main memory. `cores` are the physical ones.
///
/// Main memory is 0 where the system does not tell. With ggml backends as modules, these must have been loaded.
#[must_use]
pub fn machine(cores: u32) -> Machine {
    let (ram_total, ram_available) = ram(Path::new("/proc/meminfo"), Path::new("/sys/fs/cgroup"));
    let devices = list_llama_ggml_backend_devices()
        .into_iter()
        .filter_map(|device| {
            let integrated = match device.device_type {
                LlamaBackendDeviceType::Gpu => false,
                LlamaBackendDeviceType::IntegratedGpu => true,
                _ => return None,
            };
            let total = device.memory_total as u64;
            Some(Device {
                name: device.description,
                total,
                free: device.memory_free as u64,
                unified: integrated || Device::shares(total, ram_total),
            })
        })
        .collect();
    Machine {
        devices,
        ram_total,
        ram_available,
        cores,
    }
}

/// Total and available bytes of Linux, within the limit of the container.
fn ram(meminfo: &Path, cgroup: &Path) -> (u64, u64) {
    let text = std::fs::read_to_string(meminfo).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    let (total, available) = (field("MemTotal:").unwrap_or(0), field("MemAvailable:").unwrap_or(0));
    let number = |name: &str| {
        let text = std::fs::read_to_string(cgroup.join(name)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    // A file cache that the container filled counts as used, but is given up when memory is asked for: only the limit
    // is believed.
    match number("memory.max") {
        Some(limit) => (total.min(limit), available.min(limit)),
        None => (total, available),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_within_the_limit_of_the_container() {
        let folder = tempfile::tempdir().unwrap();
        let meminfo = folder.path().join("meminfo");
        std::fs::write(
            &meminfo,
            "MemTotal:       2048 kB\nMemFree: 10 kB\nMemAvailable:   1024 kB\n",
        )
        .unwrap();
        assert_eq!(ram(&meminfo, folder.path()), (2 << 20, 1 << 20));
        std::fs::write(folder.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(ram(&meminfo, folder.path()), (2 << 20, 1 << 20));
        std::fs::write(folder.path().join("memory.max"), "524288\n").unwrap();
        assert_eq!(ram(&meminfo, folder.path()), (1 << 19, 1 << 19));
        assert_eq!(ram(Path::new("nowhere"), Path::new("nowhere")), (0, 0));
    }
}
