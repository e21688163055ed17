//! `GET /api/v1/expert-stats`: what the caches of experts hold and did. `POST /api/v1/expert-cache`: changes one while it
//! is used.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::{Data, Query, ServiceConfig, post};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::body::Body;
use crate::api::error::{ApiError, ErrorBody};
use crate::api::keys::Caller;
use crate::api::routing::get;
use crate::api::state::State;
use crate::config::CacheSize;
use crate::engine::TokenEngine;
use crate::experts::policy::{LayerCounts, PolicyKind};
use crate::experts::{Capacity, Change, ExpertStats, LayerStats, PhaseTimes, WorkCounts};

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/api/v1/expert-stats", get().to(stats))
        .route("/api/v1/expert-cache", post().to(change));
}

/// Experts of a layer that are listed with their selections.
const TOP: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Detail {
    Summary,
    /// Each layer on its own.
    Layers,
    /// And the selections of each expert.
    Heatmap,
    /// What the blocks cost beside arithmetic.
    Phases,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only this model.
    model: Option<String>,
    /// `summary`, `layers`, `heatmap` or `phases`.
    detail: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AllExperts {
    models: Vec<ModelExperts>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelExperts {
    model: String,
    /// Null for a model without a cache of experts.
    cache: Option<Cache>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Cache {
    policy: PolicyKind,
    /// What holds the copies: `gpu` or `cpu`.
    device: &'static str,
    geometry: Geometry,
    /// Experts that can have a copy.
    capacity: usize,
    /// The old name of `capacity`.
    slots: usize,
    /// Experts that have one.
    resident: usize,
    cache_bytes: u64,
    /// Layers of which the copies are used.
    layers_in_use: usize,
    since_start: Total,
    /// Over the last minute, or since the start if that is shorter.
    last_minute: Counts,
    /// With `detail=layers` and `detail=heatmap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<Layer>>,
    /// With `detail=heatmap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    heatmap: Option<HeatMap>,
    /// With `detail=phases`: what was done for the blocks of experts since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    work: Option<WorkCounts>,
    /// With `detail=phases`: how long the phases of a block take.
    #[serde(skip_serializing_if = "Option::is_none")]
    phases: Option<Vec<PhaseTimes>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Geometry {
    layers: usize,
    /// Of a layer.
    experts: Option<usize>,
    experts_per_token: u32,
    /// The old name of `experts_per_token`.
    active: u32,
    bytes_per_expert: Option<usize>,
}

/// Counts of decoded tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Counts {
    tokens: u64,
    selections: u64,
    hits: u64,
    misses: u64,
    /// Null without selections.
    hit_rate: Option<f64>,
    /// Selections that were computed with a copy, those of short prompts included.
    computed: u64,
    uploads: u64,
    evictions: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Total {
    #[serde(flatten)]
    counts: Counts,
    upload_bytes: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Layer {
    #[serde(flatten)]
    counts: Counts,
    /// Its number in the model.
    layer: u32,
    experts: usize,
    /// Experts that can have a copy.
    capacity: usize,
    /// The old name of `capacity`.
    slots: usize,
    resident: usize,
    bytes_per_expert: usize,
    in_use: bool,
    /// Experts that were selected at least once.
    distinct: usize,
    /// Of the selections, in bits.
    entropy: f64,
    /// The experts that were selected most.
    top: Vec<Selected>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Selected {
    expert: u32,
    selections: u64,
    resident: bool,
}

/// Rows are layers, columns experts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HeatMap {
    /// The number of each row's layer.
    layers: Vec<u32>,
    selections: Vec<Vec<u64>>,
    /// By row, the experts with a copy.
    resident: Vec<Vec<u32>>,
}

/// Tells which experts were selected, and how many of them had a copy.
#[utoipa::path(
    get,
    path = "/api/v1/expert-stats",
    params(Wanted),
    responses(
        (status = 200, description = "Selections and copies of experts.", body = AllExperts),
        (status = 400, description = "There is no such detail.", body = ErrorBody<'static>)
    )
)]
pub(super) async fn stats(state: Data<State>, wanted: Query<Wanted>, caller: Caller) -> Result<HttpResponse, ApiError> {
    let detail = match wanted.detail.as_deref() {
        None | Some("summary") => Detail::Summary,
        Some("layers") => Detail::Layers,
        Some("heatmap") => Detail::Heatmap,
        Some("phases") => Detail::Phases,
        Some(other) => {
            let message = format!("`detail` is `{other}`; there are `layers`, `heatmap` and `phases`");
            return Err(ApiError::field("detail", message));
        }
    };
    let targets = match &wanted.model {
        Some(name) => vec![state.named_for(&caller, name)?],
        None => state.models_for(&caller),
    };
    let models = targets.iter();
    let models = models.map(|target| ModelExperts::of(&*target.model.engine, detail));
    Ok(HttpResponse::Ok().json(AllExperts {
        models: models.collect(),
    }))
}

impl ModelExperts {
    fn of(engine: &dyn TokenEngine, detail: Detail) -> Self {
        Self {
            model: engine.info().name.clone(),
            cache: engine.experts().map(|stats| Cache::of(&stats, detail)),
        }
    }
}

impl Cache {
    fn of(stats: &ExpertStats, detail: Detail) -> Self {
        let layers = &stats.layers;
        let sum = |part: fn(&LayerStats) -> usize| layers.iter().map(part).sum::<usize>();
        Self {
            policy: stats.policy,
            device: stats.device.name(),
            geometry: Geometry {
                layers: layers.len(),
                experts: layers.iter().map(|layer| layer.experts).max(),
                experts_per_token: stats.experts_per_token,
                active: stats.experts_per_token,
                bytes_per_expert: layers.iter().map(|layer| layer.expert_bytes).max(),
            },
            capacity: sum(|layer| layer.capacity),
            slots: sum(|layer| layer.capacity),
            resident: sum(|layer| layer.resident.len()),
            cache_bytes: stats.cache_bytes(),
            layers_in_use: sum(|layer| usize::from(layer.in_use)),
            since_start: Total {
                counts: stats.total().into(),
                upload_bytes: stats.upload_bytes(),
            },
            last_minute: stats.minute.into(),
            layers: matches!(detail, Detail::Layers | Detail::Heatmap)
                .then(|| layers.iter().map(Layer::from).collect()),
            heatmap: (detail == Detail::Heatmap).then(|| HeatMap {
                layers: layers.iter().map(|layer| layer.layer).collect(),
                selections: layers.iter().map(|layer| layer.selected.clone()).collect(),
                resident: layers.iter().map(|layer| layer.resident.clone()).collect(),
            }),
            work: (detail == Detail::Phases).then_some(stats.work),
            phases: (detail == Detail::Phases).then(|| stats.phases.clone()),
        }
    }
}

impl From<&LayerStats> for Layer {
    fn from(layer: &LayerStats) -> Self {
        let top = layer.top(TOP).into_iter();
        Self {
            counts: layer.counts.into(),
            layer: layer.layer,
            experts: layer.experts,
            capacity: layer.capacity,
            slots: layer.capacity,
            resident: layer.resident.len(),
            bytes_per_expert: layer.expert_bytes,
            in_use: layer.in_use,
            distinct: layer.distinct(),
            entropy: layer.entropy(),
            top: top
                .map(|(expert, selections, resident)| Selected {
                    expert,
                    selections,
                    resident,
                })
                .collect(),
        }
    }
}

impl From<LayerCounts> for Counts {
    fn from(counts: LayerCounts) -> Self {
        Self {
            tokens: counts.tokens,
            selections: counts.selections,
            hits: counts.hits,
            misses: counts.selections - counts.hits,
            hit_rate: counts.hit_rate(),
            computed: counts.computed,
            uploads: counts.uploads,
            evictions: counts.evictions,
        }
    }
}

/// What may be changed; what is not named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// Name, alias or role of a model; may be left out where only one has a cache.
    // Read by `Body::model`.
    #[serde(rename = "model")]
    _model: Option<String>,
    /// As `experts.cache` in the configuration: `"25%"` or `"6GiB"`.
    size: Option<String>,
    policy: Option<PolicyKind>,
    /// By layer, experts that always have an entry. `pins` is the old name.
    #[serde(alias = "pins")]
    pinned: Option<BTreeMap<u32, Vec<u32>>>,
    #[serde(default)]
    reset: bool,
}

/// Changes a running cache of experts.
#[utoipa::path(
    post,
    path = "/api/v1/expert-cache",
    request_body(content = Wish, example = json!({"size": "25%"})),
    responses((status = 200, description = "The cache as it is now.", body = ModelExperts))
)]
pub(super) async fn change(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let wish: Wish = body.read()?;
    let engine = match body.model()? {
        Some(name) => state.named(name)?.model.engine.clone(),
        // Whoever has one cache means that one.
        None => {
            let registry = state.registry();
            let mut with_cache = registry
                .models()
                .iter()
                .filter(|served| served.engine.experts().is_some());
            match (with_cache.next(), with_cache.next()) {
                (Some(served), None) => served.engine.clone(),
                (None, _) => return Err(no_cache()),
                _ => {
                    return Err(ApiError::field(
                        "model",
                        "several models have a cache: name one in `model`",
                    ));
                }
            }
        }
    };
    let capacity = match wish.size.as_deref().map(str::parse::<CacheSize>) {
        None => None,
        Some(Ok(CacheSize::Percent(percent))) => Some(Capacity::Share(f32::from(percent) / 100.0)),
        Some(Ok(CacheSize::Bytes(bytes))) => Some(Capacity::Bytes(bytes)),
        Some(Ok(CacheSize::Auto)) => {
            return Err(ApiError::field(
                "size",
                "`size`: a running cache needs an amount, such as \"25%\" or \"6GiB\"",
            ));
        }
        Some(Err(message)) => return Err(ApiError::field("size", format!("`size` {message}"))),
    };
    let change = Change {
        capacity,
        policy: wish.policy,
        pinned: wish.pinned,
        reset: wish.reset,
    };
    match engine.change_experts(change) {
        None => Err(no_cache()),
        Some(Err(error)) => Err(ApiError::bad_body(error.to_string())),
        Some(Ok(())) => Ok(HttpResponse::Ok().json(ModelExperts::of(&*engine, Detail::Summary))),
    }
}

fn no_cache() -> ApiError {
    ApiError::field(
        "model",
        "this model has no cache of experts; `experts = { placement = \"cache\" }` in its configuration gives it one",
    )
}
