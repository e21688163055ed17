//! What this process takes of the machine.

use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

/// Main memory that this process has now, weights that are mapped from the file included; `None` where the system does
/// not tell.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let process = sysinfo::get_current_pid().ok()?;
    let mut system = System::new();
    let memory = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[process]), false, memory);
    Some(system.process(process)?.memory())
}
