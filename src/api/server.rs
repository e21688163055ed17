//! Listeners and the actix application.

use std::any::Any;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use actix_web::web::{Data, block, to};
use actix_web::{App, HttpRequest, HttpServer};
use anyhow::Context;

use super::access::Access;
use super::anthropic;
use super::body::Limits;
use super::error::ApiError;
use super::gate::{Places, Side, gate};
use super::middleware::{admit, observe};
use super::openai::responses;
use super::routes;
use super::state::State;
use super::tls::{RENEWAL, Tls};
use crate::config::ServerConfig;

/// How long a client may leave what is sent to it unread, or a connection without a client be kept.
const UNREAD: Duration = Duration::from_secs(60);

/// Listeners that are bound but do not answer yet.
pub struct Bound {
    /// Each listener, and the name of the one model that it serves.
    listeners: Vec<Listener>,
    tls: Option<Tls>,
    /// Where the server that serves all models listens.
    pub address: SocketAddr,
    /// Where models listen on ports of their own, by their names.
    pub own: Vec<(String, SocketAddr)>,
    /// Where administration listens, if that is elsewhere.
    pub admin: Option<SocketAddr>,
}

struct Listener {
    socket: TcpListener,
    /// The name of the one model that it serves.
    only: Option<String>,
    admin: bool,
}

/// Takes the ports, before any model is loaded: a port in use must not cost minutes.
///
/// `own` are the ports of single models, by their names.
///
/// # Errors
/// When an address is taken or cannot be used.
pub fn bind(host: IpAddr, port: u16, own: &[(&str, u16)]) -> anyhow::Result<Bound> {
    let (socket, address) = listen(host, port)?;
    let mut bound = Bound {
        listeners: vec![Listener {
            socket,
            only: None,
            admin: false,
        }],
        tls: None,
        address,
        own: Vec::new(),
        admin: None,
    };
    for (name, port) in own {
        let (socket, address) = listen(host, *port)?;
        bound.listeners.push(Listener {
            socket,
            only: Some((*name).to_owned()),
            admin: false,
        });
        bound.own.push(((*name).to_owned(), address));
    }
    Ok(bound)
}

fn listen(host: IpAddr, port: u16) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let address = SocketAddr::new(host, port);
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address}; --port or `port` in models.toml chooses another"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Bound {
    /// The same as the configuration asks for it: with TLS, and with a listener for administration.
    ///
    /// # Errors
    /// When an address is taken, or a certificate cannot be used.
    pub fn secured(mut self, config: &ServerConfig) -> anyhow::Result<Self> {
        if let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) {
            self.tls = Some(Tls::open(certificate, key)?);
        }
        if let Some(port) = config.admin_port {
            let (socket, address) = listen(config.admin_host, port)?;
            self.listeners.push(Listener {
                socket,
                only: None,
                admin: true,
            });
            self.admin = Some(address);
        }
        Ok(self)
    }

    /// `https`, or `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self.tls {
            Some(_) => "https",
            None => "http",
        }
    }

    /// The certificate, so that it can be read again.
    #[must_use]
    pub fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// Starts to answer on all listeners. The servers run until their handles stop them; no signal is handled here.
    ///
    /// # Errors
    /// When a listener cannot be used.
    pub fn start(self, state: &State, config: &ServerConfig) -> anyhow::Result<Vec<Server>> {
        let state = state.clone().log_prompts(config.log_prompts);
        if config.log_prompts {
            tracing::warn!("what people ask is written into this log (`log_prompts`)");
        }
        let limits = Limits::new(config);
        let keys = Data::new(state.keys.clone());
        let places = Data::new(Places::new(config));
        let tls = self.tls.as_ref().map(Tls::config).transpose()?;
        if let Some(tls) = self.tls {
            actix_web::rt::spawn(renew(tls));
        }
        let split = self.admin.is_some();
        let responses = Data::new(responses::Store::default());
        let mut servers = Vec::new();
        for Listener { socket, only, admin } in self.listeners {
            let state = match only {
                None => state.clone(),
                Some(name) => state.only(&name),
            };
            let side = match (split, admin) {
                (false, _) => Side::Everything,
                (true, false) => Side::Users,
                (true, true) => Side::Admin,
            };
            let host = if admin { config.admin_host } else { config.host };
            let access = Data::new(Access::of(config, host));
            let (limits, keys, places) = (limits.clone(), keys.clone(), places.clone());
            let responses = responses.clone();
            let server = HttpServer::new(move || {
                App::new()
                    .app_data(Data::new(state.clone()))
                    .app_data(limits.clone())
                    .app_data(keys.clone())
                    .app_data(places.clone())
                    .app_data(side)
                    .app_data(access.clone())
                    .app_data(responses.clone())
                    .wrap(from_fn(gate))
                    .wrap(from_fn(admit))
                    .wrap(from_fn(observe))
                    .wrap(from_fn(anthropic::reword))
                    .configure(routes)
                    .default_service(to(nothing_here))
            })
            .workers(config.http_threads)
            .max_connections(config.max_connections)
            .keep_alive(config.keep_alive)
            .client_request_timeout(config.request_timeout)
            .tls_handshake_timeout(config.request_timeout)
            .on_connect(|connection, _| bound_silence(connection))
            // A client that leaves ends its request at once, and so frees its slot.
            .h1_allow_half_closed(false)
            .tcp_nodelay(true)
            .disable_signals()
            .shutdown_timeout(config.shutdown_grace.as_secs());
            let server = match &tls {
                Some(tls) => server.listen_rustls_0_23(socket, tls.clone())?,
                None => server.listen(socket)?,
            };
            servers.push(server.run());
        }
        Ok(servers)
    }
}

/// Takes renewed certificates.
async fn renew(tls: Tls) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        let tls = tls.clone();
        match block(move || tls.renew()).await {
            Ok(Ok(true)) => tracing::info!("the certificate was renewed"),
            Ok(Err(error)) => tracing::error!("the renewed certificate cannot be used, the old one stays: {error:#}"),
            _ => {}
        }
    }
}

/// Has the system end a connection whose client has gone without a word, or does not read what it asked for.
fn bound_silence(connection: &dyn Any) {
    let plain = connection.downcast_ref::<TcpStream>();
    let secured = || {
        connection
            .downcast_ref::<TlsStream<TcpStream>>()
            .map(|stream| stream.get_ref().0)
    };
    let Some(stream) = plain.or_else(secured) else { return };
    let socket = socket2::SockRef::from(stream);
    let alive = socket2::TcpKeepalive::new().with_time(UNREAD).with_interval(UNREAD / 4);
    // Where the system cannot, connections just last longer.
    let _ = socket.set_tcp_keepalive(&alive);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNREAD));
}

async fn nothing_here(request: HttpRequest) -> Result<&'static str, ApiError> {
    let (method, path) = (request.method().as_str(), request.path());
    if request.resource_map().has_resource(path) {
        return Err(ApiError::wrong_method(method, path));
    }
    Err(ApiError::no_route(method, path))
}
