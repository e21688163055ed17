//! Caches of experts, and memory.

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec};

use super::{counter, gauge, int_gauge, signed};
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
const PLANNED: &str = "hearth_memory_planned_bytes";
const HEAT_ERRORS: &str = "hearth_expert_heat_errors_total";

/// The series of these engines, as they are now.
pub(super) fn families(engines: &[Arc<dyn TokenEngine>]) -> Vec<MetricFamily> {
    let per_layer = &["model", "layer"];
    let layered = |name: &str, help: &str| -> IntCounterVec { counter(name, help, per_layer) };
    let hits = layered(HITS, "Selections of decoded tokens that found a copy of the expert.");
    let misses = layered(MISSES, "Selections of decoded tokens that were computed on the CPU.");
    let uploads = layered(UPLOADS, "Experts copied to the cache device.");
    let upload_bytes = layered(UPLOAD_BYTES, "Bytes copied to the cache device.");
    let evictions = layered(EVICTIONS, "Experts that lost their entry to another one.");
    let heat_errors = counter(
        HEAT_ERRORS,
        "Times that the heat map of the experts could not be written.",
        &["model"],
    );
    let capacity = int_gauge(CAPACITY, "Experts that can have a copy.", per_layer);
    let slots = int_gauge(SLOTS, "The old name of hearth_expert_cache_capacity.", per_layer);
    let cache_bytes = int_gauge(CACHE_BYTES, "Memory of the copies.", &["model"]);
    let hit_ratio: GaugeVec = gauge(
        HIT_RATIO,
        "Share of the last minute's selections that found a copy.",
        &["model"],
    );
    let memory = int_gauge(
        MEMORY,
        "Memory of a model by device and kind; weights that are mapped from their file included.",
        &["model", "device", "kind"],
    );
    let planned = int_gauge(
        PLANNED,
        "Memory that the plan gives a model, by tier (gpu, ram) and kind.",
        &["model", "tier", "kind"],
    );
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
            heat_errors.with_label_values(&[model]).inc_by(stats.heat_errors);
            // Without a selection there is no ratio.
            if let Some(ratio) = stats.minute.hit_rate() {
                hit_ratio.with_label_values(&[model]).set(ratio);
            }
        }
        let Some(taken) = engine.memory() else { continue };
        for buffers in &taken.actual {
            let labels = &[model, buffers.device.as_str(), buffers.kind.label()];
            memory.with_label_values(labels).add(signed(buffers.bytes));
        }
        for row in &taken.planned {
            let labels = &[model, row.tier.label(), row.kind.label()];
            planned.with_label_values(labels).add(signed(row.bytes));
        }
    }
    let counters = [hits, misses, uploads, upload_bytes, evictions, heat_errors];
    let mut families: Vec<MetricFamily> = counters.iter().flat_map(Collector::collect).collect();
    families.extend(
        [capacity, slots, cache_bytes, memory, planned]
            .iter()
            .flat_map(Collector::collect),
    );
    families.extend(hit_ratio.collect());
    families
}
