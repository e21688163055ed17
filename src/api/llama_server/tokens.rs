//! `POST /tokenize` and `POST /detokenize`, in llama-server's shapes.
//!
//! A text has more tokens than one would like to hold as JSON at once: answers are made and sent in parts.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{Bytes, Data, ServiceConfig, post};
use futures_util::stream::{self, StreamExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

#[derive(Debug, Deserialize)]
struct Tokenize {
    /// A text, or a list of texts and token ids.
    content: Content,
    #[serde(default)]
    add_special: bool,
    #[serde(default = "yes")]
    parse_special: bool,
    #[serde(default)]
    with_pieces: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a string, or a list of strings and token ids")]
enum Content {
    Text(String),
    Mixed(Vec<Item>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Item {
    Text(String),
    Token(Token),
}

impl Content {
    fn bytes(&self) -> usize {
        let of_item = |item: &Item| match item {
            Item::Text(text) => text.len(),
            Item::Token(_) => 1,
        };
        match self {
            Self::Text(text) => text.len(),
            Self::Mixed(items) => items.iter().map(of_item).sum(),
        }
    }

    fn into_items(self) -> Vec<Item> {
        match self {
            Self::Text(text) => vec![Item::Text(text)],
            Self::Mixed(items) => items,
        }
    }
}

fn yes() -> bool {
    true
}

/// The answer of `/tokenize`.
#[derive(Debug, Serialize, JsonSchema)]
struct Tokenized {
    tokens: Vec<TokenEntry>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum TokenEntry {
    Id(Token),
    /// With `with_pieces`.
    Piece {
        id: Token,
        piece: Piece,
    },
}

#[derive(Debug, Serialize, JsonSchema)]
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

async fn tokenize(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let body = body?;
    let request: Tokenize = body.read()?;
    let engine = state.resolve(body.model()?)?.engine.clone();
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
            Item::Text(text) => tokens.extend(engine.tokenize(text, begins, request.parse_special).await?),
            Item::Token(token) => tokens.push(token),
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

#[derive(Debug, Deserialize)]
struct Detokenize {
    tokens: Vec<Token>,
}

/// The answer of `/detokenize`.
#[derive(Debug, Serialize, JsonSchema)]
struct Detokenized {
    content: String,
}

async fn detokenize(state: Data<State>, body: Result<Body, LlamaError>) -> Result<HttpResponse, LlamaError> {
    let body = body?;
    let count = body.field("tokens").as_array().map_or(0, Vec::len);
    if count > limits::DETOKENIZE_TOKENS {
        let message = format!(
            "`tokens` has {count} entries, but at most {} are taken: send them in parts",
            limits::DETOKENIZE_TOKENS
        );
        return Err(ApiError::field("tokens", message).into());
    }
    let request: Detokenize = body.read()?;
    let engine = state.resolve(body.model()?)?.engine.clone();
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
