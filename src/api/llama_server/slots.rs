//! `/slots` and `/lora-adapters`.

use actix_web::HttpResponse;
use actix_web::web::{Data, Path, Query, ServiceConfig, post};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{LlamaError, LlamaErrorBody};
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::keys::Caller;
use crate::api::routing::get;
use crate::api::state::State;
use crate::engine::{SlotAction, SlotOutcome, SlotState};

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/slots", get().to(slots))
        .route("/slots/{slot}", post().to(act))
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
pub(super) async fn slots(
    state: Data<State>,
    wanted: Query<SlotsOf>,
    caller: Caller,
) -> Result<HttpResponse, LlamaError> {
    let target = state.named_for(&caller, wanted.model.as_deref().unwrap_or_default())?;
    let model = &target.model;
    let (context, states) = (model.info().context, model.engine.slot_states());
    let no_slot = wanted.fail_on_no_slot.as_deref().is_some_and(|value| !value.is_empty());
    if no_slot && states.iter().all(|state| state.busy) {
        return Err(ApiError::no_slot().into());
    }
    let slots = (0..).zip(&states).map(|(id, state)| Slot::of(id, context, state));
    Ok(HttpResponse::Ok().json(slots.collect::<Vec<_>>()))
}

/// What to do with a slot.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ActionOf {
    /// `save`, `restore` or `erase`.
    action: Option<String>,
    /// The first model if not given.
    model: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct SlotFile {
    /// Of a file in the folder `slot_save_path`; not needed to erase.
    filename: String,
}

/// What was done with a slot.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Acted {
    Saved {
        id_slot: u32,
        filename: String,
        /// Tokens.
        n_saved: usize,
        /// Bytes.
        n_written: u64,
        timings: SaveTimings,
    },
    Restored {
        id_slot: u32,
        filename: String,
        /// Tokens.
        n_restored: usize,
        /// Bytes.
        n_read: u64,
        timings: RestoreTimings,
    },
    Erased {
        id_slot: u32,
        /// Tokens.
        n_erased: usize,
    },
}

#[derive(Debug, Serialize, ToSchema)]
struct SaveTimings {
    save_ms: f64,
}

#[derive(Debug, Serialize, ToSchema)]
struct RestoreTimings {
    restore_ms: f64,
}

impl Acted {
    fn of(id_slot: u32, action: SlotAction, outcome: SlotOutcome) -> Self {
        let milliseconds = outcome.elapsed.as_secs_f64() * 1e3;
        match action {
            SlotAction::Save(filename) => Self::Saved {
                id_slot,
                filename,
                n_saved: outcome.tokens,
                n_written: outcome.bytes,
                timings: SaveTimings { save_ms: milliseconds },
            },
            SlotAction::Restore(filename) => Self::Restored {
                id_slot,
                filename,
                n_restored: outcome.tokens,
                n_read: outcome.bytes,
                timings: RestoreTimings {
                    restore_ms: milliseconds,
                },
            },
            SlotAction::Erase => Self::Erased {
                id_slot,
                n_erased: outcome.tokens,
            },
        }
    }
}

/// Saves what a slot holds to a file, restores it from one, or erases it.
///
/// A slot that computes a request is waited for. The folder of the files is `slot_save_path` in `[server]`.
#[utoipa::path(
    post,
    path = "/slots/{slot}",
    params(("slot" = String, Path, description = "The number of a slot."), ActionOf),
    request_body(content = SlotFile, example = json!({"filename": "conversation.bin"})),
    responses(
        (status = 200, description = "What was done.", body = Acted),
        (status = 501, description = "The server has no folder for slots.", body = LlamaErrorBody<'static>)
    )
)]
pub(super) async fn act(
    state: Data<State>,
    slot: Path<String>,
    wanted: Query<ActionOf>,
    body: Result<Body, LlamaError>,
) -> Result<HttpResponse, LlamaError> {
    let model = state.named(wanted.model.as_deref().unwrap_or_default())?.model;
    let slot: u32 = slot
        .parse()
        .map_err(|_| ApiError::field("slot", "a slot has a number"))?;
    let action = match wanted.action.as_deref() {
        Some("erase") => SlotAction::Erase,
        Some("save") => SlotAction::Save(file_name(&body?)?),
        Some("restore") => SlotAction::Restore(file_name(&body?)?),
        _ => return Err(ApiError::field("action", "a slot can be saved, restored or erased").into()),
    };
    let outcome = model.engine.act_on_slot(slot, action.clone()).await?;
    Ok(HttpResponse::Ok().json(Acted::of(slot, action, outcome)))
}

/// The name of a file within a folder, on any system.
fn file_name(body: &Body) -> Result<String, ApiError> {
    const MAX_BYTES: usize = 200;
    let SlotFile { filename } = body.read()?;
    let forbidden = |c: char| c.is_control() || r#"/\:*?"<>|"#.contains(c);
    let hidden = |c: char| c == '.' || c.is_whitespace();
    let sound = !filename.is_empty()
        && filename.len() <= MAX_BYTES
        && !filename.contains(forbidden)
        && !filename.starts_with(hidden)
        && !filename.ends_with(hidden);
    if !sound {
        let message = format!(
            "`filename` must be the name of a file without a folder, of 1 to {MAX_BYTES} bytes; it cannot begin or end with a dot"
        );
        return Err(ApiError::field("filename", message));
    }
    Ok(filename)
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
