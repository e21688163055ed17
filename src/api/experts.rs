//! `GET /api/v1/expert-stats`: what the caches of experts hold and did. `POST /api/v1/expert-cache`: changes one while it
//! is used.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::{Data, Query, ServiceConfig, get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::error::ApiError;
use super::state::State;
use crate::config::CacheSize;
use crate::engine::Engine;
use crate::experts::policy::{LayerCounts, PolicyKind};
use crate::experts::{Capacity, Change, ExpertStats, LayerStats};

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
}

#[derive(Debug, Deserialize)]
struct Wanted {
    /// Only this model.
    model: Option<String>,
    detail: Option<String>,
}

async fn stats(state: Data<State>, wanted: Query<Wanted>) -> Result<HttpResponse, ApiError> {
    let detail = match wanted.detail.as_deref() {
        None | Some("summary") => Detail::Summary,
        Some("layers") => Detail::Layers,
        Some("heatmap") => Detail::Heatmap,
        Some(other) => {
            let message = format!("`detail` is `{other}`; there are `layers` and `heatmap`");
            return Err(ApiError::field("detail", message));
        }
    };
    let models: Vec<Value> = match &wanted.model {
        Some(name) => vec![model(&*state.resolve(Some(name))?.engine, detail)],
        None => state
            .served()
            .iter()
            .map(|served| model(&*served.engine, detail))
            .collect(),
    };
    Ok(HttpResponse::Ok().json(json!({"models": models})))
}

/// One model; `cache` is null for those without one.
fn model(engine: &dyn Engine, detail: Detail) -> Value {
    let cache = engine.experts().map(|stats| cache(&stats, detail));
    json!({"model": engine.card().name, "cache": cache})
}

fn cache(stats: &ExpertStats, detail: Detail) -> Value {
    let layers = &stats.layers;
    let sum = |part: fn(&LayerStats) -> usize| layers.iter().map(part).sum::<usize>();
    let mut total = counts(stats.total());
    total["upload_bytes"] = stats.upload_bytes().into();
    let mut cache = json!({
        "policy": stats.policy,
        "device": stats.device.name(),
        "geometry": {
            "layers": layers.len(),
            "experts": layers.iter().map(|layer| layer.experts).max(),
            "experts_per_token": stats.experts_per_token,
            // As it was called before.
            "active": stats.experts_per_token,
            "bytes_per_expert": layers.iter().map(|layer| layer.expert_bytes).max(),
        },
        "capacity": sum(|layer| layer.capacity),
        // As it was called before.
        "slots": sum(|layer| layer.capacity),
        "resident": sum(|layer| layer.resident.len()),
        "cache_bytes": stats.cache_bytes(),
        "layers_in_use": sum(|layer| usize::from(layer.in_use)),
        "since_start": total,
        "last_minute": counts(stats.minute),
    });
    if detail != Detail::Summary {
        cache["layers"] = layers.iter().map(layer).collect();
    }
    if detail == Detail::Heatmap {
        cache["heatmap"] = json!({
            "layers": layers.iter().map(|layer| layer.layer).collect::<Vec<_>>(),
            "selections": layers.iter().map(|layer| &layer.selected).collect::<Vec<_>>(),
            "resident": layers.iter().map(|layer| &layer.resident).collect::<Vec<_>>(),
        });
    }
    cache
}

fn layer(layer: &LayerStats) -> Value {
    let mut object = counts(layer.counts);
    object["layer"] = layer.layer.into();
    object["experts"] = layer.experts.into();
    object["capacity"] = layer.capacity.into();
    object["slots"] = layer.capacity.into();
    object["resident"] = layer.resident.len().into();
    object["bytes_per_expert"] = layer.expert_bytes.into();
    object["in_use"] = layer.in_use.into();
    object["distinct"] = layer.distinct().into();
    object["entropy"] = layer.entropy().into();
    let top = layer.top(TOP).into_iter();
    object["top"] = top
        .map(|(expert, selections, resident)| json!({"expert": expert, "selections": selections, "resident": resident}))
        .collect();
    object
}

fn counts(counts: LayerCounts) -> Value {
    json!({
        "tokens": counts.tokens, "selections": counts.selections, "hits": counts.hits,
        "misses": counts.selections - counts.hits, "hit_rate": counts.hit_rate(),
        "uploads": counts.uploads, "evictions": counts.evictions,
    })
}

/// What may be changed; what is not named stays.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Read by [`Body::model`].
    #[serde(rename = "model")]
    _model: Option<String>,
    /// As `experts.cache` in the configuration: `"25%"` or `"6GiB"`.
    size: Option<String>,
    policy: Option<PolicyKind>,
    /// By layer, experts that always have an entry; `pins` is what it was called before.
    #[serde(alias = "pins")]
    pinned: Option<BTreeMap<u32, Vec<u32>>>,
    #[serde(default)]
    reset: bool,
}

async fn change(state: Data<State>, body: Body) -> Result<HttpResponse, ApiError> {
    let wish: Wish = body.read()?;
    let engine = match body.model()? {
        Some(name) => &state.resolve(Some(name))?.engine,
        // Whoever has one cache means that one.
        None => {
            let mut with_cache = state.served().iter().filter(|served| served.engine.experts().is_some());
            match (with_cache.next(), with_cache.next()) {
                (Some(served), None) => &served.engine,
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
        Some(Ok(())) => Ok(HttpResponse::Ok().json(model(&**engine, Detail::Summary))),
    }
}

fn no_cache() -> ApiError {
    ApiError::field(
        "model",
        "this model has no cache of experts; `experts = { placement = \"cache\" }` in its configuration gives it one",
    )
}
