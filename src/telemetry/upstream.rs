//! Families about models that other servers compute, and models that stand in for others.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::registry::register;

/// The families.
#[derive(Debug, Clone)]
pub(super) struct Families {
    requests: IntCounterVec,
    running: IntGaugeVec,
    breaker: IntGaugeVec,
    fallbacks: IntCounterVec,
}

/// The series of one server of a model.
#[derive(Debug, Clone)]
pub struct UpstreamMetrics {
    requests: IntCounterVec,
    model: String,
    replica: String,
    pub running: IntGauge,
    /// 0 closed, 1 half open, 2 open.
    pub breaker: IntGauge,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| {
            let opts = Opts::new(name, help);
            register(registry, IntGaugeVec::new(opts, &["model", "replica"]))
        };
        Self {
            requests: counter(
                "hearth_upstream_requests_total",
                "Requests to servers that compute a model, by how they ended: ok, cancelled, connect, timeout, overloaded, \
                 server_error, client_error, refused, invalid, cut.",
                &["model", "replica", "outcome"],
            ),
            running: gauge(
                "hearth_upstream_requests_running",
                "Requests that a server computes for a model.",
            ),
            breaker: gauge(
                "hearth_upstream_breaker_state",
                "Circuit breaker of a server: 0 closed (it is asked), 1 half open (it is tried), 2 open (it is left alone).",
            ),
            fallbacks: counter(
                "hearth_fallbacks_total",
                "Requests that another model answered, by why: overloaded, load_failed, engine_error, timeout, maintenance.",
                &["model", "to", "reason"],
            ),
        }
    }

    pub(super) fn replica(&self, model: &str, replica: &str) -> UpstreamMetrics {
        let labels = &[model, replica];
        UpstreamMetrics {
            running: self.running.with_label_values(labels),
            breaker: self.breaker.with_label_values(labels),
            requests: self.requests.clone(),
            model: model.to_owned(),
            replica: replica.to_owned(),
        }
    }

    pub(super) fn fallback(&self, model: &str, to: &str, reason: &str) -> IntCounter {
        self.fallbacks.with_label_values(&[model, to, reason])
    }
}

impl UpstreamMetrics {
    /// Counts a request that ended; `outcome` is one of a few words.
    pub fn count(&self, outcome: &str) {
        let labels = [self.model.as_str(), &self.replica, outcome];
        self.requests.with_label_values(&labels).inc();
    }
}
