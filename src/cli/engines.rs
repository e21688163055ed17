//! What commands that load a model have in common.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::output;
use crate::api::{self, State};
use crate::config::{self, Config, Loaded, ModelConfig, Overrides, ServerConfig};
use crate::models::{self, Model, Models, Registry, Started, UnknownModel};

/// Reads the configuration and tells its warnings.
pub(super) fn load_config(overrides: &Overrides) -> anyhow::Result<Loaded> {
    let loaded = config::load(overrides)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

/// The model that is meant by name, alias or role; the first one if `None`.
pub(super) fn choose<'m>(models: &'m [ModelConfig], name: Option<&str>) -> Result<&'m ModelConfig, UnknownModel> {
    let found = models::find(models.iter(), name).and_then(|index| models.get(index));
    found.ok_or_else(|| UnknownModel {
        name: name.unwrap_or_default().to_owned(),
        known: models.iter().map(|model| model.name.clone()).collect(),
    })
}

/// Starts the model that is meant by name, alias or role (the first one if `None`) and waits until it is loaded.
pub(super) fn start_one(overrides: &Overrides, name: Option<&str>) -> anyhow::Result<Started> {
    let loaded = load_config(overrides)?;
    start_and_wait(choose(&loaded.config.models, name)?, &loaded.config)
}

/// Starts a model and waits until it is loaded.
pub(super) fn start_and_wait(model: &ModelConfig, config: &Config) -> anyhow::Result<Started> {
    start_as(model, config, None)
}

/// The same, with [`models::start`]'s `experts_in_ram`.
pub(super) fn start_as(model: &ModelConfig, config: &Config, experts_in_ram: Option<u32>) -> anyhow::Result<Started> {
    let started = models::start(model, config, experts_in_ram)?;
    let bar = output::progress_bar(100, &format!("loading {}", model.name));
    // The number is between 0 and 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a percentage")]
    let result = started
        .engine
        .wait_until_loaded(|done| bar.set_position((done * 100.0) as u64));
    bar.finish_and_clear();
    result?;
    Ok(started)
}

/// Serves a started engine on a free port of this machine, until the process ends.
pub(super) fn serve_in_background(started: &Started) -> anyhow::Result<SocketAddr> {
    let bound = api::bind(IpAddr::V4(Ipv4Addr::LOCALHOST), 0, &[])?;
    let address = bound.address;
    let model = Arc::new(Model::new(started.engine.clone()));
    let models = Models::fixed(Registry::new([model], false), started.metrics.clone());
    let state = State::new(models, started.metrics.clone());
    std::thread::Builder::new().name("http".into()).spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            match bound.start(&state, &ServerConfig::default()) {
                Ok(servers) => {
                    futures_util::future::join_all(servers).await;
                }
                Err(error) => tracing::error!("{error:#}"),
            }
        });
    })?;
    Ok(address)
}
