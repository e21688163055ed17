//! Running servers that commands ask.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder, Url};

use super::output::Usage;

/// What to do about a certificate that this system does not trust.
pub(super) const UNTRUSTED: &str = "the variable SSL_CERT_FILE names a file with the certificates to trust";

/// A client of one server, which shows it this key. A server without TLS needs no certificates, and a small image may have none.
pub(super) fn client(url: &Url, key: Option<HeaderValue>) -> ClientBuilder {
    let headers: HeaderMap = key.into_iter().map(|key| (AUTHORIZATION, key)).collect();
    let builder = Client::builder().default_headers(headers);
    match url.scheme() {
        "http" => builder.tls_certs_only([]),
        _ => builder,
    }
}

/// The key of a server, as it is sent: the one that was given, or that of `HEARTH_API_KEY`.
///
/// # Errors
/// When it cannot be part of a request.
pub(super) fn key(given: Option<String>) -> Result<Option<HeaderValue>, Usage> {
    let variable = || std::env::var("HEARTH_API_KEY").ok();
    let key = given.or_else(variable).filter(|key| !key.is_empty());
    key.map(|key| {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| Usage("the API key has characters that no key has".into()))?;
        value.set_sensitive(true);
        Ok(value)
    })
    .transpose()
}
