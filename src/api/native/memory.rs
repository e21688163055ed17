//! `GET /api/v1/memory`: what the models take, planned and allocated, and what the machine has.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, block};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::keys::Caller;
use crate::api::routing::get;
use crate::api::state::State;
use crate::engine::{Buffers, MemoryUse};
use crate::host;
use crate::memory::{Kind, Tier};

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/api/v1/memory", get().to(memory));
}

#[derive(Debug, Serialize, ToSchema)]
struct Memory<'s> {
    models: Vec<ModelMemory<'s>>,
    process: Process,
    host: Host,
    devices: Vec<Device>,
}

/// Bytes by tier and kind.
type Sums = BTreeMap<String, BTreeMap<&'static str, u64>>;

#[derive(Debug, Serialize, ToSchema)]
struct ModelMemory<'s> {
    model: &'s str,
    /// By tier and kind; null before the model is loaded.
    #[schema(value_type = Option<BTreeMap<String, BTreeMap<String, u64>>>)]
    planned: Option<Sums>,
    /// By tier and kind; null before the model is loaded.
    #[schema(value_type = Option<BTreeMap<String, BTreeMap<String, u64>>>)]
    actual: Option<Sums>,
    /// All buffers one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    buffers: Option<Vec<Buffer>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Buffer {
    /// As llama.cpp names the memory.
    device: String,
    kind: &'static str,
    tier: &'static str,
    bytes: u64,
    /// A view of the model's file: its pages come and go with use.
    mapped: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct Process {
    /// Bytes in main memory; null where the system does not tell.
    resident: Option<u64>,
}

/// Main memory, in bytes.
#[derive(Debug, Serialize, ToSchema)]
struct Host {
    total: u64,
    available: u64,
}

/// An accelerator's memory, in bytes.
#[derive(Debug, Serialize, ToSchema)]
struct Device {
    name: String,
    total: u64,
    free: u64,
    /// Shared with the processor.
    unified: bool,
}

/// Tells what the models take, planned and allocated, and what the machine has.
#[utoipa::path(
    get,
    path = "/api/v1/memory",
    responses((status = 200, description = "Bytes.", body = Memory<'static>))
)]
pub(super) async fn memory(state: Data<State>, caller: Caller) -> Result<HttpResponse, ApiError> {
    // The system is asked away from the async workers.
    let unified = state.models().unified();
    let (resident, machine) = block(move || (host::resident_bytes(), host::machine().sharing(unified)))
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let targets = state.models_for(&caller);
    let models = targets.iter().map(|target| {
        let model = &target.model;
        ModelMemory::of(model.name(), model.engine.memory().as_ref())
    });
    let devices = machine.devices.into_iter().map(|device| Device {
        name: device.name,
        total: device.total,
        free: device.free,
        unified: device.unified,
    });
    Ok(HttpResponse::Ok().json(Memory {
        models: models.collect(),
        process: Process { resident },
        host: Host {
            total: machine.ram_total,
            available: machine.ram_available,
        },
        devices: devices.collect(),
    }))
}

impl<'s> ModelMemory<'s> {
    fn of(model: &'s str, memory: Option<&MemoryUse>) -> Self {
        Self {
            model,
            planned: memory.map(|memory| sums(memory.planned.iter().map(|row| (row.tier, row.kind, row.bytes)))),
            actual: memory.map(|memory| {
                let buffers = memory.actual.iter();
                sums(buffers.map(|buffers| (buffers.tier, buffers.kind, buffers.bytes)))
            }),
            buffers: memory.map(|memory| memory.actual.iter().map(Buffer::of).collect()),
        }
    }
}

impl Buffer {
    fn of(buffers: &Buffers) -> Self {
        Self {
            device: buffers.device.clone(),
            kind: buffers.kind.label(),
            tier: tier(buffers.tier),
            bytes: buffers.bytes,
            mapped: buffers.mapped,
        }
    }
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Gpu => "gpu",
        Tier::Ram => "ram",
    }
}

fn sums(rows: impl Iterator<Item = (Tier, Kind, u64)>) -> Sums {
    let mut sums = Sums::new();
    for (place, kind, bytes) in rows {
        *sums
            .entry(tier(place).to_owned())
            .or_default()
            .entry(kind.label())
            .or_default() += bytes;
    }
    sums
}
