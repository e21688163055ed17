//! `GET /api/v1/memory`: what the models take, planned and allocated, and what the machine has.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, block, get};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::state::State;
use crate::engine::MemoryUse;
use crate::plan::{Tier, detect};
use crate::telemetry::resident_bytes;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/api/v1/memory", get().to(memory));
}

async fn memory(state: Data<State>) -> Result<HttpResponse, ApiError> {
    let models: Vec<Value> = state
        .served()
        .iter()
        .map(|served| {
            let name = &served.engine.card().name;
            match served.engine.memory() {
                Some(memory) => model(name, &memory),
                None => json!({"model": name, "actual": null, "planned": null}),
            }
        })
        .collect();
    // The system is asked away from the async workers.
    let (resident, machine) = block(|| (resident_bytes(), detect::machine(0)))
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let devices = machine.devices.iter().map(
        |device| json!({"name": device.name, "total": device.total, "free": device.free, "unified": device.unified}),
    );
    Ok(HttpResponse::Ok().json(json!({
        "models": models,
        "process": {"resident": resident},
        "host": {"total": machine.ram_total, "available": machine.ram_available},
        "devices": devices.collect::<Vec<_>>(),
    })))
}

/// Bytes by tier and kind, and all buffers one by one.
fn model(name: &str, memory: &MemoryUse) -> Value {
    let mut planned = Map::new();
    for row in &memory.planned {
        add(&mut planned, row.tier, row.kind.label(), row.bytes);
    }
    let mut actual = Map::new();
    for buffers in &memory.actual {
        add(&mut actual, buffers.tier, buffers.kind.label(), buffers.bytes);
    }
    json!({"model": name, "planned": planned, "actual": actual, "buffers": memory.actual})
}

fn add(sums: &mut Map<String, Value>, tier: Tier, kind: &str, bytes: u64) {
    let tier = sums
        .entry(tier.name().to_lowercase())
        .or_insert_with(|| Value::Object(Map::new()));
    let before = tier[kind].as_u64().unwrap_or(0);
    tier[kind] = (before + bytes).into();
}
