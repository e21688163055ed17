//! This process, under the names that Prometheus' own clients use.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, IntGauge};

use super::{NAMES, signed};
use crate::host;

/// Empty where the system does not tell.
pub(super) fn families() -> Vec<MetricFamily> {
    let Some(process) = host::process_use() else {
        return Vec::new();
    };
    let cpu = Counter::new("process_cpu_seconds_total", "User and system CPU time that was spent.").expect(NAMES);
    cpu.inc_by(process.cpu.as_secs_f64());
    let mut families = cpu.collect();
    let whole = [
        (
            "process_resident_memory_bytes",
            "Resident memory, mapped weights included.",
            Some(process.resident),
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory.",
            Some(process.virtual_memory),
        ),
        ("process_open_fds", "Open file descriptors.", process.open_files),
        (
            "process_max_fds",
            "File descriptors that may be open.",
            process.max_files,
        ),
        ("process_threads", "Threads.", process.threads),
        (
            "process_start_time_seconds",
            "When the process was started, since the Unix epoch.",
            Some(process.started),
        ),
    ];
    for (name, help, number) in whole {
        let Some(number) = number else { continue };
        let gauge = IntGauge::new(name, help).expect(NAMES);
        gauge.set(signed(number));
        families.extend(gauge.collect());
    }
    families
}
