//! `prompt` of a request, in the forms of OpenAI and llama-server.

use serde_json::Value;

use super::error::ApiError;
use super::limits;
use crate::engine::{EngineError, Token, TokenEngine};
use crate::generation::{Segment, TextPrompt};

/// One prompt: a text, or a list with at least one token id, in which texts may stand too. Several prompts: a list of
/// such prompts.
pub(super) fn read(value: &Value) -> Result<Vec<TextPrompt>, ApiError> {
    let list = match value {
        Value::String(text) => return Ok(vec![text.clone().into()]),
        Value::Array(list) if list.iter().any(Value::is_number) => return Ok(vec![mixed(list)?]),
        Value::Array(list) if !list.is_empty() => list,
        _ => return Err(wrong()),
    };
    if list.len() > limits::PROMPTS {
        let message = format!("`prompt` has more than {} prompts", limits::PROMPTS);
        return Err(ApiError::field("prompt", message));
    }
    list.iter()
        .map(|prompt| match prompt {
            Value::String(text) => Ok(text.clone().into()),
            Value::Array(list) if !list.is_empty() => mixed(list),
            _ => Err(wrong()),
        })
        .collect()
}

/// The only prompt of an endpoint that answers one.
pub(super) fn read_one(value: &Value) -> Result<TextPrompt, ApiError> {
    let mut prompts = read(value)?;
    match (prompts.pop(), prompts.is_empty()) {
        (Some(prompt), true) => Ok(prompt),
        _ => Err(ApiError::field(
            "prompt",
            "`prompt` has several prompts, but this endpoint answers one; /v1/completions answers several",
        )),
    }
}

fn wrong() -> ApiError {
    ApiError::field(
        "prompt",
        "`prompt` must be a string, a list of token ids (and strings), or a list of such prompts",
    )
}

/// Token ids and texts that make one prompt.
fn mixed(list: &[Value]) -> Result<TextPrompt, ApiError> {
    let mut segments = Vec::new();
    for item in list {
        match item {
            Value::String(text) => segments.push(Segment::Text(text.clone())),
            number => {
                let token = number.as_i64().and_then(|token| Token::try_from(token).ok());
                let token = token.ok_or_else(wrong)?;
                match segments.last_mut() {
                    Some(Segment::Tokens(tokens)) => tokens.push(token),
                    _ => segments.push(Segment::Tokens(vec![token])),
                }
            }
        }
    }
    Ok(TextPrompt(segments))
}

/// A prompt as text. Where it begins with a text, the tokens that begin every text are not part of it.
pub(super) async fn text_of(engine: &dyn TokenEngine, prompt: &TextPrompt) -> Result<String, EngineError> {
    let mut bytes = Vec::new();
    for segment in &prompt.0 {
        match segment {
            Segment::Text(text) => bytes.extend_from_slice(text.as_bytes()),
            Segment::Tokens(tokens) => bytes.extend(engine.token_pieces(tokens.clone()).await?.concat()),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prompts_are_read_as_llama_server_reads_them() {
        let text = |text: &str| Segment::Text(text.into());
        let tokens = |tokens: &[Token]| Segment::Tokens(tokens.into());
        for (value, expect) in [
            (json!("a"), vec![vec![text("a")]]),
            (json!(["a"]), vec![vec![text("a")]]),
            (json!(["a", "b"]), vec![vec![text("a")], vec![text("b")]]),
            (json!([1, 2]), vec![vec![tokens(&[1, 2])]]),
            (
                json!([1, 2, "a", 3]),
                vec![vec![tokens(&[1, 2]), text("a"), tokens(&[3])]],
            ),
            (json!([[1, 2], [3]]), vec![vec![tokens(&[1, 2])], vec![tokens(&[3])]]),
            (
                json!(["a", [1, "b"]]),
                vec![vec![text("a")], vec![tokens(&[1]), text("b")]],
            ),
        ] {
            let prompts: Vec<_> = read(&value).unwrap().into_iter().map(|prompt| prompt.0).collect();
            assert_eq!(prompts, expect, "{value}");
        }
        for value in [
            json!(null),
            json!(5),
            json!([]),
            json!([[]]),
            json!([null]),
            json!([1.5]),
            json!([1, null]),
            json!([1, [2]]),
            json!([3_000_000_000_u32]),
            json!(vec!["x"; limits::PROMPTS + 1]),
        ] {
            assert!(read(&value).is_err(), "{value}");
        }
        assert!(read_one(&json!(["a"])).is_ok());
        assert!(read_one(&json!(["a", "b"])).is_err());
    }
}
