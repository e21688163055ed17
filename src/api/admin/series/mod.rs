//! Series that are read when somebody scrapes. They cost nothing between scrapes, and those of what is gone are gone.

mod engines;
mod experts;
mod gpus;
mod process;

use std::sync::Arc;

use prometheus::core::{Collector, GenericCounterVec, GenericGaugeVec};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use crate::engine::TokenEngine;

/// The series of these engines, this process and the GPUs, as they are now. Blocks: drivers are asked.
pub(super) fn families(engines: &[Arc<dyn TokenEngine>]) -> Vec<MetricFamily> {
    let mut families = engines::families(engines);
    families.extend(experts::families(engines));
    families.extend(process::families());
    families.extend(gpus::families());
    // Without a series there is no family.
    families.retain(|family| !family.get_metric().is_empty());
    families
}

const NAMES: &str = "metric names and labels are valid constants";

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    GenericCounterVec::new(Opts::new(name, help), labels).expect(NAMES)
}

fn int_gauge(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    GenericGaugeVec::new(Opts::new(name, help), labels).expect(NAMES)
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> prometheus::GaugeVec {
    GenericGaugeVec::new(Opts::new(name, help), labels).expect(NAMES)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn collect<C: Collector>(families: &[C]) -> impl Iterator<Item = MetricFamily> {
    families.iter().flat_map(Collector::collect)
}
