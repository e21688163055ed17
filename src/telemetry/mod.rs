//! Prometheus metrics and logs.

mod http;
mod logs;
mod metrics;
mod registry;
mod upstream;

pub use http::{HttpExchange, HttpMetrics};
pub use logs::{BadFilter, LogFormat, init_logs, log_filter, set_log_filter};
pub use metrics::{Metrics, ModelMetrics};
pub use upstream::UpstreamMetrics;
