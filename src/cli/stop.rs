//! The signals that end a server, and the one that has it read its configuration again.

use std::io;

/// Ctrl-C, and the signal with which services are stopped. The first one is waited for; a second one ends the process at once,
/// whatever it is doing.
pub(super) struct StopSignals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl StopSignals {
    /// Until this is called either signal ends the process.
    ///
    /// # Errors
    /// When the system does not let a signal be handled.
    #[cfg(unix)]
    pub(super) fn listen() -> io::Result<Self> {
        use std::sync::Arc;
        use std::sync::atomic::AtomicBool;

        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::flag;
        use tokio::signal::unix::{SignalKind, signal};

        let signals = Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        };
        let told = Arc::new(AtomicBool::new(false));
        for number in [SIGINT, SIGTERM] {
            // Handlers run in the order in which they are registered: this one ends the process if the next one ran before.
            flag::register_conditional_shutdown(number, 128 + number, told.clone())?;
            flag::register(number, told.clone())?;
        }
        Ok(signals)
    }

    #[cfg(not(unix))]
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the first signal; says what happened.
    #[cfg(unix)]
    pub(super) async fn first(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "terminated",
        }
    }

    #[cfg(not(unix))]
    pub(super) async fn first(&mut self) -> &'static str {
        let _ = tokio::signal::ctrl_c().await;
        // Nobody need wait for the running completions a second time.
        tokio::spawn(async {
            let _ = tokio::signal::ctrl_c().await;
            std::process::exit(130);
        });
        "interrupted"
    }
}

/// The signal that has the configuration read again.
pub(super) struct Hangups {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangups {
    /// Until this is called the signal ends the process.
    ///
    /// # Errors
    /// When the system does not let the signal be handled.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        #[cfg(unix)]
        self.signal.recv().await;
        #[cfg(not(unix))]
        std::future::pending::<()>().await;
    }
}

/// Ends the process with success. Engines may still be in the middle of loading: what llama.cpp tears down at a regular exit
/// must not go away under them.
pub(super) fn now() -> anyhow::Result<()> {
    use std::io::Write;

    io::stdout().flush()?;
    #[cfg(unix)]
    signal_hook::low_level::exit(0);
    #[cfg(not(unix))]
    Ok(())
}
