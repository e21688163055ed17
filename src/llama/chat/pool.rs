//! Threads for calls into `common`: few, and with large stacks.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// Bytes of a thread's stack; memory only where it is used. `common` recurses over brackets, templates and schemas.
pub const STACK: usize = 128 << 20;
/// A call that takes longer does not end: no template takes a second.
const DEADLINE: Duration = Duration::from_secs(20);
/// Threads that calls without an end may hold for ever.
const SPARE: usize = 8;

/// Why a call gave no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("it did not end within {} s", DEADLINE.as_secs())]
    Endless,
    #[error("there is no thread for it")]
    NoThread,
    #[error("it panicked")]
    Panicked,
}

struct Pool {
    /// Only its threads for blocking work are used; they end when there is nothing to do for a while.
    runtime: Runtime,
    turns: Semaphore,
}

static POOL: LazyLock<Option<Pool>> = LazyLock::new(|| {
    let at_once = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 8));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(at_once + SPARE)
        .thread_stack_size(STACK)
        .thread_name("chat")
        .build();
    let turns = Semaphore::new(at_once);
    runtime.ok().map(|runtime| Pool { runtime, turns })
});

/// Runs `work` on one of the threads, when it is its turn.
///
/// # Errors
/// When there is no result, see [`RunError`].
///
/// # Cancel safety
/// Work that has begun goes on; its result is lost.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RunError> {
    let pool = POOL.as_ref().ok_or(RunError::NoThread)?;
    let turn = pool.turns.acquire().await.map_err(|_| RunError::NoThread)?;
    // What it logs belongs to who asked.
    let span = tracing::Span::current();
    let running = pool.runtime.spawn_blocking(move || (span.in_scope(work), turn));
    match tokio::time::timeout(DEADLINE, running).await {
        Ok(Ok((result, _turn))) => Ok(result),
        Ok(Err(_)) => Err(RunError::Panicked),
        Err(_) => {
            // The thread holds its turn for as long as it runs; others take the spare threads.
            if pool.turns.available_permits() < SPARE {
                pool.turns.add_permits(1);
            }
            Err(RunError::Endless)
        }
    }
}
