//! `/props`: what the server and its model are. `GET /models` is that of `/v1`.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::web::{Data, Query, ServiceConfig, post};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::error::{LlamaError, LlamaErrorBody};
use super::settings::Settings;
use crate::api::keys::Caller;
use crate::api::openai::models;
use crate::api::routing::get;
use crate::api::state::State;
use crate::engine::EngineError;

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/models", get().to(models::list))
        .route("/props", get().to(props))
        .route("/props", post().to(refuse));
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PropsOf {
    /// The first model if not given.
    model: Option<String>,
}

#[derive(Debug, Serialize)]
struct Props<'p> {
    default_generation_settings: Defaults,
    total_slots: u32,
    model_alias: &'p str,
    model_ftype: &'p str,
    model_path: &'p str,
    modalities: Modalities,
    /// There are no media.
    media_marker: &'static str,
    endpoint_slots: bool,
    endpoint_props: bool,
    endpoint_metrics: bool,
    ui: bool,
    ui_settings: BTreeMap<(), ()>,
    chat_template: &'p str,
    chat_template_caps: BTreeMap<&'static str, bool>,
    bos_token: &'p str,
    eos_token: &'p str,
    build_info: &'static str,
    is_sleeping: bool,
    cors_proxy_enabled: bool,
}

#[derive(Debug, Serialize)]
struct Defaults {
    params: Settings,
    n_ctx: u32,
}

#[derive(Debug, Default, Serialize)]
struct Modalities {
    vision: bool,
    video: bool,
    audio: bool,
}

/// Tells what the server and a model are.
#[utoipa::path(
    get,
    path = "/props",
    params(PropsOf),
    responses((status = 200, description = "Facts and defaults.", body = Value))
)]
pub(super) async fn props(
    state: Data<State>,
    wanted: Query<PropsOf>,
    caller: Caller,
) -> Result<HttpResponse, LlamaError> {
    let target = state.named_for(&caller, wanted.model.as_deref().unwrap_or_default())?;
    let model = &target.model;
    let info = model.info();
    let sampling = info.sampling.clone().resolve(Vec::new()).map_err(EngineError::from)?;
    Ok(HttpResponse::Ok().json(Props {
        default_generation_settings: Defaults {
            params: Settings::of_model(&sampling, info.sampling.max_tokens),
            n_ctx: info.context,
        },
        total_slots: info.parallel,
        model_alias: &info.name,
        model_ftype: &info.file.kind,
        model_path: &info.file.path,
        modalities: Modalities::default(),
        media_marker: "",
        endpoint_slots: true,
        endpoint_props: false,
        endpoint_metrics: true,
        ui: false,
        ui_settings: BTreeMap::new(),
        chat_template: info.chat_template.as_deref().unwrap_or_default(),
        chat_template_caps: BTreeMap::new(),
        bos_token: &info.bos_token,
        eos_token: &info.eos_token,
        build_info: concat!("hearth-", env!("CARGO_PKG_VERSION")),
        is_sleeping: false,
        cors_proxy_enabled: false,
    }))
}

/// Refuses to change anything, as a llama-server without `--props`.
#[utoipa::path(
    post,
    path = "/props",
    request_body(content = Value, example = json!({})),
    responses((status = 501, description = "Always.", body = LlamaErrorBody<'static>))
)]
pub(super) async fn refuse() -> Result<&'static str, LlamaError> {
    Err(LlamaError::not_supported(
        "this server does not change its properties while it runs; models.toml has them",
    ))
}
