//! Requests that follow redirects, and tell a token to nobody but the hub.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, Response, StatusCode, Url};

use super::error::PullError;
use super::source::same_origin;

const MAX_REDIRECTS: usize = 10;
const CONNECT: Duration = Duration::from_secs(30);
/// How long a server may ask to be left alone.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A secret that no log and no message shows.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(..)")
    }
}

/// Asks servers for files.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// Who is told the token.
    endpoint: Url,
    token: Option<HeaderValue>,
}

/// A response, and what redirects on the way to it said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    /// SHA-256 of the file, as the hub tells it (`x-linked-etag`).
    pub(super) sha256: Option<String>,
}

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It would fail again.
    Final(PullError),
    /// It may succeed later; a server may say when.
    Passing { why: String, after: Option<Duration> },
}

impl Failure {
    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self::Passing {
            why: why.into(),
            after: None,
        }
    }
}

impl Client {
    /// A client of the hub at `endpoint`. `stall` is how long a server may be silent.
    ///
    /// # Errors
    /// When the token is no header value, or would go over the network unencrypted, or TLS cannot be set up.
    pub fn new(endpoint: &Url, token: Option<&Token>, stall: Duration) -> Result<Self, PullError> {
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT.min(stall))
            .read_timeout(stall)
            .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| PullError::new(format!("cannot set up HTTPS: {}", cause(&error))))?;
        let token = match token {
            None => None,
            Some(_) if endpoint.scheme() != "https" && !is_loopback(endpoint) => {
                return Err(
                    PullError::usage(format!("the token would go to {endpoint} unencrypted"))
                        .hint("use an https address, or unset the token"),
                );
            }
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.0.trim()))
                    .map_err(|_| PullError::usage("the token has characters that no token has"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self {
            http,
            endpoint: endpoint.clone(),
            token,
        })
    }

    /// Whether the hub is told a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(super) async fn get(&self, url: &Url, headers: &HeaderMap) -> Result<Answer, Failure> {
        let mut url = url.clone();
        let mut sha256 = None;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.http.request(Method::GET, url.clone()).headers(headers.clone());
            if let Some(token) = self.token.as_ref().filter(|_| same_origin(&url, &self.endpoint)) {
                request = request.header(AUTHORIZATION, token.clone());
            }
            let response = request.send().await.map_err(|error| unreachable(&url, &error))?;
            if same_origin(&url, &self.endpoint) {
                sha256 = sha256.or_else(|| linked(&response));
            }
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(Answer { response, sha256 });
            }
            let next = response
                .headers()
                .get(LOCATION)
                .and_then(|location| url.join(location.to_str().ok()?).ok());
            let Some(next) = next.filter(|next| ["http", "https"].contains(&next.scheme())) else {
                return Err(Failure::Final(PullError::new(format!(
                    "{} redirects to no address",
                    host(&url)
                ))));
            };
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err(Failure::Final(PullError::new(format!(
                    "{} redirects to {} without encryption, which is not followed",
                    host(&url),
                    host(&next)
                ))));
            }
            url = next;
        }
        Err(Failure::Final(PullError::new(format!(
            "{} redirects more than {MAX_REDIRECTS} times",
            host(&url)
        ))))
    }
}

/// The host of an address. Addresses of content networks carry signatures, which belong in no message.
pub(super) fn host(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => "the server".to_owned(),
    }
}

/// How long a server asks to wait.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// The first cause of an error: what is around it says the same in other words, and the address.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut first: &dyn Error = error;
    while let Some(cause) = first.source() {
        first = cause;
    }
    match error.source() {
        Some(_) => first.to_string(),
        None if error.is_timeout() => "timed out".to_owned(),
        None => "failed".to_owned(),
    }
}

fn unreachable(url: &Url, error: &reqwest::Error) -> Failure {
    let what = if error.is_timeout() {
        format!("{} does not answer", host(url))
    } else {
        format!("cannot reach {}: {}", host(url), cause(error))
    };
    Failure::passing(what)
}

fn linked(response: &Response) -> Option<String> {
    let text = response.headers().get("x-linked-etag")?.to_str().ok()?;
    sha256(text.trim_start_matches("W/").trim_matches('"'))
}

/// A SHA-256 in hexadecimal digits, in lower case; `None` if the text is none.
pub(super) fn sha256(text: &str) -> Option<String> {
    let text = text.trim().strip_prefix("sha256:").unwrap_or(text.trim());
    (text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit())).then(|| text.to_lowercase())
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_over_no_open_network_and_into_no_message() {
        let token = Token::new("hf_secret".into());
        assert!(!format!("{token:?}").contains("secret"));
        let make = |endpoint: &str| Client::new(&Url::parse(endpoint).unwrap(), Some(&token), Duration::from_secs(1));
        assert!(make("http://hub.example").unwrap_err().usage);
        for endpoint in [
            "https://hub.example",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost",
        ] {
            let client = make(endpoint).unwrap();
            assert!(!format!("{client:?}").contains("secret"));
        }
    }

    #[test]
    fn checksums_are_read() {
        let sum = "ab".repeat(32);
        assert_eq!(sha256(&sum.to_uppercase()), Some(sum.clone()));
        assert_eq!(sha256(&format!("sha256:{sum}")), Some(sum));
        assert_eq!(sha256("abc"), None);
    }
}
