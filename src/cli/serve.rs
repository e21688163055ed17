//! `hearth serve`: the HTTP server.

use std::io::{IsTerminal, Write};

use futures_util::future::join_all;

use super::engines;
use super::stop::{self, StopSignals};
use crate::api::{self, State};
use crate::config::{Overrides, ServerConfig};
use crate::host::cpu::Cpu;
use crate::models::{self, Registry};
use crate::telemetry::Metrics;

/// Arguments of `hearth serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    overrides: Overrides,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let loaded = engines::load_config(&args.overrides)?;
    let config = loaded.config;
    let models = config.models.iter();
    let own: Vec<(&str, u16)> = models
        .filter_map(|model| Some((model.name.as_str(), model.port?)))
        .collect();
    let bound = api::bind(config.server.host, config.server.port, &own)?;
    if !config.server.host.is_loopback() {
        tracing::warn!(
            "{} is reachable from other machines, and there are no API keys yet: anybody there can use the models",
            bound.address
        );
    }
    let metrics = Metrics::new();
    let models = models::start_all(&config, &metrics)?;
    Cpu::this().log();
    announce(&bound, &models)?;
    let state = State::new(models.clone(), metrics);
    actix_web::rt::System::new().block_on(serve(bound, &state, &config.server, &models))?;
    stop::now()
}

/// Says on standard output where to connect, and what will answer there.
fn announce(bound: &api::Bound, models: &Registry) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "hearth {} listens on http://{}",
        env!("CARGO_PKG_VERSION"),
        bound.address
    )?;
    for model in models.all() {
        let info = model.info();
        let own = bound.own.iter().find(|(own, _)| *own == info.name);
        let own = own
            .map(|(_, address)| format!(", also alone on http://{address}"))
            .unwrap_or_default();
        writeln!(
            out,
            "  {} ({}, {} slots of {} tokens){own}",
            info.name, info.architecture, info.parallel, info.context
        )?;
    }
    out.flush()
}

async fn serve(bound: api::Bound, state: &State, config: &ServerConfig, models: &Registry) -> anyhow::Result<()> {
    let mut signals = StopSignals::listen()?;
    let servers = bound.start(state, config)?;
    let handles: Vec<_> = servers.iter().map(actix_web::dev::Server::handle).collect();
    let running = actix_web::rt::spawn(join_all(servers));
    if std::io::stdout().is_terminal() {
        let models = models.clone();
        actix_web::rt::spawn(async move {
            if models.loaded().await.is_ok() {
                tracing::info!("all models are ready");
            }
        });
    }
    let failure = tokio::select! {
        signal = signals.first() => {
            let grace = config.shutdown_grace.as_secs();
            tracing::info!("{signal}: finishing running completions, for {grace} s at most; a second signal ends them now");
            None
        }
        failure = models.first_failure() => Some(failure),
    };
    // Engines first: they refuse new work, /readyz says so, and running completions go on.
    models.shutdown(config.shutdown_grace).await;
    join_all(handles.iter().map(|handle| handle.stop(true))).await;
    let _ = running.await;
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}
