//! Prometheus metrics and logs.

mod logs;
mod metrics;
mod process;

pub use logs::{LogFormat, init_logs};
pub use metrics::{Metrics, ModelMetrics};
pub use process::resident_bytes;
