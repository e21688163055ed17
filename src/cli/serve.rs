//! `hearth serve`: the HTTP server.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use futures_util::future::join_all;

use super::stop::{self, Hangups, StopSignals};
use super::{engines, output, systemd};
use crate::api::{self, Configuration, State};
use crate::config::{Overrides, ServerConfig};
use crate::engine::Health;
use crate::gguf::name_broken_maps;
use crate::host::cpu::Cpu;
use crate::models::{Models, Registry, Trials};
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
    allow_files();
    let bound = api::bind(config.server.host, config.server.port, &own)?.secured(&config.server)?;
    let keys = api::Keys::new(&config);
    warn_if_open(&config.server, &bound, &keys);
    let metrics = Metrics::new();
    let server = config.server.clone();
    let trials = match config.server.try_files {
        true => Some(Trials::new(std::env::current_exe()?, vec!["try-model".to_owned()])),
        false => None,
    };
    name_broken_maps();
    let models = Models::start(config, trials, metrics.clone())?;
    Cpu::this().log();
    announce(&bound, &models.registry());
    let overrides = args.overrides;
    let configuration = Configuration::new(move || Ok(engines::load_config(&overrides)?.config));
    let state = State::new(models.clone(), metrics)
        .with_configuration(configuration.clone())
        .with_keys(keys);
    actix_web::rt::System::new().block_on(serve(bound, &state, &server, &models, configuration))?;
    stop::now()
}

/// Raises the number of files that may be open: each connection is one, and systems allow a thousand by default.
fn allow_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};

        let mut limit = getrlimit(Resource::Nofile);
        let wanted = limit.maximum.map_or(1 << 16, |most| most.min(1 << 16));
        if limit.current.is_some_and(|current| current < wanted) {
            limit.current = Some(wanted);
            // Where it cannot be, fewer connections are accepted at once.
            let _ = setrlimit(Resource::Nofile, limit);
        }
    }
}

/// Says loudly what anybody in the network can do.
fn warn_if_open(config: &ServerConfig, bound: &api::Bound, keys: &api::Keys) {
    let hint = "`api_keys` in [server], HEARTH_API_KEY or --api-key ask for a key";
    if !config.host.is_loopback() && keys.are_none() {
        let address = bound.address;
        tracing::warn!(
            "{address} is reachable from other machines WITHOUT A KEY: anybody there can use the models; {hint}"
        );
    }
    if !config.host.is_loopback() && !keys.are_none() && bound.scheme() == "http" {
        let address = bound.address;
        tracing::warn!(
            "{address} is reachable from other machines without TLS: keys and texts can be read on the way; \
             `tls_certificate` and `tls_key` in [server], or a proxy with TLS, protect them"
        );
    }
    if let Some(address) = bound.admin
        && !config.admin_host.is_loopback()
        && config.admin_key.is_none()
        && keys.are_none()
    {
        tracing::warn!(
            "administration on {address} is reachable from other machines WITHOUT A KEY; `admin_key` asks for one"
        );
    }
}

/// Says on standard output where to connect, and what will answer there. Nobody has to read it.
fn announce(bound: &api::Bound, models: &Registry) {
    let scheme = bound.scheme();
    let mut text = format!(
        "hearth {} listens on {scheme}://{}\n",
        env!("CARGO_PKG_VERSION"),
        bound.address
    );
    if let Some(address) = bound.admin {
        text += &format!("  administration and metrics on {scheme}://{address}\n");
    }
    for model in models.all() {
        let info = model.info();
        let what = match model.engine.health() {
            Health::Unloaded => format!("{}, loaded on demand", info.architecture),
            Health::Failed { reason } => format!("not available: {reason}"),
            _ if info.size_bytes == 0 => info.architecture.clone(),
            _ => format!(
                "{}, {} slots of {} tokens",
                info.architecture, info.parallel, info.context
            ),
        };
        let own = bound.own.iter().find(|(own, _)| *own == info.name);
        let own = own.map(|(_, address)| format!(", also alone on {scheme}://{address}"));
        text += &format!("  {} ({what}){}\n", info.name, own.unwrap_or_default());
    }
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Err(error) = written {
        tracing::debug!("standard output: {error}");
    }
}

async fn serve(
    bound: api::Bound,
    state: &State,
    config: &ServerConfig,
    models: &Models,
    configuration: Configuration,
) -> anyhow::Result<()> {
    let mut signals = StopSignals::listen()?;
    let hangups = Hangups::listen()?;
    actix_web::rt::spawn(reload(hangups, configuration, state.clone()));
    let servers = bound.start(state, config)?;
    systemd::listening();
    let handles: Vec<_> = servers.iter().map(actix_web::dev::Server::handle).collect();
    let running = actix_web::rt::spawn(join_all(servers));
    let looked_after = models.clone();
    actix_web::rt::spawn(async move { looked_after.look_after().await });
    if std::io::stderr().is_terminal() {
        actix_web::rt::spawn(show_progress(models.clone()));
    }
    let failure = tokio::select! {
        signal = signals.first() => {
            let grace = config.shutdown_grace.as_secs();
            tracing::info!("{signal}: finishing running completions, for {grace} s at most; a second signal ends them now");
            None
        }
        failure = models.all_failed() => Some(failure),
    };
    systemd::stopping();
    // Engines first: they refuse new work, /readyz says so, and running completions go on.
    models.shutdown(config.shutdown_grace).await;
    join_all(handles.iter().map(|handle| handle.stop(true))).await;
    let _ = running.await;
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Reads the configuration again whenever a signal asks for it.
async fn reload(mut hangups: Hangups, configuration: Configuration, state: State) {
    loop {
        hangups.next().await;
        systemd::reloading();
        let configuration = configuration.clone();
        let read = actix_web::rt::task::spawn_blocking(move || configuration.read()).await;
        match read.map_err(anyhow::Error::from).flatten() {
            Ok(next) => {
                for table in state.reload(next).restart {
                    tracing::warn!("{table} has changes that take effect when hearth is started again");
                }
                systemd::reloaded(None);
            }
            Err(error) => {
                let wrong = format!("nothing was changed: {error:#}");
                tracing::error!("{wrong}");
                systemd::reloaded(Some(&wrong));
            }
        }
    }
}

/// Shows on a terminal how far the models are.
async fn show_progress(models: Models) {
    const PAUSE: Duration = Duration::from_millis(100);
    let bar = output::progress_bar(100, "loading");
    loop {
        let registry = models.registry();
        let loading = registry.all().iter().filter_map(|model| match model.engine.health() {
            Health::Loading { progress } => Some((model.name().to_owned(), progress)),
            _ => None,
        });
        let loading: Vec<_> = loading.collect();
        // The one that has furthest to go says how long it takes.
        let Some((_, least)) = loading.iter().min_by(|one, other| one.1.total_cmp(&other.1)) else {
            break;
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage")]
        bar.set_position((least * 100.0) as u64);
        let names: Vec<_> = loading.iter().map(|(name, _)| name.as_str()).collect();
        bar.set_message(format!("loading {}", names.join(", ")));
        actix_web::rt::time::sleep(PAUSE).await;
    }
    bar.finish_and_clear();
    if models.settled().await {
        tracing::info!("all models are ready");
    }
}
