//! Resources of this process.

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// Resident memory of this process in bytes, mapped weights included; `None` if the system does not report it.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let process = sysinfo::get_current_pid().ok()?;
    let mut system = System::new();
    let memory = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[process]), false, memory);
    Some(system.process(process)?.memory())
}
