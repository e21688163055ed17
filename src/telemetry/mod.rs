//! Prometheus metrics and logs.

mod logs;
mod metrics;

pub use logs::{LogFormat, init_logs};
pub use metrics::{Metrics, ModelMetrics};
