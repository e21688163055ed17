//! Who may ask at all: not any web page that a browser on this machine happens to show.
//!
//! Two headers tell. Browsers send `Origin` with every request of a page to another site, so that a foreign one can be
//! refused. And a page may come from a name that its owner points to this machine ("DNS rebinding"): then `Origin` and
//! `Host` agree, but the host is not one by which this machine is known to itself. Programs that are no browsers send
//! what they like, and are answered.

use std::net::IpAddr;

use actix_web::http::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use actix_web::http::uri::Uri;

use super::error::ApiError;
use crate::config::ServerConfig;

/// What a listener answers to.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// `None` for any.
    hosts: Option<Vec<String>>,
    /// `[server] cors`: besides our own.
    origins: Vec<String>,
}

/// What a user writes to allow everything.
const ANY: &str = "*";
/// What a user writes to allow the pages of this machine.
const LOCALHOST: &str = "localhost";

impl Access {
    /// A server that only this machine reaches is asked by this machine's own names, or those that are configured. Names
    /// of a server for other machines are not known, unless they are configured.
    pub(super) fn of(config: &ServerConfig, host: IpAddr) -> Self {
        let named = host.is_loopback() || !config.allowed_hosts.is_empty();
        let any = config.allowed_hosts.iter().any(|host| host == ANY);
        Self {
            hosts: (named && !any).then(|| config.allowed_hosts.clone()),
            origins: config.cors.clone(),
        }
    }

    /// Refuses a request with a foreign `Host` or `Origin`. A missing one is fine.
    pub(super) fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
        let mut hosts = texts(headers, &HOST);
        // HTTP/2, and requests that are made for a proxy.
        hosts.extend(uri.authority().map(|authority| authority.as_str().to_owned()));
        if let Some(known) = &self.hosts
            && let Some(foreign) = hosts.iter().find(|host| !is_known(host, known))
        {
            return Err(ApiError::foreign_host(foreign));
        }
        let allowed = |origin: &String| self.may_read(origin) || hosts.iter().any(|host| is_own(origin, host));
        match texts(headers, &ORIGIN).iter().find(|origin| !allowed(origin)) {
            Some(foreign) => Err(ApiError::foreign_origin(foreign)),
            None => Ok(()),
        }
    }

    /// Whether pages of others may use the server at all.
    pub(super) fn is_shared(&self) -> bool {
        !self.origins.is_empty()
    }

    /// What an answer to this request names as the origin whose pages may read it; `None` if they may not, or need not ask.
    pub(super) fn reader(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if self.origins.iter().any(|origin| origin == ANY) {
            return Some(HeaderValue::from_static(ANY));
        }
        let origin = headers.get(ORIGIN)?;
        self.may_read(origin.to_str().ok()?).then(|| origin.clone())
    }

    /// Whether pages of this origin are among those of the configuration.
    fn may_read(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| match allowed.as_str() {
            ANY => true,
            LOCALHOST => is_of_this_machine(origin),
            allowed => plain(allowed) == plain(origin),
        })
    }
}

/// All values of a header. What is no text becomes one that nothing equals.
fn texts(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name);
    values
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}

/// The name or address of `name:port`.
fn without_port(host: &str) -> &str {
    let end_of_address = host.find(']').map_or(0, |end| end + 1);
    match host[end_of_address..].rfind(':') {
        Some(colon) => &host[..end_of_address + colon],
        None => host,
    }
}

/// Whether a host is this machine, or one of `known`, which may name a port.
fn is_known(host: &str, known: &[String]) -> bool {
    let name = without_port(host);
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        || known
            .iter()
            .any(|known| known.eq_ignore_ascii_case(host) || known.eq_ignore_ascii_case(name))
}

/// Whether an origin is a page of the very server that is asked. Behind a proxy with TLS it has another scheme.
fn is_own(origin: &str, host: &str) -> bool {
    ["http", "https"]
        .iter()
        .any(|scheme| plain(origin) == plain(&format!("{scheme}://{host}")))
}

/// Whether an origin is a page that this machine serves, on any port.
fn is_of_this_machine(origin: &str) -> bool {
    let origin = plain(origin);
    let host = ["http://", "https://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme));
    let Some(host) = host else { return false };
    let name = without_port(host);
    let port = host[name.len()..].strip_prefix(':').unwrap_or("0");
    [LOCALHOST, "127.0.0.1", "[::1]"].contains(&name) && port.parse::<u16>().is_ok()
}

/// An origin as browsers write it: small letters, without the port that goes without saying.
fn plain(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let origin = origin.strip_suffix('/').unwrap_or(&origin);
    let default = [("http://", ":80"), ("https://", ":443")]
        .iter()
        .find(|(scheme, _)| origin.starts_with(scheme))
        .and_then(|(_, port)| origin.strip_suffix(port));
    default.unwrap_or(origin).to_owned()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn access(host: &str, hosts: &[&str], origins: &[&str]) -> Access {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let config = ServerConfig {
            allowed_hosts: texts(hosts),
            cors: texts(origins),
            ..ServerConfig::default()
        };
        Access::of(&config, host.parse().unwrap())
    }

    fn asks(access: &Access, host: Option<&str>, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        let headers_of = [(HOST, host), (ORIGIN, origin)];
        for (name, value) in headers_of.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        access.check(&headers, &Uri::from_static("/v1/models")).is_ok()
    }

    #[test]
    fn a_loopback_server_answers_to_this_machine_only() {
        for bound in ["127.0.0.1", "::1"] {
            let access = access(bound, &["my.box", "proxy:8443"], &[]);
            for host in [
                "localhost",
                "LOCALHOST:8080",
                "localhost:1",
                "127.0.0.1",
                "127.0.0.1:8080",
                "127.0.0.2:8080",
                "[::1]",
                "[::1]:8080",
                "my.box",
                "My.Box:99",
                "proxy:8443",
            ] {
                assert!(asks(&access, Some(host), None), "{host}");
            }
            for host in [
                "evil.com",
                "localhost.evil.com",
                "localhost.evil.com:8080",
                "evil.com:localhost",
                "localhost@evil.com",
                "127.0.0.1.evil.com",
                "192.168.1.2:8080",
                "[::1].evil.com",
                "[fe80::1]",
                "evil.my.box",
                "proxy:8444",
                "",
                "x",
            ] {
                assert!(!asks(&access, Some(host), None), "{host}");
            }
            // HTTP/1.0.
            assert!(asks(&access, None, None));
        }
    }

    #[test]
    fn a_server_of_the_network_answers_to_any_name_until_names_are_given() {
        let open = access("0.0.0.0", &[], &[]);
        assert!(asks(&open, Some("anything:1"), None));
        let named = access("0.0.0.0", &["box.lan"], &[]);
        assert!(asks(&named, Some("box.lan:8080"), None));
        assert!(asks(&named, Some("localhost:8080"), None));
        assert!(!asks(&named, Some("evil.com"), None));
        assert!(asks(&access("127.0.0.1", &["*"], &[]), Some("anything"), None));
    }

    #[test]
    fn pages_of_others_are_refused() {
        let access = access("127.0.0.1", &["my.box"], &["https://app.example", "tauri://localhost"]);
        let host = Some("localhost:8080");
        for origin in [
            "http://localhost:8080",
            "https://localhost:8080",
            "HTTP://LOCALHOST:8080",
            "https://app.example",
            "https://app.example:443",
            "tauri://localhost",
        ] {
            assert!(asks(&access, host, Some(origin)), "{origin}");
        }
        for origin in [
            "http://evil.com",
            "http://localhost",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://localhost:8080.evil.com",
            "http://localhost.evil.com:8080",
            "https://app.example.evil.com",
            "http://app.example",
            "ftp://localhost:8080",
            "null",
            "",
            "*",
        ] {
            assert!(!asks(&access, host, Some(origin)), "{origin}");
        }
        assert!(asks(&access, Some("my.box:80"), Some("http://my.box")));
        assert!(!asks(&access, None, Some("http://localhost:8080")));
        let any = self::access("127.0.0.1", &[], &["*"]);
        assert!(asks(&any, host, Some("http://evil.com")) && asks(&any, host, Some("null")));
    }

    #[test]
    fn localhost_is_this_machine_on_any_port() {
        let access = access("127.0.0.1", &[], &["localhost"]);
        let reads = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.append(ORIGIN, HeaderValue::from_str(origin).unwrap());
            let reader = access.reader(&headers);
            assert_eq!(
                reader.is_some(),
                asks(&access, Some("localhost:8080"), Some(origin)),
                "{origin}"
            );
            reader.is_some_and(|reader| reader == origin)
        };
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "https://localhost:65535",
            "HTTP://LocalHost:5173",
            "http://127.0.0.1:1",
            "https://127.0.0.1",
            "http://[::1]",
            "http://[::1]:3000",
        ] {
            assert!(reads(origin), "{origin}");
        }
        for origin in [
            "http://localhost.evil.com",
            "http://localhost.evil.com:3000",
            "http://evil.com:localhost",
            "http://localhost:evil.com",
            "http://localhost:3000.evil.com",
            "http://localhost:65536",
            "http://localhost:",
            "http://localhost@evil.com",
            "http://evil.localhost",
            "http://notlocalhost",
            "http://127.0.0.1.evil.com",
            "http://127.0.0.2",
            "http://[::1].evil.com",
            "http://[::1",
            "ftp://localhost",
            "localhost",
            "localhost:3000",
            "file://",
            "null",
            "*",
            "",
        ] {
            assert!(!reads(origin), "{origin}");
        }
        assert!(access.reader(&HeaderMap::new()).is_none() && access.is_shared());
    }

    #[test]
    fn no_second_header_gets_through() {
        let access = access("127.0.0.1", &[], &[]);
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost"));
        headers.append(HOST, HeaderValue::from_static("evil.com"));
        assert!(access.check(&headers, &Uri::from_static("/")).is_err());
        let mut headers = HeaderMap::new();
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert!(
            access
                .check(&headers, &Uri::from_static("http://evil.com/v1/models"))
                .is_err()
        );
        headers.append(ORIGIN, HeaderValue::from_static("http://localhost"));
        headers.append(ORIGIN, HeaderValue::from_static("http://evil.com"));
        assert!(access.check(&headers, &Uri::from_static("/")).is_err());
    }
}
