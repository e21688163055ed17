//! HTTP to one server: its key, its time limits, and what a response must look like.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Response, redirect, retry};
use tokio::time::{Instant, timeout, timeout_at};

use super::events::{Events, in_words};
use super::fault::{About, Fault};
use super::wire::{ListedModel, Models};
use crate::config::UpstreamConfig;

/// Idle connections that are kept, and for how long: shorter than servers keep theirs.
const IDLE: usize = 64;
const IDLE_TIME: Duration = Duration::from_secs(4);
/// Bytes of an answer that comes as a whole: 2,048 vectors of 8,192 numbers fit.
const LARGE_BODY: usize = 256 << 20;
/// Bytes of an error or a list of models that are read, and time for them.
const SMALL_BODY: usize = 256 << 10;
const SMALL_TIME: Duration = Duration::from_secs(10);

/// The way to one server.
pub(super) struct Client {
    pub(super) config: UpstreamConfig,
    /// As clients call the model.
    model: String,
    /// Host and port: the server in messages and metrics.
    pub(super) label: String,
    http: reqwest::Client,
    key: Option<Key>,
}

/// An API key; never shown.
struct Key {
    text: String,
    header: HeaderValue,
}

impl Client {
    /// Reads the key from the environment.
    ///
    /// # Errors
    /// What the HTTP client lacks, such as the certificates of the system.
    pub(super) fn new(model: &str, config: &UpstreamConfig) -> Result<Self, String> {
        let url = &config.base_url;
        let host = url.host_str().unwrap_or_default();
        let label = match url.port_or_known_default() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.connect_timeout)
            // The key is for this server and no other.
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(retry::never())
            .pool_max_idle_per_host(IDLE)
            .pool_idle_timeout(IDLE_TIME)
            .tcp_keepalive(Duration::from_secs(30));
        if url.scheme() == "http" {
            // No certificates are needed, and a small image may have none.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            config: config.clone(),
            model: model.to_owned(),
            label,
            http: builder.build().map_err(|error| in_words(&error))?,
            key: config.api_key_env.as_deref().and_then(Key::of_variable),
        })
    }

    pub(super) fn about(&self) -> About<'_> {
        About {
            model: &self.model,
            replica: &self.label,
            secret: self.key.as_ref().map(|key| key.text.as_str()),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.config.base_url.as_str().trim_end_matches('/'))
    }

    /// Sends a request and waits for the head of an answer of this type.
    async fn send(&self, path: &str, body: Vec<u8>, answer: &str, begin: Instant) -> Result<Response, Fault> {
        let about = self.about();
        let mut request = self
            .http
            .post(self.url(path))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, answer);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.header.clone());
        }
        let sent = timeout_at(begin, request.body(body).send()).await;
        let response = match sent {
            Err(_) => return Err(self.no_beginning()),
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() && error.is_timeout() => {
                return Err(about.no_connection("it does not take the connection in time"));
            }
            Ok(Err(error)) => return Err(about.no_connection(&in_words(&error))),
        };
        let status = response.status().as_u16();
        if status != 200 {
            let retry_after = retry_after(&response);
            let body = small_body(response).await;
            return Err(about.status(status, retry_after, &body));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case(answer) {
            let kind: String = kind.chars().take(64).collect();
            return Err(about.nonsense(format!(
                "it answers with `{kind}` instead of `{answer}`; `base_url` must be where its API begins"
            )));
        }
        Ok(response)
    }

    /// Sends a request and waits for the head of a streamed answer.
    pub(super) async fn stream(&self, path: &str, body: Vec<u8>, begin: Instant) -> Result<Events, Fault> {
        let response = self.send(path, body, "text/event-stream", begin).await?;
        Ok(Events::new(response, self.config.idle_timeout))
    }

    /// Sends a request and waits for the whole answer, until `end`.
    pub(super) async fn ask(&self, path: &str, body: Vec<u8>, begin: Instant, end: Instant) -> Result<Vec<u8>, Fault> {
        let about = self.about();
        let mut response = self.send(path, body, "application/json", begin).await?;
        let mut answer = Vec::new();
        loop {
            let silent = Instant::now() + self.config.idle_timeout;
            match timeout_at(end.min(silent), response.chunk()).await {
                Err(_) => return Err(about.too_slow("the answer stands still, or takes too long")),
                Ok(Err(error)) => return Err(about.cut(in_words(&error))),
                Ok(Ok(None)) => return Ok(answer),
                Ok(Ok(Some(bytes))) if answer.len() + bytes.len() > LARGE_BODY => {
                    return Err(about.nonsense("its answer is larger than 256 MiB"));
                }
                Ok(Ok(Some(bytes))) => answer.extend_from_slice(&bytes),
            }
        }
    }

    /// The answer does not begin in time.
    pub(super) fn no_beginning(&self) -> Fault {
        let limit = self.config.first_byte_timeout.as_secs_f64();
        self.about()
            .too_slow(&format!("no answer begins within {limit} s (`first_byte_timeout`)"))
    }

    /// What the server says of the model.
    ///
    /// # Errors
    /// Why it cannot be asked, for people.
    pub(super) async fn look(&self) -> Result<ListedModel, String> {
        let mut request = self.http.get(self.url("models"));
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.header.clone());
        }
        let limit = self.config.connect_timeout + SMALL_TIME;
        let response = match timeout(limit, request.send()).await {
            Err(_) => return Err(format!("{} does not answer in time", self.label)),
            Ok(Err(error)) => return Err(format!("{}: {}", self.label, in_words(&error))),
            Ok(Ok(response)) => response,
        };
        let status = response.status().as_u16();
        let body = small_body(response).await;
        match status {
            200 => {}
            // There is a server; some have no such list.
            404 | 405 | 501 => return Ok(ListedModel::default()),
            _ => return Err(format!("{} answers {status} to GET /models", self.label)),
        }
        let models: Models = serde_json::from_slice(&body).unwrap_or_default();
        let name = self.config.model.as_deref().unwrap_or(&self.model);
        Ok(models
            .data
            .into_iter()
            .find(|model| model.id == name)
            .unwrap_or_default())
    }
}

impl Key {
    fn of_variable(name: &str) -> Option<Self> {
        let text = std::env::var(name).ok()?.trim().to_owned();
        if text.is_empty() {
            return None;
        }
        let Ok(mut header) = HeaderValue::try_from(format!("Bearer {text}")) else {
            tracing::warn!(
                variable = name,
                "the API key has characters that no key has: it is not sent"
            );
            return None;
        };
        header.set_sensitive(true);
        Some(Self { text, header })
    }
}

/// Seconds that a server asks to wait; dates are not understood.
fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: f64 = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Duration::try_from_secs_f64(seconds.min(3600.0)).ok()
}

/// The beginning of a body, as far as it comes in time.
async fn small_body(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(bytes)) = response.chunk().await {
            body.extend_from_slice(&bytes);
            if body.len() > SMALL_BODY {
                break;
            }
        }
    };
    // What came is enough for a message.
    let _ = timeout(SMALL_TIME, read).await;
    body.truncate(SMALL_BODY);
    body
}
