//! Series that are read when somebody scrapes: experts and memory. They cost nothing between scrapes.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};

use crate::engine::TokenEngine;

const HITS: &str = "hearth_expert_hits_total";
const MISSES: &str = "hearth_expert_misses_total";
const UPLOADS: &str = "hearth_expert_uploads_total";
const UPLOAD_BYTES: &str = "hearth_expert_upload_bytes_total";
const EVICTIONS: &str = "hearth_expert_evictions_total";
const CAPACITY: &str = "hearth_expert_cache_capacity";
/// The old name of `CAPACITY`.
const SLOTS: &str = "hearth_expert_cache_slots";
const CACHE_BYTES: &str = "hearth_expert_cache_bytes";
const HIT_RATIO: &str = "hearth_expert_hit_ratio";
const MEMORY: &str = "hearth_memory_bytes";

/// The series of these engines, as they are now.
pub(super) fn families<'e>(engines: impl Iterator<Item = &'e dyn TokenEngine>) -> Vec<MetricFamily> {
    let names = "metric names and labels are valid constants";
    let per_layer = &["model", "layer"];
    let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), per_layer).expect(names);
    let gauge = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels).expect(names);
    let hits = counter(HITS, "Selections of decoded tokens that found a copy of the expert.");
    let misses = counter(MISSES, "Selections of decoded tokens that were computed on the CPU.");
    let uploads = counter(UPLOADS, "Experts copied to the cache device.");
    let upload_bytes = counter(UPLOAD_BYTES, "Bytes copied to the cache device.");
    let evictions = counter(EVICTIONS, "Experts that lost their entry to another one.");
    let capacity = gauge(CAPACITY, "Experts that can have a copy.", per_layer);
    let slots = gauge(SLOTS, "The old name of hearth_expert_cache_capacity.", per_layer);
    let cache_bytes = gauge(CACHE_BYTES, "Memory of the copies.", &["model"]);
    let hit_ratio = Opts::new(HIT_RATIO, "Share of the last minute's selections that found a copy.");
    let hit_ratio = GaugeVec::new(hit_ratio, &["model"]).expect(names);
    let memory = gauge(
        MEMORY,
        "Memory of a model by device and kind; weights that are mapped from their file included.",
        &["model", "device", "kind"],
    );
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for engine in engines {
        let model = engine.info().name.as_str();
        if let Some(stats) = engine.experts() {
            for layer in &stats.layers {
                let (counts, number) = (layer.counts, layer.layer.to_string());
                let labels = &[model, number.as_str()];
                hits.with_label_values(labels).inc_by(counts.hits);
                misses.with_label_values(labels).inc_by(counts.selections - counts.hits);
                uploads.with_label_values(labels).inc_by(counts.uploads);
                upload_bytes
                    .with_label_values(labels)
                    .inc_by(counts.uploads * layer.expert_bytes as u64);
                evictions.with_label_values(labels).inc_by(counts.evictions);
                for gauge in [&capacity, &slots] {
                    gauge.with_label_values(labels).set(signed(layer.capacity as u64));
                }
            }
            cache_bytes.with_label_values(&[model]).set(signed(stats.cache_bytes()));
            // Without a selection there is no ratio.
            if let Some(ratio) = stats.minute.hit_rate() {
                hit_ratio.with_label_values(&[model]).set(ratio);
            }
        }
        for buffers in engine.memory().iter().flat_map(|memory| &memory.actual) {
            let labels = &[model, buffers.device.as_str(), buffers.kind.label()];
            memory.with_label_values(labels).add(signed(buffers.bytes));
        }
    }
    let counters = [hits, misses, uploads, upload_bytes, evictions];
    let mut families: Vec<MetricFamily> = counters.iter().flat_map(Collector::collect).collect();
    families.extend(
        [capacity, slots, cache_bytes, memory]
            .iter()
            .flat_map(Collector::collect),
    );
    families.extend(hit_ratio.collect());
    // Without a series there is no family.
    families.retain(|family| !family.get_metric().is_empty());
    families
}
