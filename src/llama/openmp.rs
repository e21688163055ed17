//! How llama.cpp's threads wait for each other.
//!
//! The threads of a model meet after each operation, some thousand times per token. They are OpenMP's, and GNU's OpenMP lets
//! them spin for many milliseconds before they sleep. On a machine that is busy with something else that costs most of the
//! speed: while one of them has lost its core, the others burn the time that the system gave them.

/// Turns of the waiting loop before a thread sleeps. docs/performance.md has the speeds with this and other numbers, on an idle
/// and on a busy machine.
#[cfg(target_os = "linux")]
const SPINS: &str = "10000";

/// Lets threads that wait sleep soon, unless the environment says how they are to wait (`GOMP_SPINCOUNT`,
/// `OMP_WAIT_POLICY`).
///
/// OpenMP reads its environment before `main` runs, so this starts the same program anew in this process, once. To be called
/// before anything is opened or started. Where that fails, and elsewhere than on Linux, all stays as it is.
pub fn limit_spinning() {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;

        let told = ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"];
        if told.iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        let Ok(program) = std::env::current_exe() else { return };
        let mut arguments = std::env::args_os();
        let mut command = std::process::Command::new(program);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        // Returns only when it failed.
        let error = command.args(arguments).env("GOMP_SPINCOUNT", SPINS).exec();
        tracing::debug!(%error, "waiting threads of OpenMP spin for as long as they like");
    }
}
