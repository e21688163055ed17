//! HTTP requests: how many, how long, how many at once.

use std::time::Instant;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

use super::registry::register;

/// From pages and lists to long streams.
const DURATION: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];

/// Methods that have a series; any other one that a client makes up is `other`.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The status of a request whose client left before there was a response: nginx' word for it.
const CLIENT_LEFT: u16 = 499;

/// Families of HTTP requests. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGauge,
}

/// A request that is being answered. Dropped, it is over: counted, and its time taken, with the last byte of the response.
#[derive(Debug)]
pub struct HttpExchange {
    metrics: HttpMetrics,
    route: String,
    method: &'static str,
    status: u16,
    started: Instant,
}

impl HttpMetrics {
    /// Registers the families.
    pub(super) fn new(registry: &Registry) -> Self {
        let requests = Opts::new(
            "hearth_http_requests_total",
            "HTTP requests, by the pattern of the route, method and status; 499 where the client left before an answer.",
        );
        let duration = HistogramOpts::new(
            "hearth_http_request_duration_seconds",
            "From the head of an HTTP request to the end of its response, streams included.",
        );
        let in_flight = Opts::new(
            "hearth_http_requests_in_flight",
            "HTTP requests whose response has not ended.",
        );
        Self {
            requests: register(registry, IntCounterVec::new(requests, &["route", "method", "status"])),
            duration: register(
                registry,
                HistogramVec::new(duration.buckets(DURATION.to_vec()), &["route", "method"]),
            ),
            in_flight: register(registry, IntGauge::with_opts(in_flight)),
        }
    }

    /// A request begins. `route` is the route's pattern, never the raw path: that would let clients make series without end.
    #[must_use]
    pub fn begin(&self, route: String, method: &str) -> HttpExchange {
        self.in_flight.inc();
        HttpExchange {
            metrics: self.clone(),
            route,
            method: METHODS.into_iter().find(|known| *known == method).unwrap_or("other"),
            status: CLIENT_LEFT,
            started: Instant::now(),
        }
    }
}

impl HttpExchange {
    /// The head of the response goes out.
    pub fn respond(&mut self, status: u16) {
        self.status = status;
    }
}

impl Drop for HttpExchange {
    fn drop(&mut self) {
        let (route, method) = (self.route.as_str(), self.method);
        let status = self.status.to_string();
        self.metrics
            .requests
            .with_label_values(&[route, method, status.as_str()])
            .inc();
        self.metrics
            .duration
            .with_label_values(&[route, method])
            .observe(self.started.elapsed().as_secs_f64());
        self.metrics.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Metrics;

    #[test]
    fn a_request_is_counted_when_it_is_over() {
        let metrics = Metrics::new();
        let has = |line: &str| metrics.encode(Vec::new()).lines().any(|found| found == line);
        let mut request = metrics.http.begin("/v1/models/{model}".into(), "GET");
        assert!(has("hearth_http_requests_in_flight 1"));
        request.respond(200);
        drop(request);
        assert!(has("hearth_http_requests_in_flight 0"));
        assert!(has(
            "hearth_http_requests_total{method=\"GET\",route=\"/v1/models/{model}\",status=\"200\"} 1"
        ));
        assert!(has(
            "hearth_http_request_duration_seconds_count{method=\"GET\",route=\"/v1/models/{model}\"} 1"
        ));
    }

    #[test]
    fn clients_make_no_series() {
        let metrics = Metrics::new();
        for method in ["BREW", "get", "PROPFIND"] {
            drop(metrics.http.begin("other".into(), method));
        }
        let text = metrics.encode(Vec::new());
        let line = "hearth_http_requests_total{method=\"other\",route=\"other\",status=\"499\"} 3";
        assert!(text.lines().any(|found| found == line), "{text}");
    }
}
