//! Keys of clients: who asks, what for, and how much.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderName, SEC_WEBSOCKET_PROTOCOL};
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use futures_util::future::{Ready, ready};
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use parking_lot::RwLock;

use super::error::ApiError;
use crate::config::{ApiKey, Config, KeyConfig};
use crate::models::{Target, UnknownModel};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// How pages hand over a key for a WebSocket, for which they cannot set headers: a protocol by this name.
const SOCKET_KEY: &str = "openai-insecure-api-key.";

/// The keys of a server. Cheap to clone; all clones change together.
#[derive(Clone, Default)]
pub struct Keys(Arc<RwLock<Arc<Ring>>>);

/// All keys, as they are until the configuration is read again.
#[derive(Default)]
struct Ring {
    keys: Vec<Arc<Key>>,
    admin: Option<ApiKey>,
    metrics: Option<ApiKey>,
}

type Rate = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<Instant>>;

/// A key, and what its requests take.
struct Key {
    config: KeyConfig,
    rate: Option<Rate>,
    /// Requests that are being answered.
    running: AtomicU32,
    /// Milliseconds that a request takes, on average over the latest.
    pace: AtomicU64,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What everybody may see.
    Public,
    /// Asking the models, and about them.
    Use,
    /// What changes the server.
    Admin,
    Metrics,
}

/// Who asks: nobody in particular, or the owner of a key.
#[derive(Clone, Default)]
pub(super) struct Caller(Option<Arc<Key>>);

/// A request that counts as running until this is dropped.
pub(super) struct Permit {
    key: Arc<Key>,
    started: Instant,
}

/// The keys that a request brings.
pub(super) fn given(headers: &HeaderMap) -> Vec<&[u8]> {
    let bearer = headers.get_all(AUTHORIZATION).filter_map(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key.trim_ascii())
    });
    let named = headers.get_all(X_API_KEY).map(|value| value.as_bytes().trim_ascii());
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL);
    let socket = protocols
        .filter_map(|value| value.to_str().ok())
        .flat_map(|protocols| protocols.split(','))
        .filter_map(|protocol| Some(protocol.trim().strip_prefix(SOCKET_KEY)?.as_bytes()));
    bearer
        .chain(named)
        .chain(socket)
        .filter(|key| !key.is_empty())
        .collect()
}

impl Keys {
    /// The keys of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let keys = Self::default();
        keys.replace(config);
        keys
    }

    /// Takes the keys of another configuration. Requests that run go on; a key that stays the same keeps its counts.
    pub fn replace(&self, config: &Config) {
        let server = &config.server;
        let plain = server.api_keys.iter().zip(1..).map(|(key, number)| KeyConfig {
            name: format!("api_keys-{number}"),
            key: Some(key.clone()),
            key_env: None,
            models: Vec::new(),
            requests_per_minute: None,
            concurrent_requests: None,
            // The key for administration, if there is one, takes it from these.
            admin: server.admin_key.is_none(),
        });
        let mut ring = self.0.write();
        let keys = plain.chain(config.keys.iter().cloned()).map(|key| {
            let kept = ring.keys.iter().find(|known| known.config == key);
            kept.cloned().unwrap_or_else(|| Arc::new(Key::new(key)))
        });
        let keys = keys.collect();
        *ring = Arc::new(Ring {
            keys,
            admin: server.admin_key.clone(),
            metrics: server.metrics_key.clone(),
        });
    }

    /// Whether the models can be used without a key.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.0.read().keys.is_empty()
    }

    /// Who asks, where everybody may but some are told more: `None` for who has not the key that using the models needs.
    pub(super) fn who(&self, request: &HttpRequest) -> Option<Caller> {
        self.check(Purpose::Use, &given(request.headers())).ok()
    }

    /// Who asks with these keys, and whether they may; a request without a key may have several, or none.
    pub(super) fn check(&self, purpose: Purpose, given: &[&[u8]]) -> Result<Caller, ApiError> {
        let ring = self.0.read().clone();
        if purpose == Purpose::Public || ring.asks_for_none(purpose) {
            return Ok(Caller::default());
        }
        let given: Vec<ApiKey> = given.iter().map(|key| ApiKey::of(key)).collect();
        if given.is_empty() {
            return Err(ApiError::no_key());
        }
        let has = |key: &Option<ApiKey>| key.as_ref().is_some_and(|key| given.contains(key));
        // All are compared, whichever it is.
        let mut found = None;
        for key in &ring.keys {
            if has(&key.config.key) {
                found = Some(key.clone());
            }
        }
        let is_admin = has(&ring.admin) || found.as_ref().is_some_and(|key| key.config.admin);
        let may = match purpose {
            _ if is_admin => true,
            Purpose::Metrics => has(&ring.metrics) || (ring.metrics.is_none() && found.is_some()),
            Purpose::Admin => false,
            Purpose::Use | Purpose::Public => found.is_some(),
        };
        match (may, found, has(&ring.metrics)) {
            (true, found, _) => Ok(Caller(found)),
            (false, Some(_), _) | (false, None, true) => Err(ApiError::wrong_key(purpose == Purpose::Metrics)),
            (false, None, false) => Err(ApiError::unknown_key()),
        }
    }
}

impl Ring {
    fn asks_for_none(&self, purpose: Purpose) -> bool {
        let open = self.keys.is_empty();
        match purpose {
            Purpose::Public => true,
            Purpose::Use => open,
            Purpose::Admin => open && self.admin.is_none(),
            Purpose::Metrics => open && self.metrics.is_none(),
        }
    }
}

impl Key {
    fn new(config: KeyConfig) -> Self {
        let rate = config.requests_per_minute.and_then(NonZeroU32::new);
        Self {
            rate: rate.map(|number| RateLimiter::direct_with_clock(Quota::per_minute(number), MonotonicClock)),
            config,
            running: AtomicU32::new(0),
            pace: AtomicU64::new(1000),
        }
    }

    /// Whether the key is for something of this name.
    fn is_for(&self, name: &str) -> bool {
        self.config.models.iter().any(|model| model == name)
    }
}

impl Caller {
    /// The name of the key.
    pub(super) fn name(&self) -> Option<&str> {
        Some(&self.0.as_ref()?.config.name)
    }

    /// Counts a request against the rate of the key.
    pub(super) fn count(&self) -> Result<(), ApiError> {
        let Some(rate) = self.0.as_ref().and_then(|key| key.rate.as_ref()) else {
            return Ok(());
        };
        rate.check().map_err(|refused| {
            let wait = refused.wait_time_from(MonotonicClock.now());
            let number = self.0.as_ref().and_then(|key| key.config.requests_per_minute);
            let message = format!("this key has {} requests per minute", number.unwrap_or_default());
            ApiError::key_limit("rate_limit_exceeded", message, wait)
        })
    }

    /// Takes a place among the requests of the key that run; `None` if it has no limit.
    pub(super) fn begin(&self) -> Result<Option<Permit>, ApiError> {
        let Some(key) = &self.0 else { return Ok(None) };
        let Some(limit) = key.config.concurrent_requests else {
            return Ok(None);
        };
        let one_more = |running| (running < limit).then_some(running + 1);
        if key
            .running
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_err()
        {
            let message = format!("this key has {limit} requests at the same time, and they are running");
            // Of `limit` requests one ends in that share of the time that one takes.
            let wait = Duration::from_millis(key.pace.load(Ordering::Relaxed) / u64::from(limit));
            return Err(ApiError::key_limit("concurrency_limit_exceeded", message, wait));
        }
        Ok(Some(Permit {
            key: key.clone(),
            started: Instant::now(),
        }))
    }

    /// Whether the caller may use what a name means.
    pub(super) fn check(&self, target: &Target) -> Result<(), ApiError> {
        match &self.0 {
            Some(key) if !self.sees(target) => Err(ApiError::not_for_key(target.name(), &key.config.models)),
            _ => Ok(()),
        }
    }

    /// Whether lists for the caller have this model or preset in them.
    pub(super) fn sees(&self, target: &Target) -> bool {
        let Some(key) = self.0.as_ref().filter(|key| !key.config.models.is_empty()) else {
            return true;
        };
        let info = target.model.info();
        let names = [target.name(), info.name.as_str()].into_iter();
        let names = names
            .chain(info.aliases.iter().map(String::as_str))
            .chain(info.role.as_deref());
        names.into_iter().any(|name| key.is_for(name))
    }

    /// The error for a name that nothing has, without names that the caller may not see.
    pub(super) fn unknown(&self, unknown: UnknownModel) -> ApiError {
        match self.0.as_ref().filter(|key| !key.config.models.is_empty()) {
            Some(key) => UnknownModel {
                known: key.config.models.clone(),
                ..unknown
            }
            .into(),
            None => unknown.into(),
        }
    }

    /// Who sent a request.
    pub(super) fn of(request: &HttpRequest) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_default()
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self::of(request)))
    }
}

/// Without the key.
impl std::fmt::Debug for Caller {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Caller({:?})", self.name())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let took = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let pace = self.key.pace.load(Ordering::Relaxed);
        // Two requests that end at once may lose one of them: it is an average.
        self.key
            .pace
            .store((pace / 8).saturating_mul(7).saturating_add(took / 8), Ordering::Relaxed);
        self.key.running.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use actix_web::http::header::HeaderValue;

    use super::*;
    use crate::config::{Overrides, load_text};

    fn config(text: &str) -> Config {
        let text = format!("[[model]]\nname = \"m\"\npath = \"demo:narrator\"\n{text}");
        let loaded = load_text(
            &text,
            Path::new("models.toml"),
            &Overrides::default(),
            &Default::default(),
        );
        loaded.unwrap_or_else(|errors| panic!("{errors}")).config
    }

    fn keys(text: &str) -> Keys {
        Keys::new(&config(text))
    }

    /// The code of the error, or who it is.
    fn ask(keys: &Keys, purpose: Purpose, key: &str) -> String {
        let given: Vec<&[u8]> = key.split_whitespace().map(str::as_bytes).collect();
        match keys.check(purpose, &given) {
            Ok(caller) => caller.name().unwrap_or("anybody").to_owned(),
            Err(error) => error.code().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn without_keys_everybody_may() {
        let keys = keys("");
        for purpose in [Purpose::Public, Purpose::Use, Purpose::Admin, Purpose::Metrics] {
            assert_eq!(ask(&keys, purpose, ""), "anybody");
            assert_eq!(ask(&keys, purpose, "some"), "anybody");
        }
    }

    #[test]
    fn each_key_is_for_its_purpose() {
        let text = "[[key]]\nname = \"phone\"\nkey = \"p\"\n[[key]]\nname = \"root\"\nkey = \"r\"\nadmin = true\n\
                    [server]\napi_keys = [\"a\"]\n";
        let plain = keys(text);
        for (purpose, key, expect) in [
            (Purpose::Public, "", "anybody"),
            (Purpose::Use, "", "invalid_api_key"),
            (Purpose::Use, "x", "invalid_api_key"),
            (Purpose::Use, "a", "api_keys-1"),
            // One of two headers may be a client's own idea.
            (Purpose::Use, "x p", "phone"),
            (Purpose::Admin, "a", "api_keys-1"),
            (Purpose::Admin, "p", "key_not_allowed"),
            (Purpose::Admin, "r", "root"),
            (Purpose::Metrics, "p", "phone"),
            (Purpose::Metrics, "", "invalid_api_key"),
        ] {
            assert_eq!(ask(&plain, purpose, key), expect, "{purpose:?} {key}");
        }
        let strict = keys(&format!("{text}admin_key = \"admin\"\nmetrics_key = \"scrape\"\n"));
        for (purpose, key, expect) in [
            (Purpose::Admin, "a", "key_not_allowed"),
            (Purpose::Admin, "admin", "anybody"),
            (Purpose::Admin, "r", "root"),
            (Purpose::Use, "admin", "anybody"),
            (Purpose::Use, "scrape", "key_not_allowed"),
            (Purpose::Metrics, "scrape", "anybody"),
            (Purpose::Metrics, "admin", "anybody"),
            (Purpose::Metrics, "a", "key_not_allowed"),
        ] {
            assert_eq!(ask(&strict, purpose, key), expect, "{purpose:?} {key}");
        }
        // Only administration is locked.
        let half = keys("[server]\nadmin_key = \"admin\"\n");
        assert_eq!(ask(&half, Purpose::Use, ""), "anybody");
        assert_eq!(ask(&half, Purpose::Admin, ""), "invalid_api_key");
    }

    #[test]
    fn limits_say_when_to_come_again() {
        let keys = keys("[[key]]\nname = \"k\"\nkey = \"k\"\nrequests_per_minute = 2\nconcurrent_requests = 1\n");
        let caller = keys.check(Purpose::Use, &[b"k"]).unwrap();
        assert!(caller.count().is_ok() && caller.count().is_ok());
        let error = caller.count().unwrap_err();
        assert!((29..=31).contains(&error.retry_after().unwrap()), "{error:?}");
        let first = caller.begin().unwrap();
        assert_eq!(caller.begin().err().unwrap().retry_after(), Some(1));
        drop(first);
        assert!(caller.begin().is_ok());
    }

    #[test]
    fn counts_survive_a_reload() {
        let text = "[[key]]\nname = \"k\"\nkey = \"k\"\nrequests_per_minute = 1\n";
        let keys = keys(text);
        assert!(keys.check(Purpose::Use, &[b"k"]).unwrap().count().is_ok());
        keys.replace(&config(&format!("{text}[[key]]\nname = \"l\"\nkey = \"l\"\n")));
        assert!(keys.check(Purpose::Use, &[b"k"]).unwrap().count().is_err());
        assert_eq!(ask(&keys, Purpose::Use, "l"), "l");
        keys.replace(&config(""));
        assert!(keys.are_none());
    }

    #[test]
    fn keys_come_in_several_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (AUTHORIZATION, "Bearer one"),
            (AUTHORIZATION, "bearer  two "),
            (AUTHORIZATION, "Basic three"),
            (AUTHORIZATION, "Bearer "),
            (X_API_KEY, "four"),
            (SEC_WEBSOCKET_PROTOCOL, "realtime, openai-insecure-api-key.five"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        assert_eq!(given(&headers), [&b"one"[..], b"two", b"four", b"five"]);
    }
}
