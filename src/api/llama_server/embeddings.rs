//! `POST /embedding`, `/embeddings`, `/rerank` and `/v1/rerank`, in llama-server's shapes.

use actix_web::HttpResponse;
use actix_web::web::{Data, ServiceConfig, post};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::error::{LlamaError, LlamaErrorBody};
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::limits;
use crate::api::requests::PooledEmbeddingRequest;
use crate::api::state::State;
use crate::api::vectors::{self, Norm};
use crate::engine::{Pooling, TokenEngine};

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/embedding", post().to(embed))
        .route("/embeddings", post().to(embed))
        .route("/rerank", post().to(rerank))
        .route("/reranking", post().to(rerank))
        .route("/v1/rerank", post().to(rerank))
        .route("/v1/reranking", post().to(rerank));
}

/// The answer of `/embedding` is a list of these.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PooledEmbedding)]
struct Embedding {
    index: usize,
    /// One vector: tokens are pooled.
    #[schema(value_type = Vec<Vec<f32>>)]
    embedding: [Vec<f32>; 1],
}

/// Makes vectors of texts, in llama-server's shape.
#[utoipa::path(
    post,
    path = "/embedding",
    request_body(content = PooledEmbeddingRequest, example = json!({"content": "Hello"})),
    responses(
        (status = 200, description = "The vectors.", body = Vec<Embedding>),
        (status = 501, description = "The model makes no embeddings.", body = LlamaErrorBody<'static>)
    )
)]
pub(super) async fn embed(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let mut body = body?;
    let target = state.open(&mut body).await?;
    let engine = &target.model.engine;
    if engine.pooling().is_none() {
        return Err(not_made("embeddings", &**engine));
    }
    let norm = match body.field("embd_normalize") {
        Value::Null => Norm::Euclidean,
        number => {
            let number = number.as_i64();
            let wrong = || ApiError::field("embd_normalize", "`embd_normalize` must be a whole number");
            Norm::from_number(number.ok_or_else(wrong)?)?
        }
    };
    let field = if body.field("content").is_null() {
        "input"
    } else {
        "content"
    };
    let texts = vectors::texts(field, body.field(field))?;
    drop(body);
    let vectors = engine.embed(texts).await?.vectors.into_iter().enumerate();
    let embeddings: Vec<Embedding> = vectors
        .map(|(index, mut vector)| {
            norm.apply(&mut vector);
            Embedding {
                index,
                embedding: [vector],
            }
        })
        .collect();
    Ok(HttpResponse::Ok().json(embeddings))
}

/// 501, as by a llama-server without `--embeddings`.
fn not_made(what: &str, engine: &dyn TokenEngine) -> LlamaError {
    let name = &engine.info().name;
    LlamaError::not_supported(format!(
        "model `{name}` makes no {what}; `embeddings` and `pooling` of its [[model]] say so"
    ))
}

/// A question and documents that may answer it.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Rerank {
    /// Name, alias or role of a model; the first one if not given.
    // Read by `State::open`.
    #[serde(rename = "model")]
    _model: Option<String>,
    #[schema(min_length = 1)]
    query: String,
    documents: Option<Vec<String>>,
    /// As Hugging Face's text-embeddings-inference names the documents; then its shape is answered.
    texts: Option<Vec<String>>,
    /// The best that are answered; all by default.
    top_n: Option<usize>,
    /// Repeat each text, in the shape that `texts` asks for.
    #[serde(default)]
    return_text: bool,
}

/// The answer of `/rerank`: documents by how well they answer the query, best first.
#[derive(Debug, Serialize, ToSchema)]
struct Ranking {
    model: String,
    object: &'static str,
    usage: RankingUsage,
    results: Vec<Ranked>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RankingUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

#[derive(Debug, Serialize, ToSchema)]
struct Ranked {
    /// Of the document.
    index: usize,
    relevance_score: f32,
}

/// What `/rerank` answers, by what it is asked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum RankingOrScores {
    Ranking(Ranking),
    Scores(Vec<Scored>),
}

/// The same in the shape of text-embeddings-inference.
#[derive(Debug, Serialize, ToSchema)]
struct Scored {
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Ranks documents by how well they answer a query.
#[utoipa::path(
    post,
    path = "/rerank",
    request_body(
        content = Rerank,
        example = json!({"query": "Who is there?", "documents": ["Nobody is there.", "Anna is there."]})
    ),
    responses(
        (status = 200, description = "The documents, best first; with `texts` a list of `Scored`.", body = RankingOrScores),
        (status = 501, description = "The model ranks no documents.", body = LlamaErrorBody<'static>)
    )
)]
pub(super) async fn rerank(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let mut body = body?;
    let target = state.open(&mut body).await?;
    if target.model.engine.pooling() != Some(Pooling::Rank) {
        return Err(not_made("ranks of documents", &*target.model.engine));
    }
    let request: Rerank = body.read()?;
    drop(body);
    let tei = request.texts.is_some();
    let documents = request.texts.or(request.documents).unwrap_or_default();
    if documents.is_empty() || documents.len() > limits::EMBEDDINGS {
        let message = format!("`documents` must be a list of 1 to {} texts", limits::EMBEDDINGS);
        return Err(ApiError::field("documents", message).into());
    }
    if request.query.is_empty() {
        return Err(ApiError::field("query", "`query` is empty").into());
    }
    let texts = if request.return_text {
        documents.clone()
    } else {
        Vec::new()
    };
    let ranks = target.model.engine.rank(request.query, documents).await?;
    let scores = ranks
        .vectors
        .iter()
        .map(|vector| vector.first().copied().unwrap_or(0.0));
    let mut scores: Vec<(usize, f32)> = scores.enumerate().collect();
    scores.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    scores.truncate(request.top_n.unwrap_or(usize::MAX));
    if tei {
        let scored = scores.into_iter().map(|(index, score)| Scored {
            index,
            score,
            text: texts.get(index).cloned(),
        });
        return Ok(HttpResponse::Ok().json(RankingOrScores::Scores(scored.collect())));
    }
    let tokens = ranks.tokens;
    let results = scores
        .into_iter()
        .map(|(index, relevance_score)| Ranked { index, relevance_score });
    Ok(HttpResponse::Ok().json(RankingOrScores::Ranking(Ranking {
        model: target.name().to_owned(),
        object: "list",
        usage: RankingUsage {
            prompt_tokens: tokens,
            total_tokens: tokens,
        },
        results: results.collect(),
    })))
}
