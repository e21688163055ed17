//! Models that other servers compute: vLLM, SGLang, TensorRT-LLM, a hosted service, another hearth.
//!
//! [`start`] makes a [`ChatBackend`] of the servers (replicas) of a model: `request` writes our requests in OpenAI's form, `client` sends
//! them, `events` reads the stream and `answer` makes typed output of it, with `thoughts` for servers that leave those in the content.
//! `replicas` chooses whom to ask, with a circuit breaker for each; `backend` asks, again where that may help, as long as nothing was
//! passed on. All connections belong to a thread of their own: a slow server keeps no worker of the HTTP server busy.

mod answer;
mod backend;
mod breaker;
mod client;
mod embedding;
mod engine;
mod events;
mod fault;
mod replicas;
mod request;
mod thoughts;
mod wire;

use std::io;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;

use crate::config::ModelConfig;
use crate::engine::{Health, TokenEngine};
use crate::generation::ChatBackend;
use crate::telemetry::Metrics;

/// Why a model of other servers does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("there can be no connections to {server}: {reason}")]
    Client { server: String, reason: String },
}

/// A model of other servers.
pub struct Upstream {
    /// What is known of it; it computes no tokens.
    pub engine: Arc<dyn TokenEngine>,
    pub chat: Arc<dyn ChatBackend>,
}

/// Gets ready to ask the servers of a model, and looks at them from now on. API keys are read from the environment.
///
/// # Errors
/// [`StartError`] if this process lacks something; a server that does not answer is no error.
pub fn start(config: &ModelConfig, metrics: &Metrics) -> Result<Upstream, StartError> {
    let runtime = runtime().map_err(StartError::Thread)?;
    let replica = |to| {
        let client = client::Client::new(&config.name, to).map_err(|reason| StartError::Client {
            server: to.base_url.to_string(),
            reason,
        })?;
        let metrics = metrics.upstream(&config.name, &client.label);
        Ok(replicas::Replica::new(client, metrics))
    };
    let all = config.upstream.iter().map(replica).collect::<Result<Vec<_>, _>>()?;
    let shared = Arc::new(backend::Shared {
        name: config.name.clone(),
        replicas: replicas::Replicas::new(all),
        sampling: config.sampling.clone(),
        metrics: metrics.model(&config.name),
        health: watch::Sender::new(Health::Loading { progress: 0.0 }),
        stop: watch::Sender::new(false),
        running: AtomicU32::new(0),
    });
    let engine = engine::Engine::new(config, shared.clone(), runtime.clone());
    runtime.spawn(engine.look());
    Ok(Upstream {
        engine: Arc::new(engine),
        chat: Arc::new(backend::Backend {
            shared,
            runtime: runtime.clone(),
        }),
    })
}

/// The thread of all connections; it stays as long as the process.
fn runtime() -> io::Result<&'static Handle> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if RUNTIME.get().is_none() {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("upstream")
            .enable_all()
            .build()?;
        // Two threads may come here at the same time: the second one's is not needed.
        if let Err(second) = RUNTIME.set(runtime) {
            second.shutdown_background();
        }
    }
    RUNTIME
        .get()
        .map(Runtime::handle)
        .ok_or_else(|| io::Error::other("no runtime"))
}
