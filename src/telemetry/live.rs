//! Series that are read when somebody scrapes: experts and memory. They cost nothing between scrapes.

use std::fmt;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};

use crate::engine::{Engine, MemoryUse};
use crate::experts::ExpertStats;

/// One model at the time of a scrape.
struct Look {
    model: String,
    experts: Option<ExpertStats>,
    memory: Option<MemoryUse>,
}

/// Reads the engines when it is asked.
pub(super) struct Live {
    engines: Vec<Arc<dyn Engine>>,
    descriptions: Vec<Desc>,
}

impl fmt::Debug for Live {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Live({} engines)", self.engines.len())
    }
}

const HITS: &str = "hearth_expert_hits_total";
const MISSES: &str = "hearth_expert_misses_total";
const UPLOADS: &str = "hearth_expert_uploads_total";
const UPLOAD_BYTES: &str = "hearth_expert_upload_bytes_total";
const EVICTIONS: &str = "hearth_expert_evictions_total";
const SLOTS: &str = "hearth_expert_cache_slots";
const CACHE_BYTES: &str = "hearth_expert_cache_bytes";
const HIT_RATIO: &str = "hearth_expert_hit_ratio";
const MEMORY: &str = "hearth_memory_bytes";

impl Live {
    pub(super) fn new(engines: Vec<Arc<dyn Engine>>) -> Self {
        let descriptions = families(&[])
            .iter()
            .flat_map(|family| family.desc().into_iter().cloned())
            .collect();
        Self { engines, descriptions }
    }
}

impl Collector for Live {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let looks: Vec<Look> = self
            .engines
            .iter()
            .map(|engine| Look {
                model: engine.card().name.clone(),
                experts: engine.experts(),
                memory: engine.memory(),
            })
            .collect();
        families(&looks).iter().flat_map(|family| family.collect()).collect()
    }
}

/// The families with what was seen.
fn families(looks: &[Look]) -> Vec<Box<dyn Collector>> {
    let names = "metric names and labels are valid constants";
    let per_layer = &["model", "layer"];
    let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), per_layer).expect(names);
    let gauge = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels).expect(names);
    let hits = counter(HITS, "Selections of decoded tokens that found a copy of the expert.");
    let misses = counter(MISSES, "Selections of decoded tokens that were computed on the CPU.");
    let uploads = counter(UPLOADS, "Experts copied to the cache device.");
    let upload_bytes = counter(UPLOAD_BYTES, "Bytes copied to the cache device.");
    let evictions = counter(EVICTIONS, "Experts that lost their slot to another one.");
    let slots = gauge(SLOTS, "Experts that can have a copy.", per_layer);
    let cache_bytes = gauge(CACHE_BYTES, "Memory of the copies.", &["model"]);
    let hit_ratio = Opts::new(HIT_RATIO, "Share of the last minute's selections that found a copy.");
    let hit_ratio = GaugeVec::new(hit_ratio, &["model"]).expect(names);
    let memory = gauge(
        MEMORY,
        "Memory of a model by device and kind; weights that are mapped from their file included.",
        &["model", "device", "kind"],
    );
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for look in looks {
        let model = look.model.as_str();
        if let Some(stats) = &look.experts {
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
                slots.with_label_values(labels).set(signed(layer.slots as u64));
            }
            cache_bytes.with_label_values(&[model]).set(signed(stats.cache_bytes()));
            // Without a selection there is no ratio.
            if let Some(ratio) = stats.minute.hit_rate() {
                hit_ratio.with_label_values(&[model]).set(ratio);
            }
        }
        for buffers in look.memory.iter().flat_map(|memory| &memory.actual) {
            let labels = &[model, buffers.device.as_str(), buffers.kind.label()];
            memory.with_label_values(labels).add(signed(buffers.bytes));
        }
    }
    vec![
        Box::new(hits),
        Box::new(misses),
        Box::new(uploads),
        Box::new(upload_bytes),
        Box::new(evictions),
        Box::new(slots),
        Box::new(cache_bytes),
        Box::new(hit_ratio),
        Box::new(memory),
    ]
}
