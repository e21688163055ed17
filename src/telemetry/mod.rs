//! Metrics for Prometheus and logs for people.

mod metrics;

pub use metrics::{Metrics, ModelMetrics};
