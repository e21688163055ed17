//! What systemd hears of a server that it has started (`Type=notify`); nothing anywhere else.

/// Requests are answered, with 503 until their model is loaded.
pub(super) fn listening() {
    #[cfg(target_os = "linux")]
    tell(&[sd_notify::NotifyState::Ready]);
}

/// The configuration is read again.
pub(super) fn reloading() {
    #[cfg(target_os = "linux")]
    {
        // systemd tells by the time whether it is the reload that it asked for.
        let now = sd_notify::NotifyState::monotonic_usec_now().ok();
        let states: Vec<_> = std::iter::once(sd_notify::NotifyState::Reloading).chain(now).collect();
        tell(&states);
    }
}

/// It has been read; `systemctl status` shows what was wrong with it, until the next time.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "nobody listens"))]
pub(super) fn reloaded(wrong: Option<&str>) {
    #[cfg(target_os = "linux")]
    {
        // A status is one line.
        let line = wrong.and_then(|text| text.lines().next()).unwrap_or_default();
        tell(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(line)]);
    }
}

/// The server ends when its running completions have ended.
pub(super) fn stopping() {
    #[cfg(target_os = "linux")]
    tell(&[sd_notify::NotifyState::Stopping]);
}

#[cfg(target_os = "linux")]
fn tell(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd cannot be told what the server does");
    }
}
