//! `GET /api/v1/expert-stats`: what the caches of experts hold and did.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query, ServiceConfig, get};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::state::State;
use crate::engine::Engine;
use crate::experts::layer::LayerCounts;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/api/v1/expert-stats", get().to(stats));
}

#[derive(Debug, Deserialize)]
struct Wanted {
    /// Only this model.
    model: Option<String>,
    /// `layers` adds each layer.
    detail: Option<String>,
}

async fn stats(state: Data<State>, wanted: Query<Wanted>) -> Result<HttpResponse, ApiError> {
    let layers = match wanted.detail.as_deref() {
        None => false,
        Some("layers") => true,
        Some(other) => {
            let message = format!("`detail` is `{other}`; there is only `layers`");
            return Err(ApiError::field("detail", message));
        }
    };
    let models: Vec<Value> = match &wanted.model {
        Some(name) => vec![model(&*state.resolve(Some(name))?.engine, layers)],
        None => state
            .served()
            .iter()
            .map(|served| model(&*served.engine, layers))
            .collect(),
    };
    Ok(HttpResponse::Ok().json(json!({"models": models})))
}

/// One model; `cache` is null for those without one.
fn model(engine: &dyn Engine, layers: bool) -> Value {
    let cache = engine.experts().map(|stats| {
        let mut cache = counts(stats.total());
        cache["policy"] = "lfu-decay".into();
        cache["slots"] = stats.layers.iter().map(|layer| layer.slots).sum::<usize>().into();
        cache["resident_bytes"] = stats
            .layers
            .iter()
            .map(|layer| layer.slots * layer.expert_bytes)
            .sum::<usize>()
            .into();
        cache["upload_bytes"] = stats
            .layers
            .iter()
            .map(|layer| layer.counts.uploads * layer.expert_bytes as u64)
            .sum::<u64>()
            .into();
        if layers {
            let each = stats.layers.iter().map(|layer| {
                let mut object = counts(layer.counts);
                object["layer"] = layer.layer.into();
                object["experts"] = layer.experts.into();
                object["slots"] = layer.slots.into();
                object["expert_bytes"] = layer.expert_bytes.into();
                object
            });
            cache["layers"] = each.collect();
        }
        cache
    });
    json!({"model": engine.card().name, "cache": cache})
}

fn counts(counts: LayerCounts) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let hit_rate = (counts.selections > 0).then(|| counts.hits as f64 / counts.selections as f64);
    json!({
        "tokens": counts.tokens, "selections": counts.selections, "hits": counts.hits,
        "misses": counts.selections - counts.hits, "hit_rate": hit_rate,
        "uploads": counts.uploads, "evictions": counts.evictions,
    })
}
