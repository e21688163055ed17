//! `/slots` and `/lora-adapters`.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query, ServiceConfig, post};
use serde::{Deserialize, Serialize};

use super::error::LlamaError;
use crate::api::error::ApiError;
use crate::api::routing::get;
use crate::api::state::State;
use crate::engine::SlotState;

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
    /// Of the request that it computes, or computed last.
    #[serde(flatten)]
    last: Option<Request>,
}

#[derive(Debug, Serialize)]
struct Request {
    id_task: u32,
    n_prompt_tokens: u32,
    /// Without those that the slot held before.
    n_prompt_tokens_processed: u32,
    n_prompt_tokens_cache: u32,
    next_token: [NextToken; 1],
}

#[derive(Debug, Serialize)]
struct NextToken {
    has_next_token: bool,
    n_remain: u32,
    n_decoded: u32,
}

impl Slot {
    fn of(id: u32, context: u32, state: &SlotState) -> Self {
        Self {
            id,
            n_ctx: context,
            speculative: false,
            is_processing: state.busy,
            last: state.last.map(|request| Request {
                id_task: request.number,
                n_prompt_tokens: request.prompt_tokens,
                n_prompt_tokens_processed: request.processed_tokens.saturating_sub(request.cached_tokens),
                n_prompt_tokens_cache: request.cached_tokens,
                next_token: [NextToken {
                    has_next_token: state.busy,
                    n_remain: request.max_tokens.saturating_sub(request.generated_tokens),
                    n_decoded: request.generated_tokens,
                }],
            }),
        }
    }
}

async fn slots(state: Data<State>, wanted: Query<Wanted>) -> Result<HttpResponse, LlamaError> {
    let model = state.resolve(wanted.model.as_deref()).map_err(LlamaError::from)?;
    let (context, states) = (model.info().context, model.engine.slot_states());
    let no_slot = wanted.fail_on_no_slot.as_deref().is_some_and(|value| !value.is_empty());
    if no_slot && states.iter().all(|state| state.busy) {
        return Err(ApiError::busy("no slot is available").into());
    }
    let slots = (0..).zip(&states).map(|(id, state)| Slot::of(id, context, state));
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
