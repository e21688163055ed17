//! `POST /tokenize` and `POST /detokenize`, in llama-server's shapes.
//!
//! A text has more tokens than one would like to hold as JSON at once: answers are made and sent in parts.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{Bytes, Data, ServiceConfig, post};
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::LlamaError;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::limits;
use crate::api::state::State;
use crate::engine::local::text::TextAssembler;
use crate::engine::{EngineError, Token, TokenEngine};

pub(super) fn routes(config: &mut ServiceConfig) {
    config
        .route("/tokenize", post().to(tokenize))
        .route("/detokenize", post().to(detokenize));
}

/// Tokens that are looked up and written at a time: a fraction of a millisecond.
const PART: usize = 4096;

/// A text to be split into tokens.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Tokenize {
    /// Name, alias or role of a model; the first one if not given.
    // Read by `State::open`.
    #[serde(rename = "model")]
    _model: Option<String>,
    /// A text, or a list of texts and token ids; up to 2 MiB.
    content: TokenizedContent,
    /// Add the tokens that begin and end a text.
    #[serde(default)]
    add_special: bool,
    /// Read the names of control tokens as such.
    #[serde(default = "yes")]
    #[schema(default = true)]
    parse_special: bool,
    /// Tell the text of each token, too.
    #[serde(default)]
    with_pieces: bool,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a string, or a list of strings and token ids")]
enum TokenizedContent {
    Text(String),
    Mixed(Vec<ContentItem>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
enum ContentItem {
    Text(String),
    Token(Token),
}

impl TokenizedContent {
    fn bytes(&self) -> usize {
        let of_item = |item: &ContentItem| match item {
            ContentItem::Text(text) => text.len(),
            ContentItem::Token(_) => 1,
        };
        match self {
            Self::Text(text) => text.len(),
            Self::Mixed(items) => items.iter().map(of_item).sum(),
        }
    }

    fn into_items(self) -> Vec<ContentItem> {
        match self {
            Self::Text(text) => vec![ContentItem::Text(text)],
            Self::Mixed(items) => items,
        }
    }
}

fn yes() -> bool {
    true
}

/// The answer of `/tokenize`.
#[derive(Debug, Serialize, ToSchema)]
struct Tokenized {
    tokens: Vec<TokenEntry>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum TokenEntry {
    Id(Token),
    /// With `with_pieces`.
    Piece {
        id: Token,
        piece: Piece,
    },
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Piece {
    Text(String),
    /// A piece that is not a text by itself is given as its bytes.
    Bytes(Vec<u8>),
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }
}

/// Splits a text into tokens.
#[utoipa::path(
    post,
    path = "/tokenize",
    request_body(content = Tokenize, example = json!({"content": "Hello", "with_pieces": true})),
    responses((status = 200, description = "The tokens.", body = Tokenized))
)]
pub(super) async fn tokenize(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let mut body = body?;
    let request: Tokenize = body.read()?;
    let target = state.open(&mut body).await?;
    let engine = target.model.engine.clone();
    drop(body);
    let bytes = request.content.bytes();
    if bytes > limits::TOKENIZE_BYTES {
        let message = format!(
            "`content` has {bytes} bytes, but at most {} are tokenized: send it in parts",
            limits::TOKENIZE_BYTES
        );
        return Err(ApiError::field("content", message).into());
    }
    let mut tokens = Vec::new();
    // Only what begins with a text may begin with the tokens that begin every text.
    let mut begins = request.add_special;
    for item in request.content.into_items() {
        match item {
            ContentItem::Text(text) => tokens.extend(engine.tokenize(text, begins, request.parse_special).await?),
            ContentItem::Token(token) => tokens.push(token),
        }
        begins = false;
    }
    if tokens.len() <= PART {
        let tokens = entries(&*engine, tokens, request.with_pieces).await?;
        return Ok(HttpResponse::Ok().json(Tokenized { tokens }));
    }
    let (tokens, with_pieces) = (Arc::new(tokens), request.with_pieces);
    let last = tokens.len().div_ceil(PART) - 1;
    let parts = stream::iter(0..=last).then(move |part| {
        let (engine, tokens) = (engine.clone(), tokens.clone());
        async move {
            let entries = entries(&*engine, nth_part(&tokens, part).to_vec(), with_pieces).await?;
            let mut out = Vec::with_capacity(entries.len() * 32);
            out.extend_from_slice(if part == 0 { b"{\"tokens\":[" } else { b"," });
            write_items(&mut out, &entries);
            if part == last {
                out.extend_from_slice(b"]}");
            }
            Ok::<Bytes, EngineError>(out.into())
        }
    });
    Ok(HttpResponse::Ok().content_type("application/json").streaming(parts))
}

fn nth_part(tokens: &[Token], part: usize) -> &[Token] {
    tokens.chunks(PART).nth(part).unwrap_or_default()
}

/// The items of a JSON array, without its brackets.
fn write_items(out: &mut Vec<u8>, items: &[impl Serialize]) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        // Writing plain values to memory cannot fail.
        let _ = serde_json::to_writer(&mut *out, item);
    }
}

async fn entries(
    engine: &dyn TokenEngine,
    tokens: Vec<Token>,
    with_pieces: bool,
) -> Result<Vec<TokenEntry>, EngineError> {
    if !with_pieces {
        return Ok(tokens.into_iter().map(TokenEntry::Id).collect());
    }
    let pieces = engine.token_pieces(tokens.clone()).await?;
    let entries = tokens.into_iter().zip(pieces);
    Ok(entries
        .map(|(id, piece)| TokenEntry::Piece {
            id,
            piece: piece.into(),
        })
        .collect())
}

/// Tokens to be joined to a text.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Detokenize {
    /// Name, alias or role of a model; the first one if not given.
    // Read by `State::open`.
    #[serde(rename = "model")]
    _model: Option<String>,
    #[schema(max_items = 1_048_576)]
    tokens: Vec<Token>,
}

/// The answer of `/detokenize`.
#[derive(Debug, Serialize, ToSchema)]
struct Detokenized {
    content: String,
}

/// Joins tokens to a text.
#[utoipa::path(
    post,
    path = "/detokenize",
    request_body(content = Detokenize, example = json!({"tokens": [1, 2, 3]})),
    responses((status = 200, description = "The text.", body = Detokenized))
)]
pub(super) async fn detokenize(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let mut body = body?;
    let count = body.field("tokens").as_array().map_or(0, Vec::len);
    if count > limits::DETOKENIZE_TOKENS {
        let message = format!(
            "`tokens` has {count} entries, but at most {} are taken: send them in parts",
            limits::DETOKENIZE_TOKENS
        );
        return Err(ApiError::field("tokens", message).into());
    }
    let request: Detokenize = body.read()?;
    let target = state.open(&mut body).await?;
    let engine = target.model.engine.clone();
    drop(body);
    let tokens = Arc::new(request.tokens);
    let vocabulary = engine.info().vocabulary;
    let known = |token: Token| u32::try_from(token).is_ok_and(|token| token < vocabulary);
    if let Some(token) = tokens.iter().find(|token| !known(**token)) {
        let message = format!("token {token} is not in the model's vocabulary of {vocabulary} tokens");
        return Err(ApiError::field("tokens", message).into());
    }
    // Whole characters only; they may be split between tokens.
    let mut text = TextAssembler::new(Vec::new());
    if tokens.len() <= PART {
        let content = text_of(&*engine, &mut text, &tokens).await? + &text.finish().text;
        return Ok(HttpResponse::Ok().json(Detokenized { content }));
    }
    let last = tokens.len().div_ceil(PART) - 1;
    let parts = stream::try_unfold((text, 0), move |(mut text, part)| {
        let (engine, tokens) = (engine.clone(), tokens.clone());
        async move {
            if part > last {
                return Ok::<_, EngineError>(None);
            }
            let mut content = text_of(&*engine, &mut text, nth_part(&tokens, part)).await?;
            if part == last {
                content += &text.finish().text;
            }
            // A string without its quotes.
            let json = serde_json::to_vec(&content).unwrap_or_default();
            let inner = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
            let (before, after): (&[u8], &[u8]) = match part {
                0 => (b"{\"content\":\"", b""),
                _ if part == last => (b"", b"\"}"),
                _ => (b"", b""),
            };
            Ok(Some((Bytes::from([before, inner, after].concat()), (text, part + 1))))
        }
    });
    Ok(HttpResponse::Ok().content_type("application/json").streaming(parts))
}

async fn text_of(engine: &dyn TokenEngine, text: &mut TextAssembler, tokens: &[Token]) -> Result<String, EngineError> {
    let pieces = engine.token_pieces(tokens.to_vec()).await?;
    let released = tokens
        .iter()
        .zip(&pieces)
        .map(|(token, piece)| text.push(*token, piece));
    Ok(released.map(|released| released.text).collect())
}
