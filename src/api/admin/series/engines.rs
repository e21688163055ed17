//! Queues, slots and states of engines.

use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::{collect, gauge, int_gauge, signed};
use crate::engine::{Health, TokenEngine};

/// The values of the label `state`.
const STATES: [&str; 7] = [
    "unloaded",
    "loading",
    "ready",
    "maintenance",
    "failed",
    "unreachable",
    "shutting_down",
];

fn state(health: &Health) -> &'static str {
    match health {
        Health::Loading { .. } => "loading",
        Health::Ready => "ready",
        Health::Unloaded => "unloaded",
        Health::Maintenance => "maintenance",
        Health::Failed { .. } => "failed",
        Health::Unreachable { .. } => "unreachable",
        Health::ShuttingDown => "shutting_down",
    }
}

pub(super) fn families(engines: &[Arc<dyn TokenEngine>]) -> Vec<MetricFamily> {
    let of_model = &["model"];
    let running = int_gauge("hearth_requests_running", "Requests that hold a slot.", of_model);
    let waiting = int_gauge("hearth_requests_waiting", "Requests in the queue.", of_model);
    let queue = int_gauge(
        "hearth_queue_capacity",
        "Requests that may wait in the queue.",
        of_model,
    );
    let slots = int_gauge(
        "hearth_slots",
        "Slots: sequences that can be computed at once.",
        of_model,
    );
    let context = int_gauge("hearth_context_tokens", "Tokens that one sequence may have.", of_model);
    let capacity = int_gauge(
        "hearth_kv_capacity_tokens",
        "Tokens that the slots may hold together.",
        of_model,
    );
    let held = int_gauge(
        "hearth_kv_tokens",
        "Tokens whose keys and values, or recurrent state, slots hold: of running requests, and kept for prompts to come.",
        &["model", "state"],
    );
    let loaded = int_gauge(
        "hearth_model_loaded",
        "1 when the model can answer, 0 in any other state.",
        of_model,
    );
    let states = int_gauge(
        "hearth_model_state",
        "1 for the state that the model is in, 0 for the others.",
        &["model", "state"],
    );
    let progress = gauge(
        "hearth_model_load_progress_ratio",
        "How much of the model is loaded, 0 to 1.",
        of_model,
    );
    let silence = gauge(
        "hearth_engine_silence_seconds",
        "How long an engine that has work has begun no step; 0 for one that computes or has nothing to do.",
        of_model,
    );
    let about = int_gauge(
        "hearth_model_info",
        "What the model is: always 1, the labels say it.",
        &["model", "role", "architecture", "quantization"],
    );
    let bytes = int_gauge("hearth_model_size_bytes", "Bytes of all tensors in the file.", of_model);
    for engine in engines {
        let info = engine.info();
        let model = info.name.as_str();
        let labels = &[model];
        let counts = engine.slots();
        running.with_label_values(labels).set(counts.busy.into());
        waiting.with_label_values(labels).set(counts.waiting.into());
        queue.with_label_values(labels).set(counts.queue.into());
        slots.with_label_values(labels).set(counts.total.into());
        context.with_label_values(labels).set(info.context.into());
        capacity.with_label_values(labels).set(signed(counts.tokens));
        let sum = |busy| {
            let slots = engine.slot_states().into_iter().filter(|slot| slot.busy == busy);
            slots.map(|slot| i64::from(slot.tokens)).sum()
        };
        held.with_label_values(&[model, "running"]).set(sum(true));
        held.with_label_values(&[model, "kept"]).set(sum(false));
        let health = engine.health();
        loaded
            .with_label_values(labels)
            .set(i64::from(matches!(health, Health::Ready)));
        for name in STATES {
            let is = i64::from(name == state(&health));
            states.with_label_values(&[model, name]).set(is);
        }
        progress.with_label_values(labels).set(match health {
            Health::Loading { progress } => progress.into(),
            Health::Unloaded | Health::Failed { .. } => 0.0,
            Health::Ready | Health::Maintenance | Health::Unreachable { .. } | Health::ShuttingDown => 1.0,
        });
        silence.with_label_values(labels).set(engine.silence().as_secs_f64());
        let role = info.role.as_deref().unwrap_or_default();
        about
            .with_label_values(&[model, role, &info.architecture, &info.file.kind])
            .set(1);
        bytes.with_label_values(labels).set(signed(info.size_bytes));
    }
    let whole = [
        running, waiting, queue, slots, context, capacity, held, loaded, states, about, bytes,
    ];
    collect(&whole).chain(collect(&[progress, silence])).collect()
}
