//! `hearth serve`: the HTTP server.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use futures_util::future::join_all;

use super::engines;
use crate::api::{self, State};
use crate::config::{Overrides, ServerConfig};
use crate::engine::local::LocalEngine;
use crate::engine::{Engine, Health};
use crate::host::cpu::Cpu;
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
    let own: Vec<(usize, u16)> = (0..)
        .zip(&config.models)
        .filter_map(|(index, model)| Some((index, model.port?)))
        .collect();
    let bound = api::bind(config.server.host, config.server.port, &own)?;
    if !config.server.host.is_loopback() {
        tracing::warn!(
            "{} is reachable from other machines, and there are no API keys yet: anybody there can use the models",
            bound.address
        );
    }
    let metrics = Metrics::new();
    let models = engines::start_all(&config.models, &config.memory, &metrics)?;
    let models: Vec<Arc<LocalEngine>> = models.into_iter().map(Arc::new).collect();
    Cpu::this().log();
    announce(&bound, &models)?;
    let shared: Vec<Arc<dyn Engine>> = models.iter().map(|engine| engine.clone() as Arc<dyn Engine>).collect();
    let state = State::new(shared, metrics);
    actix_web::rt::System::new().block_on(serve(bound, &state, &config.server, &models))
}

/// Says on standard output where to connect, and what will answer there.
fn announce(bound: &api::Bound, models: &[Arc<LocalEngine>]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "hearth {} listens on http://{}",
        env!("CARGO_PKG_VERSION"),
        bound.address
    )?;
    for (index, model) in models.iter().enumerate() {
        let card = model.card();
        let own = bound.own.iter().find(|(own, _)| *own == index);
        let own = own
            .map(|(_, address)| format!(", also alone on http://{address}"))
            .unwrap_or_default();
        writeln!(
            out,
            "  {} ({}, {} slots of {} tokens){own}",
            card.name, card.architecture, card.parallel, card.context
        )?;
    }
    out.flush()
}

async fn serve(
    bound: api::Bound,
    state: &State,
    config: &ServerConfig,
    models: &[Arc<LocalEngine>],
) -> anyhow::Result<()> {
    let servers = bound.start(state, config)?;
    let handles: Vec<_> = servers.iter().map(actix_web::dev::Server::handle).collect();
    let running = actix_web::rt::spawn(join_all(servers));

    let failure = tokio::select! {
        signal = stop_signal() => {
            tracing::info!("{signal}: finishing running answers, for {} s at most", config.shutdown_grace.as_secs());
            None
        }
        failure = first_failure(models) => Some(failure),
    };
    // Engines first: they refuse new work, /readyz says so, and running answers go on.
    join_all(models.iter().map(|model| model.shutdown(config.shutdown_grace))).await;
    join_all(handles.iter().map(|handle| handle.stop(true))).await;
    let _ = running.await;
    match failure {
        Some(failure) => bail!(failure),
        None => Ok(()),
    }
}

/// Waits until all models are loaded, telling so; resolves only when one of them fails.
async fn first_failure(models: &[Arc<LocalEngine>]) -> String {
    let mut told = false;
    loop {
        let states: Vec<Health> = models.iter().map(|model| model.health()).collect();
        for (model, health) in models.iter().zip(&states) {
            if let Health::Failed { reason } = health {
                return format!("model `{}`: {reason}", model.card().name);
            }
        }
        if !told && states.iter().all(|health| *health == Health::Ready) {
            told = true;
            if std::io::stdout().is_terminal() {
                tracing::info!("all models are ready");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Ctrl-C, or the signal with which services are stopped.
async fn stop_signal() -> &'static str {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            return tokio::select! {
                _ = tokio::signal::ctrl_c() => "interrupted",
                _ = terminate.recv() => "terminated",
            };
        }
    }
    let _ = tokio::signal::ctrl_c().await;
    "interrupted"
}
