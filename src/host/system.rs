//! Names of the processor and the operating system, for reports.

use sysinfo::{CpuRefreshKind, System};

/// The processor's own name; the architecture where it does not tell.
#[must_use]
pub fn processor_name() -> String {
    let mut system = System::new();
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    let name = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The operating system with its version.
#[must_use]
pub fn system_name() -> String {
    System::long_os_version().unwrap_or_else(|| std::env::consts::OS.to_owned())
}

/// Cores that all programs together kept busy over the last minute; `None` where the system does not tell.
#[must_use]
pub fn load() -> Option<f64> {
    let load = System::load_average().one;
    (cfg!(unix) && load.is_finite()).then_some(load)
}
