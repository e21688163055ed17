//! How families come into a registry.

use prometheus::Registry;
use prometheus::core::Collector;

/// Registers a family whose name and labels are constants.
pub(super) fn register<C: Collector + Clone + 'static>(registry: &Registry, family: prometheus::Result<C>) -> C {
    let family = family.expect("metric names and labels are valid constants");
    registry
        .register(Box::new(family.clone()))
        .expect("metric names are distinct");
    family
}
