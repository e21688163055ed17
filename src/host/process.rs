//! Resources of this process.

use std::time::Duration;

use sysinfo::{Process, ProcessRefreshKind, ProcessesToUpdate, System};

/// What this process takes. Amounts are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessUse {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory, mapped weights included.
    pub resident: u64,
    pub virtual_memory: u64,
    pub open_files: Option<u64>,
    pub max_files: Option<u64>,
    pub threads: Option<u64>,
    /// When it was started, in seconds since the Unix epoch.
    pub started: u64,
}

/// Resident memory of this process in bytes, mapped weights included; `None` if the system does not report it.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    ask(ProcessRefreshKind::nothing().with_memory(), Process::memory)
}

/// What this process takes; `None` if the system does not report it.
#[must_use]
pub fn process_use() -> Option<ProcessUse> {
    let what = ProcessRefreshKind::nothing().with_memory().with_cpu().with_tasks();
    ask(what, |process| ProcessUse {
        cpu: Duration::from_millis(process.accumulated_cpu_time()),
        resident: process.memory(),
        virtual_memory: process.virtual_memory(),
        open_files: process.open_files().map(|files| files as u64),
        max_files: process.open_files_limit().map(|files| files as u64),
        // Those beside the first one.
        threads: process.tasks().map(|tasks| tasks.len() as u64 + 1),
        started: process.start_time(),
    })
}

fn ask<T>(what: ProcessRefreshKind, read: impl FnOnce(&Process) -> T) -> Option<T> {
    let id = sysinfo::get_current_pid().ok()?;
    let mut system = System::new();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), false, what);
    Some(read(system.process(id)?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let threads = || process_use().unwrap().threads.unwrap();
        let before = threads();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let further = std::thread::spawn(move || ended.recv());
        // Other tests start and end threads meanwhile.
        assert!(before >= 1 && threads() >= 2);
        drop(end);
        let _ = further.join();
        let process = process_use().unwrap();
        assert!(process.resident > 1 << 20 && process.virtual_memory >= process.resident);
        assert!(process.open_files.unwrap() >= 3 && process.max_files >= process.open_files);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!(process.started <= now + 1 && process.started + 3600 > now);
    }
}
