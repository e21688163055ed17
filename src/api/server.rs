//! Listeners and the actix application.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::web::{Data, to};
use actix_web::{App, HttpRequest, HttpServer};
use anyhow::Context;

use super::access::Access;
use super::anthropic;
use super::body::BodyLimit;
use super::error::ApiError;
use super::middleware::{admit, observe};
use super::openai::responses;
use super::routes;
use super::state::State;
use crate::config::ServerConfig;

/// Time for a client to send its headers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an idle connection is kept. Longer than the pools of the usual clients keep theirs, so that a request does
/// not meet a connection that is just being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Listeners that are bound but do not answer yet.
pub struct Bound {
    /// Each listener, and the name of the one model that it serves.
    listeners: Vec<(TcpListener, Option<String>)>,
    /// Where the server that serves all models listens.
    pub address: SocketAddr,
    /// Where models listen on ports of their own, by their names.
    pub own: Vec<(String, SocketAddr)>,
}

/// Takes the ports, before any model is loaded: a port in use must not cost minutes.
///
/// `own` are the ports of single models, by their names.
///
/// # Errors
/// When an address is taken or cannot be used.
pub fn bind(host: IpAddr, port: u16, own: &[(&str, u16)]) -> anyhow::Result<Bound> {
    let listen = |port: u16| -> anyhow::Result<(TcpListener, SocketAddr)> {
        let address = SocketAddr::new(host, port);
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address}; --port or `port` in models.toml chooses another"))?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    let (shared, address) = listen(port)?;
    let mut bound = Bound {
        listeners: vec![(shared, None)],
        address,
        own: Vec::new(),
    };
    for (name, port) in own {
        let (listener, address) = listen(*port)?;
        bound.listeners.push((listener, Some((*name).to_owned())));
        bound.own.push(((*name).to_owned(), address));
    }
    Ok(bound)
}

impl Bound {
    /// Starts to answer on all listeners. The servers run until their handles stop them; no signal is handled here.
    ///
    /// # Errors
    /// When a listener cannot be used.
    pub fn start(self, state: &State, config: &ServerConfig) -> anyhow::Result<Vec<Server>> {
        let limit = BodyLimit(config.body_limit);
        let access = Data::new(Access::of(config));
        let responses = Data::new(responses::Store::default());
        let mut servers = Vec::new();
        for (listener, only) in self.listeners {
            let state = match only {
                None => state.clone(),
                Some(name) => state
                    .only(&name)
                    .with_context(|| format!("no model `{name}` is served"))?,
            };
            let access = access.clone();
            let responses = responses.clone();
            let server = HttpServer::new(move || {
                App::new()
                    .app_data(Data::new(state.clone()))
                    .app_data(limit)
                    .app_data(access.clone())
                    .app_data(responses.clone())
                    .wrap(from_fn(admit))
                    .wrap(from_fn(observe))
                    .wrap(from_fn(anthropic::reword))
                    .configure(routes)
                    .default_service(to(nothing_here))
            })
            .workers(config.http_threads)
            .max_connections(config.max_connections)
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(REQUEST_TIMEOUT)
            // A client that leaves ends its request at once, and so frees its slot.
            .h1_allow_half_closed(false)
            .tcp_nodelay(true)
            .disable_signals()
            .shutdown_timeout(config.shutdown_grace.as_secs())
            .listen(listener)?
            .run();
            servers.push(server);
        }
        Ok(servers)
    }
}

async fn nothing_here(request: HttpRequest) -> Result<&'static str, ApiError> {
    let (method, path) = (request.method().as_str(), request.path());
    if request.resource_map().has_resource(path) {
        return Err(ApiError::wrong_method(method, path));
    }
    Err(ApiError::no_route(method, path))
}
