//! What systemd hears of a server that it has started (`Type=notify`); nothing anywhere else.

/// Requests are answered, with 503 until their model is loaded.
pub(super) fn listening() {
    #[cfg(target_os = "linux")]
    tell(sd_notify::NotifyState::Ready);
}

/// The server ends when its running completions have ended.
pub(super) fn stopping() {
    #[cfg(target_os = "linux")]
    tell(sd_notify::NotifyState::Stopping);
}

#[cfg(target_os = "linux")]
fn tell(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told what the server does");
    }
}
