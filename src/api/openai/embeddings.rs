//! `POST /v1/embeddings`.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::requests::EmbeddingRequest;
use crate::api::state::State;
use crate::api::vectors::{self, Norm};
use crate::engine::Pooling;

pub(super) fn routes(config: &mut ServiceConfig) {
    config.route("/v1/embeddings", post().to(embed));
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    encoding_format: Option<Encoding>,
    dimensions: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Float,
    /// Little-endian 32-bit floats.
    Base64,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingList {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: EmbeddingUsage,
}

#[derive(Debug, Serialize, ToSchema)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

/// Makes vectors of texts.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    request_body(content = EmbeddingRequest, example = json!({"input": ["Hello", "Goodbye"]})),
    responses(
        (status = 200, description = "The vectors, of length 1.", body = EmbeddingList)
    )
)]
pub(super) async fn embed(state: Data<State>, mut body: Body) -> Result<HttpResponse, ApiError> {
    let options: Options = body.read()?;
    let target = state.open(&mut body).await?;
    let texts = vectors::texts("input", body.field("input"))?;
    drop(body);
    let engine = &target.model.engine;
    if engine.pooling() == Some(Pooling::Rank) {
        let message = format!(
            "model `{}` ranks documents (/v1/rerank), and makes no embeddings",
            target.name()
        );
        return Err(ApiError::field("model", message));
    }
    let embeddings = engine.embed(texts).await?;
    let tokens = embeddings.tokens;
    let base64 = options.encoding_format == Some(Encoding::Base64);
    let mut data = Vec::with_capacity(embeddings.vectors.len());
    for (index, mut vector) in embeddings.vectors.into_iter().enumerate() {
        if let Some(dimensions) = options.dimensions {
            if !(1..=vector.len()).contains(&dimensions) {
                let message = format!(
                    "`dimensions` must be from 1 to {}, what model `{}` has",
                    vector.len(),
                    target.name()
                );
                return Err(ApiError::field("dimensions", message));
            }
            vector.truncate(dimensions);
        }
        Norm::Euclidean.apply(&mut vector);
        data.push(Embedding {
            object: "embedding",
            index,
            embedding: if base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                Vector::Base64(STANDARD.encode(bytes))
            } else {
                Vector::Numbers(vector)
            },
        });
    }
    Ok(HttpResponse::Ok().json(EmbeddingList {
        object: "list",
        data,
        model: target.name().to_owned(),
        usage: EmbeddingUsage {
            prompt_tokens: tokens,
            total_tokens: tokens,
        },
    }))
}
