//! `/slots` and `/lora-adapters`.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query, ServiceConfig, post};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::error::{LlamaError, LlamaErrorBody};
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

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SlotsOf {
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
    last: Option<LastRequest>,
}

#[derive(Debug, Serialize)]
struct LastRequest {
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
            last: state.last.map(|request| LastRequest {
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

/// Tells what each slot of a model does.
#[utoipa::path(
    get,
    path = "/slots",
    params(SlotsOf),
    responses((status = 200, description = "The slots in their order.", body = Vec<Value>))
)]
pub(super) async fn slots(state: Data<State>, wanted: Query<SlotsOf>) -> Result<HttpResponse, LlamaError> {
    let model = state.named(wanted.model.as_deref().unwrap_or_default())?.model;
    let (context, states) = (model.info().context, model.engine.slot_states());
    let no_slot = wanted.fail_on_no_slot.as_deref().is_some_and(|value| !value.is_empty());
    if no_slot && states.iter().all(|state| state.busy) {
        return Err(ApiError::no_slot().into());
    }
    let slots = (0..).zip(&states).map(|(id, state)| Slot::of(id, context, state));
    Ok(HttpResponse::Ok().json(slots.collect::<Vec<_>>()))
}

/// Refuses to save, restore or erase a slot.
#[utoipa::path(
    post,
    path = "/slots/{slot}",
    params(("slot" = String, Path, description = "The number of a slot.")),
    request_body(content = Value, example = json!({"filename": "x"})),
    responses((status = 501, description = "Always.", body = LlamaErrorBody<'static>))
)]
pub(super) async fn refuse_action() -> Result<&'static str, LlamaError> {
    Err(LlamaError::not_supported(
        "this server does not save, restore or erase slots; they are reused by what they hold",
    ))
}

/// Lists LoRA adapters: there are none.
#[utoipa::path(
    get,
    path = "/lora-adapters",
    responses((status = 200, description = "An empty list.", body = Vec<Value>))
)]
pub(super) async fn adapters() -> HttpResponse {
    HttpResponse::Ok().json([(); 0])
}

/// Refuses to change LoRA adapters.
#[utoipa::path(
    post,
    path = "/lora-adapters",
    request_body(content = Value, example = json!([{"id": 0, "scale": 1.0}])),
    responses((status = 501, description = "Always.", body = LlamaErrorBody<'static>))
)]
pub(super) async fn refuse_adapters() -> Result<&'static str, LlamaError> {
    Err(LlamaError::not_supported("this server has no LoRA adapters"))
}
