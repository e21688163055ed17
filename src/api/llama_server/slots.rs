//! `/slots` and `/lora-adapters`.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query, ServiceConfig, post};
use serde::{Deserialize, Serialize};

use super::error::LlamaError;
use crate::api::error::ApiError;
use crate::api::routing::get;
use crate::api::state::State;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/slots", get().to(slots))
        .route("/slots/{slot}", post().to(refuse_action))
        .route("/lora-adapters", get().to(adapters))
        .route("/lora-adapters", post().to(refuse_adapters));
}

#[derive(Debug, Deserialize)]
struct Wanted {
    /// The first model if not given.
    model: Option<String>,
    /// Anything but nothing asks for an error when all slots are busy.
    fail_on_no_slot: Option<String>,
}

#[derive(Debug, Serialize)]
struct Slot {
    id: u32,
    /// Tokens that fit into it.
    n_ctx: u32,
    speculative: bool,
    is_processing: bool,
}

async fn slots(state: Data<State>, wanted: Query<Wanted>) -> Result<HttpResponse, LlamaError> {
    let model = state.resolve(wanted.model.as_deref()).map_err(LlamaError::from)?;
    let (info, counts) = (model.info(), model.engine.slots());
    let no_slot = wanted.fail_on_no_slot.as_deref().is_some_and(|value| !value.is_empty());
    if no_slot && counts.busy >= counts.total {
        return Err(ApiError::busy("no slot is available").into());
    }
    // Which of them are busy is not told: they are alike.
    let slots = (0..info.parallel).map(|id| Slot {
        id,
        n_ctx: info.context,
        speculative: false,
        is_processing: id < counts.busy,
    });
    Ok(HttpResponse::Ok().json(slots.collect::<Vec<_>>()))
}

async fn refuse_action() -> Result<&'static str, LlamaError> {
    Err(LlamaError::not_supported(
        "this server does not save, restore or erase slots; they are reused by what they hold",
    ))
}

/// There are none.
async fn adapters() -> HttpResponse {
    HttpResponse::Ok().json([(); 0])
}

async fn refuse_adapters() -> Result<&'static str, LlamaError> {
    Err(LlamaError::not_supported("this server has no LoRA adapters"))
}
