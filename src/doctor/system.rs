//! Configuration, ports, limits and the time of day.

use super::facts::{Clock, Configured, Facts, PortFacts, Taken};
use super::finding::Finding;

/// Files that are open beside connections: models, logs, libraries.
const FILES: u64 = 128;
/// 2025-01-01: no certificate of today was valid before.
const PAST: u64 = 1_735_689_600;

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![config(&facts.config)];
    findings.extend(
        facts
            .config
            .warnings
            .iter()
            .map(|warning| Finding::note("configuration", warning.clone())),
    );
    findings.extend(facts.ports.iter().map(port));
    findings.extend(
        facts
            .open_files
            .map(|limit| open_files(limit, facts.config.max_connections)),
    );
    findings.extend(facts.clock.map(clock));
    findings
}

fn config(config: &Configured) -> Finding {
    let file = config.file.as_ref().map_or_else(
        || "no file, the built-in pair".to_owned(),
        |file| file.display().to_string(),
    );
    if config.mistakes.is_empty() {
        let noun = if config.models == 1 { "model" } else { "models" };
        return Finding::ok("configuration", format!("{file}: {} {noun}, which fit", config.models));
    }
    Finding::problem("configuration", format!("{file}: {}", config.mistakes.join("; ")))
        .why("hearth serve would not start")
        .change("`hearth config check` shows each mistake with its place, `hearth plan` what would fit")
}

fn port(port: &PortFacts) -> Finding {
    let PortFacts { port, of, taken } = port;
    match taken {
        None => Finding::ok("ports", format!("{port} ({of}) is free")),
        Some(Taken::Hearth) => Finding::ok("ports", format!("{port} ({of}): a hearth answers there")),
        Some(Taken::Other) => Finding::problem("ports", format!("{port} ({of}) is taken by another program"))
            .why("hearth serve would not start")
            .change(format!(
                "stop it (`ss -ltnp 'sport = :{port}'` shows who it is), or choose another port"
            )),
        Some(Taken::Refused(reason)) => Finding::problem("ports", format!("{port} ({of}) cannot be used: {reason}"))
            .why("hearth serve would not start")
            .change("choose a port above 1023, or an address of this machine"),
    }
}

fn open_files(limit: u64, connections: u64) -> Finding {
    let what = format!("{limit} allowed");
    if limit >= connections.saturating_add(FILES) {
        return Finding::ok("open files", what);
    }
    Finding::note("open files", format!("{what}, for `max_connections = {connections}`"))
        .why("connections beyond it are refused by the system, not by hearth")
        .change("ulimit -n 65536 (systemd: LimitNOFILE=65536), or a smaller max_connections")
}

fn clock(clock: Clock) -> Finding {
    if clock.now < PAST {
        return Finding::problem("time", "the system's time lies in the past")
            .why("certificates count as not yet valid, so nothing can be fetched with https")
            .change("timedatectl set-ntp true");
    }
    match clock.synchronized {
        Some(false) => Finding::note("time", "not synchronized yet")
            .why("times in logs and metrics may be off")
            .change("timedatectl set-ntp true"),
        Some(true) => Finding::ok("time", "synchronized"),
        None => Finding::ok("time", "plausible"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    #[test]
    fn mistakes_of_the_configuration_are_problems() {
        assert_eq!(config(&Configured::default()).status, Status::Ok);
        let mistaken = Configured {
            mistakes: vec!["a".into(), "b".into()],
            ..Configured::default()
        };
        let finding = config(&mistaken);
        assert_eq!(finding.status, Status::Problem);
        assert!(finding.what.ends_with("a; b"));
    }

    #[test]
    fn a_port_may_be_taken_by_hearth_itself() {
        let port = |taken| {
            port(&PortFacts {
                port: 8080,
                of: "server".into(),
                taken,
            })
            .status
        };
        assert_eq!(port(None), Status::Ok);
        assert_eq!(port(Some(Taken::Hearth)), Status::Ok);
        assert_eq!(port(Some(Taken::Other)), Status::Problem);
        assert_eq!(port(Some(Taken::Refused("denied".into()))), Status::Problem);
    }

    #[test]
    fn limits_and_clocks() {
        assert_eq!(open_files(1024, 4096).status, Status::Note);
        assert_eq!(open_files(65_536, 4096).status, Status::Ok);
        let clock = |now, synchronized| clock(Clock { now, synchronized }).status;
        assert_eq!(clock(0, Some(true)), Status::Problem);
        assert_eq!(clock(PAST, Some(false)), Status::Note);
        assert_eq!(clock(PAST, None), Status::Ok);
    }
}
