//! All metric families, in one place. Names, labels and buckets follow vLLM's, with the prefix `hearth_`.

use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use super::http::HttpMetrics;
use super::registry::register;
use super::upstream::{Families, UpstreamMetrics};
use crate::build_info;

const TIME_TO_FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const INTER_TOKEN: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const REQUEST_TIME: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];

/// How requests end: the values of `finish_reason`.
const ENDS: [&str; 4] = ["stop", "length", "error", "cancelled"];

/// The registry and the families that are written as things happen. Those that are read when somebody scrapes are where they are
/// read, in the API.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    prompt_tokens: IntCounterVec,
    cached_tokens: IntCounterVec,
    prepared_tokens: IntCounterVec,
    prompt_cache: IntGaugeVec,
    generation_tokens: IntCounterVec,
    draft_tokens: IntCounterVec,
    accepted_tokens: IntCounterVec,
    refused: IntCounterVec,
    prompt_store_errors: IntCounterVec,
    load_seconds: GaugeVec,
    time_to_first_token: HistogramVec,
    inter_token: HistogramVec,
    e2e: HistogramVec,
    queue_time: HistogramVec,
    prefill_time: HistogramVec,
    decode_time: HistogramVec,
    pub http: HttpMetrics,
    upstream: Families,
}

/// The series of one model: handles that cost one atomic operation each.
#[derive(Debug, Clone)]
pub struct ModelMetrics {
    requests: IntCounterVec,
    refused: IntCounterVec,
    model: String,
    pub prompt_store_errors: IntCounter,
    pub prompt_tokens: IntCounter,
    pub cached_tokens: IntCounter,
    pub prepared_tokens: IntCounter,
    pub prompt_cache: IntGauge,
    pub generation_tokens: IntCounter,
    pub draft_tokens: IntCounter,
    pub accepted_tokens: IntCounter,
    pub load_seconds: Gauge,
    pub time_to_first_token: Histogram,
    pub inter_token: Histogram,
    pub e2e: Histogram,
    pub queue_time: Histogram,
    pub prefill_time: Histogram,
    pub decode_time: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all families in a registry of their own.
    ///
    /// # Panics
    /// Never: the names are constant and distinct.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| register(&registry, IntGaugeVec::new(Opts::new(name, help), &["model"]));
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(&registry, HistogramVec::new(opts, &["model"]))
        };
        let load_seconds = Opts::new("hearth_model_load_seconds", "How long the last load of the model took.");
        let build = Opts::new("hearth_build_info", "What was built: always 1, the labels say it.")
            .const_label("version", build_info::VERSION)
            .const_label("commit", build_info::COMMIT)
            .const_label("features", build_info::features())
            .const_label("llama_cpp_sys", build_info::LLAMA_CPP_SYS);
        register(&registry, IntGauge::with_opts(build)).set(1);
        Self {
            requests: counter(
                "hearth_requests_total",
                "Requests that ended, by how they ended: stop, length, error, cancelled.",
                &["model", "finish_reason"],
            ),
            refused: counter(
                "hearth_requests_refused_total",
                "Requests that were not queued, by the reason; queue_full is a 429.",
                &["model", "reason"],
            ),
            prompt_store_errors: counter(
                "hearth_prompt_store_errors_total",
                "Times that prompts could not be kept on disk for the next run, or not be read.",
                &["model"],
            ),
            load_seconds: register(&registry, GaugeVec::new(load_seconds, &["model"])),
            prompt_tokens: counter(
                "hearth_prompt_tokens_total",
                "Prompt tokens of requests that got a slot, cached ones included.",
                &["model"],
            ),
            cached_tokens: counter(
                "hearth_prompt_cached_tokens_total",
                "Prompt tokens that were not computed again, as a slot or a saved state had them.",
                &["model"],
            ),
            prepared_tokens: counter(
                "hearth_prompt_prepared_tokens_total",
                "Tokens of next turns that were computed while there were no requests.",
                &["model"],
            ),
            prompt_cache: gauge(
                "hearth_prompt_cache_bytes",
                "Saved states of sequences, from which prompts go on.",
            ),
            generation_tokens: counter("hearth_generation_tokens_total", "Tokens generated.", &["model"]),
            draft_tokens: counter(
                "hearth_spec_decode_num_draft_tokens_total",
                "Guesses for tokens that were computed.",
                &["model"],
            ),
            accepted_tokens: counter(
                "hearth_spec_decode_num_accepted_tokens_total",
                "Guesses that were right.",
                &["model"],
            ),
            time_to_first_token: histogram(
                "hearth_time_to_first_token_seconds",
                "From the submission of a request to its first token.",
                TIME_TO_FIRST_TOKEN,
            ),
            inter_token: histogram(
                "hearth_inter_token_latency_seconds",
                "Between two tokens of one answer.",
                INTER_TOKEN,
            ),
            e2e: histogram(
                "hearth_e2e_request_latency_seconds",
                "From the submission of a request to its end.",
                REQUEST_TIME,
            ),
            queue_time: histogram(
                "hearth_request_queue_time_seconds",
                "From the submission of a request to its slot.",
                REQUEST_TIME,
            ),
            prefill_time: histogram(
                "hearth_request_prefill_time_seconds",
                "From the slot to the first token.",
                REQUEST_TIME,
            ),
            decode_time: histogram(
                "hearth_request_decode_time_seconds",
                "From the first token to the last.",
                REQUEST_TIME,
            ),
            http: HttpMetrics::new(&registry),
            upstream: Families::new(&registry),
            registry,
        }
    }

    /// Creates the series of one model, at zero.
    #[must_use]
    pub fn model(&self, model: &str) -> ModelMetrics {
        let labels = &[model];
        // At zero, so that the first of them is a step that alerts see.
        for how in ENDS {
            self.requests.with_label_values(&[model, how]);
        }
        self.refused.with_label_values(&[model, "queue_full"]);
        ModelMetrics {
            requests: self.requests.clone(),
            refused: self.refused.clone(),
            model: model.to_owned(),
            prompt_store_errors: self.prompt_store_errors.with_label_values(labels),
            prompt_tokens: self.prompt_tokens.with_label_values(labels),
            cached_tokens: self.cached_tokens.with_label_values(labels),
            prepared_tokens: self.prepared_tokens.with_label_values(labels),
            prompt_cache: self.prompt_cache.with_label_values(labels),
            draft_tokens: self.draft_tokens.with_label_values(labels),
            accepted_tokens: self.accepted_tokens.with_label_values(labels),
            generation_tokens: self.generation_tokens.with_label_values(labels),
            load_seconds: self.load_seconds.with_label_values(labels),
            time_to_first_token: self.time_to_first_token.with_label_values(labels),
            inter_token: self.inter_token.with_label_values(labels),
            e2e: self.e2e.with_label_values(labels),
            queue_time: self.queue_time.with_label_values(labels),
            prefill_time: self.prefill_time.with_label_values(labels),
            decode_time: self.decode_time.with_label_values(labels),
        }
    }

    /// The series of a server that computes a model; `replica` is its host and port.
    #[must_use]
    pub fn upstream(&self, model: &str, replica: &str) -> UpstreamMetrics {
        self.upstream.replica(model, replica)
    }

    /// Counts a request for `model` that another one answered.
    pub fn count_fallback(&self, model: &str, to: &str, reason: &str) {
        self.upstream.fallback(model, to, reason).inc();
    }

    /// The exposition in Prometheus' text format, with further families that have series.
    #[must_use]
    pub fn encode(&self, further: Vec<MetricFamily>) -> String {
        let mut families = self.registry.gather();
        families.extend(further);
        families.sort_by(|a, b| a.name().cmp(b.name()));
        for family in &mut families {
            // For people who read it; `gather` has done so with its own.
            family.mut_metric().sort_by(|a, b| a.get_label().cmp(b.get_label()));
        }
        let mut out = Vec::new();
        // Writing to memory cannot fail, and a family without series is skipped by `gather`.
        let _ = TextEncoder::new().encode(&families, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl ModelMetrics {
    /// Counts a request that ended; `how` is one of `stop`, `length`, `error`, `cancelled`.
    pub fn count_request(&self, how: &str) {
        self.requests.with_label_values(&[self.model.as_str(), how]).inc();
    }

    /// Counts a request that was not queued; `reason` is one of a few words, never a text of the request.
    pub fn count_refused(&self, reason: &str) {
        self.refused.with_label_values(&[self.model.as_str(), reason]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposition_has_help_type_and_model_label() {
        let metrics = Metrics::new();
        metrics.model("m").generation_tokens.inc_by(3);
        metrics.model("m").count_request("stop");
        let text = metrics.encode(Vec::new());
        for line in [
            "# HELP hearth_generation_tokens_total Tokens generated.",
            "# TYPE hearth_time_to_first_token_seconds histogram",
            "hearth_generation_tokens_total{model=\"m\"} 3",
            "hearth_requests_total{finish_reason=\"stop\",model=\"m\"} 1",
            "hearth_requests_total{finish_reason=\"cancelled\",model=\"m\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "missing {line} in\n{text}");
        }
    }
}
